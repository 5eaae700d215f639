"""What ``[plugin.scrub]`` of gateway.toml may say, checked; what is done with a find, by its type and where the model is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from gateway import LOCAL as LOCAL_PLACES
from gateway import ConfigError, ModelCard, parse_config

Action = Literal["keep", "mask", "placeholder", "surrogate", "drop", "block"]
"""``keep``: the model sees it. ``mask``: it sees ***, for good. ``placeholder``: a token, which becomes the value again in the
answer. ``surrogate``: a made-up value of the kind, which does, too. ``drop``: nothing. ``block``: this model is not asked."""
ACTIONS = get_args(Action)
SECRET, PERSONAL = "secret", "personal"
REMOTE: Mapping[str, Action] = {SECRET: "block", PERSONAL: "placeholder"}
LOCAL: Mapping[str, Action] = {SECRET: "keep", PERSONAL: "keep"}


@dataclass(frozen=True, kw_only=True)
class NamesOptions:
    """``[plugin.scrub.names]``: a model that finds names, places and organisations."""

    model: str
    """Name of a model of this gateway that does the task `extract`, on this machine."""
    types: dict[str, str] = field(default_factory=dict)
    """What its labels are called here, such as PER = "PERSON"; "" leaves a label out. The usual ones are known."""
    least: float = 0.5
    """Score from 0 to 1 from which it is believed."""
    timeout_s: float = 10.0
    """How long it may take for one request, with loading where that is due; then only local models may serve that one."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("plugin.scrub.names.model must be the name of a model that does `extract`")
        for label, kind in self.types.items():
            if kind and not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", kind):
                raise ConfigError(f"plugin.scrub.names.types: {label} must be capital letters, digits and _, such as PERSON")
        if not 0.0 <= self.least <= 1.0:
            raise ConfigError("plugin.scrub.names.least must be between 0 and 1")
        if not 0.0 < self.timeout_s < math.inf:
            raise ConfigError("plugin.scrub.names.timeout_s must be above 0")


@dataclass(frozen=True, kw_only=True)
class ScrubOptions:
    """The whole section."""

    remote: dict[str, Action] = field(default_factory=dict)
    """What is done for models outside this machine: by type, pattern of types ("US_*"), "secret" or "personal"."""
    private: dict[str, Action] = field(default_factory=dict)
    """The same for models whose place is `private`; what it does not say, `remote` does."""
    local: dict[str, Action] = field(default_factory=dict)
    """The same for models on this machine."""
    threshold: float = 0.5
    """Score from 0 to 1 from which a find counts."""
    types: list[str] | None = None
    """Look for these types only; None: for all."""
    allow: list[str] = field(default_factory=list)
    """Texts that are never touched, such as the address of your own support."""
    rules: list[dict[str, Any]] = field(default_factory=list)
    """Rules of your own, in the form of the package's tables."""
    names: NamesOptions | None = None
    name_rules: bool = True
    """Whether names are also looked for by context, such as "my name is"."""
    presidio: bool = False
    """Whether Microsoft Presidio looks, too; it must be installed."""
    media: Literal["allow", "block"] = "allow"
    """What of images, sounds and documents, which cannot be looked into: with "block" they stay on this machine."""
    fixed: Literal["block", "keep"] = "block"
    """What of a find where it cannot be replaced: the name of a tool, an id, a URL, the key of an object."""
    keep_from_tools: list[str] = field(default_factory=list)
    """Names of tools, or patterns, in the arguments of whose calls placeholders stay: they never get the values."""
    conversations: int = 10_000
    """How many conversations are remembered at most; the one that was quiet the longest goes first."""
    ttl_s: float = 86_400.0
    """For how long after its last use."""
    key: str | None = None
    """Reference of 32 bytes in base64, such as ``env:NAME``: with it placeholders are the same after a restart."""
    file: str | None = None
    """A file to keep the conversations in, encrypted with `key`."""

    def __post_init__(self) -> None:
        if self.file is not None and self.key is None:
            raise ConfigError("plugin.scrub: file needs a key, which it is encrypted with")
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigError("plugin.scrub.threshold must be between 0 and 1")

    def action(self, kind: str, *, secret: bool, place: str) -> Action:
        """What is done with a find of a type, for models of a place."""
        if place in LOCAL_PLACES:
            return self._of(kind, secret, (self.local, LOCAL))
        tables = (self.remote, REMOTE)
        return self._of(kind, secret, (self.private, *tables) if place == "private" else tables)

    def untouched(self, card: ModelCard) -> bool:
        """Whether a model sees all as it is."""
        return card.local and all(action == "keep" for action in self.local.values())

    @staticmethod
    def _of(kind: str, secret: bool, tables: tuple[Mapping[str, Action], ...]) -> Action:
        group = SECRET if secret else PERSONAL
        for table in tables:
            if kind in table:
                return table[kind]
            for pattern, action in table.items():
                if pattern not in (SECRET, PERSONAL) and fnmatchcase(kind, pattern):
                    return action
            if group in table:
                return table[group]
        return "block"


def read_options(config: Mapping[str, Any]) -> ScrubOptions:
    """The section, checked. ConfigError names every key that is wrong."""
    return parse_config(ScrubOptions, dict(config), "plugin.scrub")
