"""A Scrub from its options: rules, detectors and conversations put together."""

from __future__ import annotations

from functools import partial

from gateway_scrub.conversations import Conversations
from gateway_scrub.detect import Detector, Detectors, Find
from gateway_scrub.model import ExtractDetector
from gateway_scrub.names import NameRules
from gateway_scrub.options import ScrubOptions
from gateway_scrub.presidio import PresidioDetector, check
from gateway_scrub.rules import rule_of
from gateway_scrub.scan import Scanner
from gateway_scrub.transform import Scrub


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
    for at, row in enumerate(options.rules):
        rule_of(row, f"plugin.scrub.rules.{at}")  # what is wrong with them is told at the start
    if options.presidio:
        check()
    conversations = Conversations(
        max_conversations=options.conversations, ttl_s=options.ttl_s, key=options.key or "", file=options.file or ""
    )
    return Scrub(options, partial(detectors_of, options), conversations)
