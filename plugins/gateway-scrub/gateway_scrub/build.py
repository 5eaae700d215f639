"""A Scrub from its options: rules, detectors and conversations put together."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial

from gateway import ConfigError
from gateway_scrub.conversations import Conversations
from gateway_scrub.detect import Detector, Detectors, Find
from gateway_scrub.model import TYPES as MODEL_TYPES
from gateway_scrub.model import ExtractDetector
from gateway_scrub.names import NameRules
from gateway_scrub.options import PERSONAL, SECRET, ScrubOptions
from gateway_scrub.presidio import TYPES as PRESIDIO_TYPES
from gateway_scrub.presidio import PresidioDetector, check
from gateway_scrub.rules import builtin_rules, rule_of
from gateway_scrub.scan import Scanner
from gateway_scrub.transform import Scrub

NAMED = frozenset({*MODEL_TYPES.values(), *PRESIDIO_TYPES.values(), "PERSON", "LOCATION", "ORGANIZATION", "ADDRESS"})
"""What is found without a rule."""


def detectors_of(options: ScrubOptions) -> tuple[Detectors, frozenset[str]]:
    """What looks, and which types are credentials."""
    more = [rule_of(row, f"plugin.scrub.rules.{at}") for at, row in enumerate(options.rules)]
    scanner = Scanner(more=more, types=options.types, threshold=options.threshold)
    finds: list[Find] = [scanner.find]
    if options.name_rules:
        finds.append(NameRules().find)
    models: list[Detector] = []
    if options.names is not None:
        models.append(ExtractDetector(options.names))
    if options.presidio:
        models.append(PresidioDetector())
    secrets = frozenset(rule.type for rule in scanner.rules if rule.secret)
    return Detectors(finds, models, threshold=options.threshold, allow=options.allow, types=options.types), secrets


def scrub_of(options: ScrubOptions) -> Scrub:
    """The transform."""
    check_own(options)
    if options.presidio:
        check()
    conversations = Conversations(
        max_conversations=options.conversations, ttl_s=options.ttl_s, key=options.key or "", file=options.file or ""
    )
    return Scrub(options, partial(detectors_of, options), conversations)


def check_own(options: ScrubOptions) -> None:
    """What the configuration says of its own, told at the start where it is wrong: a typo must not let anything out."""
    own = [rule_of(row, f"plugin.scrub.rules.{at}") for at, row in enumerate(options.rules)]
    for at, rule in enumerate(own):
        where = f"plugin.scrub.rules.{at}"
        best = max(rule.score, rule.valid or 0.0) + (rule.boost if rule.context else 0.0)
        if best < options.threshold:
            raise ConfigError(f"{where}: it can never count: its scores stay below the threshold of {options.threshold:g}")
        alone = Scanner([rule], threshold=options.threshold)
        for case in rule.cases:
            text = case.replace("«", "").replace("»", "")
            if not alone.find(text):
                raise ConfigError(f"{where}: it does not find its own case {case!r}")
    named = {kind for table in (options.remote, options.private, options.local) for kind in table} - {PERSONAL, SECRET}
    if named:
        known = (
            {rule.type for rule in (*builtin_rules(), *own)}
            | NAMED
            | (set(options.names.types.values()) if options.names else set())
        )
        for kind in sorted(named):
            if not any(fnmatchcase(each, kind) for each in known):
                near = get_close_matches(kind, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigError(f"plugin.scrub: no type that is found fits {kind!r}{hint}")
