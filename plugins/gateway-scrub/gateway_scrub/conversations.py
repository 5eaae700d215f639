"""Conversations: one Conversation for each tenant and id, of which old ones are forgotten; in memory, or in a file too."""

from __future__ import annotations

import base64
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway import Clock, ConfigError, SystemClock, secret
from gateway_scrub.conversation import MAX_TOKENS, Conversation
from gateway_scrub.state_file import StateFile, damaged
from gateway_scrub.surrogate import Inventor
from gateway_scrub.tokens import derive

KEY_BYTES = 32
VERSION = 1


@dataclass
class _Kept:
    conversation: Conversation
    used_at: float


class Conversations:
    """The conversations by tenant and id. Any thread may use it.

    At most `max_conversations` are kept, each for `ttl_s` seconds after its last use. One that is forgotten begins anew: its
    old placeholders stay in answers as they are; who still holds the Conversation can go on with it.

    `key` is the reference of 32 bytes in base64, such as ``env:SCRUB_KEY``. With it a conversation that begins anew gives the
    same texts the same tails, on another machine too. `file`, which needs a key and the package cryptography, keeps all that
    `save` finds through a restart. ConfigError: the key or the file is not usable, or another process has the file.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        max_conversations: int = 1_000,
        ttl_s: float = 86_400.0,
        max_tokens: int = MAX_TOKENS,
        key: str = "",
        file: str | Path = "",
        inventor: Inventor | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._max_conversations, self._ttl_s, self._max_tokens = max_conversations, ttl_s, max_tokens
        self._inventor = inventor or Inventor()
        self._secret = _key(key) if key else b""
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._lock, self._saving = threading.Lock(), threading.Lock()
        self._saved: Any = ()
        self._file: StateFile | None = None
        if file:
            if not key:
                raise ConfigError(f"state file {str(file)!r} needs a key, such as env:SCRUB_KEY: 32 bytes in base64")
            self._file = StateFile(Path(file), derive(self._secret, b"gateway-scrub file"))
            try:
                self._load()
            except BaseException:
                self._file.close()
                raise

    def __repr__(self) -> str:
        return f"<Conversations {len(self._kept)}>"

    def get(self, tenant: str, conversation: str) -> Conversation:
        """The conversation of this tenant with this id; "" is a fresh one for this request alone."""
        if not conversation:
            return self._new(b"")
        now, name = self._clock.now(), (tenant, conversation)
        with self._lock:
            self._forget(now)
            kept = self._kept.get(name)
            if kept is None:
                kept = self._kept[name] = _Kept(self._new(self._key_of(name)), now)
                if len(self._kept) > self._max_conversations:
                    self._kept.popitem(last=False)
            kept.used_at = now
            self._kept.move_to_end(name)
            return kept.conversation

    def save(self) -> None:
        """Write what has changed to the file, if there is one: before what was covered is sent. Blocks. ScrubError: no file.

        All of it is written each time: this is for hundreds of conversations, not for millions.
        """
        with self._saving:
            if self._file is None:
                return
            with self._lock:
                self._forget(self._clock.now())
                kept = [(name, one.used_at, one.conversation) for name, one in self._kept.items()]
            stamp = [(name, used_at, conversation.changes) for name, used_at, conversation in kept]
            if stamp == self._saved:
                return
            rows = [
                {"tenant": tenant, "conversation": name, "used_at": used_at, **conversation.dump()}
                for (tenant, name), used_at, conversation in kept
            ]
            self._file.write(_canonical({"version": VERSION, "conversations": rows}))
            self._saved = stamp

    def close(self) -> None:
        """Save, and let go of the file."""
        try:
            self.save()
        finally:
            with self._saving:
                if self._file is not None:
                    self._file.close()
                    self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _new(self, key: bytes) -> Conversation:
        return Conversation(key, max_tokens=self._max_tokens, inventor=self._inventor)

    def _key_of(self, name: tuple[str, str]) -> bytes:
        return derive(self._secret, b"gateway-scrub conversation" + _canonical(name)) if self._secret else b""

    def _forget(self, now: float) -> None:
        while self._kept:
            name, kept = next(iter(self._kept.items()))
            if now - kept.used_at < self._ttl_s:
                return
            del self._kept[name]

    def _load(self) -> None:
        assert self._file is not None
        kept = self._file.read()
        if kept is None:
            return
        try:
            state = json.loads(kept)
            if state["version"] != VERSION:
                raise ValueError
            for row in state["conversations"]:
                name = row["tenant"], row["conversation"]
                conversation = self._new(self._key_of(name))
                conversation.load(row)
                self._kept[name] = _Kept(conversation, row["used_at"])
            why = ""
        except (ValueError, KeyError, TypeError):
            why = "it was written by another version"
        if why:  # raised here: the context would hold what was in the file
            raise damaged(self._file.path, why)
        while len(self._kept) > self._max_conversations:
            self._kept.popitem(last=False)


def _key(ref: str) -> bytes:
    try:
        key = base64.b64decode(secret(ref).reveal(), validate=True)
    except ValueError:  # not base64, or not even ASCII
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"key {ref!r} must be {KEY_BYTES} bytes in base64")
    return key


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
