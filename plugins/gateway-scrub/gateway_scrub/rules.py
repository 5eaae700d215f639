"""Rules as data: what something looks like, how it is checked, and which words around it speak for it.

A table of rules is a TOML file, one a country in ``rules/``; an app adds its own in the same form, or as `Rule`. A rule says
where to look (its trigger), what must stand there (its pattern), and how sure that is (its scores):

    [[rule]]
    name = "us.ssn"             # unique
    type = "US_SSN"
    first = [3, 9]              # lengths of the run of digits that the pattern begins with
    pattern = '{B}[0-9]{3}([- ]?)[0-9]{2}\\1[0-9]{4}{E}'
    check = "us_ssn"            # of validators.py; optional
    score = 0.4                 # what the shape alone is worth, 0 to 1
    valid = 0.7                 # with a check that passes; default: score
    invalid = 0.2               # with one that fails: lower, never hidden by itself; default: score
    begin = "123"               # digits with one of which that run begins; by default any
    then = "- "                 # characters one of which follows that run; by default any may
    digits = [9]                # how many digits the find has in all; optional, spares trying it where there are more or fewer
    context = ["ssn", "social security"]
    needs_context = false       # whether it is only tried where one of these words stands near (when score alone can never do)
    reach = [60, 20]            # how many characters before and after the find those may be; this is the default
    boost = 0.35                # added when one of these words stands near; 0.35 by default
    strong = false              # whether a passed check decides between overlapping finds (a checksum does)
    secret = false              # whether it is a credential
    cases = ["My SSN is «536-22-1234»."]
    near = ["Invoice 536-22-123"]

Triggers, of which a rule has one:
- ``first``: a run of ASCII digits of one of these lengths. With ``lead`` (numbers of letters) the pattern begins with so many
  ASCII letters before the run, adjacent, or, unless the rule is ``joined``, with one space, dot, hyphen or slash between, and
  then with ``capital`` only if the first letter is one; or up to ``back`` characters before them. Without ``lead`` the pattern
  begins at the run, or up to ``back`` characters before it (a plus, a bracket, a Chinese character). With ``digits`` it is only
  tried where that run and those after it, with at most two of ``space . - / ( )`` between them, can make up so many digits.
- ``starts``: literals. One of them begins a run of 16 or more ASCII letters, digits, underscores and hyphens, or what is joined
  to its front by one of ``.+/~``; "" stands for any run. The pattern begins there. For keys and tokens, at no cost per literal.
- ``anchors``: literals, one of which the match contains; the pattern begins up to ``back`` characters before (default 0) and
  must go beyond where the anchor begins. With ``fold`` the anchors are found in any case.
- ``finder``: a function of finders.py, for what needs more than a pattern.

In a pattern ``{B}`` and ``{E}`` are the bounds of a word of ASCII letters, digits and underscores, which unlike \\b also stand
between a Chinese character and a digit; ``{D}`` is the bound before a number that is no part of a longer one. A group named
``v`` is the find; otherwise the whole match is. What is searched has its full-width
letters, digits and signs folded to ASCII, and zero-width characters taken out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

from gateway import ConfigError
from gateway_scrub.words import Phrases

Check = Callable[[str], bool]

BOUNDS = {
    "{B}": r"(?<![0-9A-Za-z_])",
    "{E}": r"(?![0-9A-Za-z_])",
    "{D}": r"(?<![0-9A-Za-z_])(?<![0-9][-.,/])",
}
BOUND = re.compile(r"\{[A-Z]\}")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule; the module says what each field means. ConfigError when it contradicts itself."""

    name: str
    type: str
    pattern: str = ""
    first: tuple[int, ...] = ()
    then: str = ""
    lead: tuple[int, ...] = ()
    joined: bool = False
    capital: bool = False
    begin: str = ""
    digits: tuple[int, ...] = ()
    starts: tuple[str, ...] = ()
    back: int = 0
    anchors: tuple[str, ...] = ()
    fold: bool = False
    finder: str = ""
    check: str | Check = ""
    score: float = 0.5
    valid: float | None = None
    invalid: float | None = None
    context: tuple[str, ...] = ()
    needs_context: bool = False
    boost: float = 0.35
    reach: tuple[int, int] = (60, 20)
    strong: bool = False
    secret: bool = False
    """Whether it is a credential: those are not sent away even as placeholders, unless the configuration says so."""
    cases: tuple[str, ...] = field(default=(), repr=False)
    near: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        where = f"rule {self.name!r}"
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", self.type):
            raise ConfigError(f"{where}: type {self.type!r} must be upper-case letters, digits and underscores")
        if bool(self.first) + bool(self.anchors) + bool(self.starts) + bool(self.finder) != 1:
            raise ConfigError(f"{where}: needs one of first, starts, anchors and finder, which says where to look")
        if bool(self.pattern) == bool(self.finder):
            raise ConfigError(f"{where}: needs a pattern, or a finder in its place")
        if (self.digits or self.begin) and (self.lead or not self.first):
            raise ConfigError(f"{where}: digits and begin go with first, and not with lead")
        if self.needs_context and not (self.first and self.context):
            raise ConfigError(f"{where}: needs_context goes with first, and with words in context")
        for key in ("score", "valid", "invalid", "boost"):
            value = getattr(self, key)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigError(f"{where}: {key} must be between 0 and 1")
        if len(self.reach) != 2:
            raise ConfigError(f"{where}: reach must be two numbers, of characters before and after the find")
        if odd := [name for name in BOUND.findall(self.pattern) if name not in BOUNDS]:
            raise ConfigError(f"{where}: pattern: {odd[0]} is none of {', '.join(BOUNDS)}")
        if isinstance(self.check, str) and self.check:
            checked(self.check, where)
        try:
            _ = self.regex, self.words
        except re.error as error:
            raise ConfigError(f"{where}: pattern: {error}") from None

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern, compiled."""
        text = self.pattern
        for name, bound in BOUNDS.items():
            text = text.replace(name, bound)
        return re.compile(text)

    @cached_property
    def group(self) -> str | int:
        """The group of the pattern that is the find."""
        return "v" if "v" in self.regex.groupindex else 0

    @cached_property
    def words(self) -> Phrases | None:
        """What is looked for near a find, with spaces for underscores; None without any."""
        return Phrases(word.replace("_", " ") for word in self.context) if self.context else None

    def spoken_for(self, text: str, start: int, end: int) -> bool:
        """Whether one of its context words stands near a find in a text of lower case, with spaces for underscores."""
        before, after = self.reach
        near = text[start - before if start > before else 0 : start] + "\n" + text[end : end + after]
        return self.words is not None and self.words.stand_in(near)

    @cached_property
    def most(self) -> float:
        """The highest score without context."""
        return max(self.score, self.valid or 0.0, self.invalid or 0.0)

    @cached_property
    def passes(self) -> Check | None:
        """Its check; None without one."""
        return checked(self.check, f"rule {self.name!r}") if isinstance(self.check, str) and self.check else self.check or None

    def scored(self, found: str, context: bool) -> tuple[float, str, int]:
        """What a find is worth, why, and its rank; `context`: whether it is spoken for."""
        score, why, rank = self.score, "shape", 0
        if self.passes is not None:
            if self.passes(found):
                score, why, rank = self.score if self.valid is None else self.valid, "check", 2 if self.strong else 0
            else:
                score, why = self.score if self.invalid is None else self.invalid, "failed check"
        if context:
            score, why = min(0.99, score + self.boost), f"{why}, context"
        return score, f"{self.name}: {why}", rank


def checked(name: str, where: str) -> Check:
    """A validator by name."""
    from gateway_scrub import validators

    check = getattr(validators, name, None)
    if name.startswith("_") or not callable(check):
        raise ConfigError(f"{where}: there is no check {name!r} in gateway_scrub.validators")
    made: Check = check
    return made


def read_rules(text: str, where: str) -> list[Rule]:
    """The rules of a TOML table. ConfigError names the rule and the key that is wrong."""
    try:
        rows = tomllib.loads(text).get("rule", [])
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: {error}") from None
    return [rule_of(row, f"{where}: rule {number}") for number, row in enumerate(rows)]


def rule_of(row: Mapping[str, Any], where: str) -> Rule:
    """A rule from the mapping of a table."""
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    if odd := sorted(set(known) - set(Rule.__dataclass_fields__)):
        raise ConfigError(f"{where}: no such key {odd[0]!r}")
    try:
        return Rule(**known)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from None


@lru_cache(maxsize=1)
def builtin_rules() -> tuple[Rule, ...]:
    """Every rule that comes with this package."""
    folder = files("gateway_scrub") / "rules"
    tables = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    return tuple(rule for table in tables for rule in read_rules(table.read_text(encoding="utf-8"), table.name))


def by_name(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Rules by name; a later one of the same name takes the place of the earlier."""
    return {rule.name: rule for rule in rules}
