"""Headers: what every call of a row sends, its secrets resolved once, when the model is started. Nothing of it prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway import ConfigError, MissingSecret, Resources
from gateway_remote.config import is_reference

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

MOST_KEPT = 1000
"""A content type can hold a boundary, which is another one for each request."""


class Sent(dict[str, str]):
    """The headers of a call. A traceback that shows variables, as error trackers keep, shows their names alone."""

    def __repr__(self) -> str:
        return f"<headers: {', '.join(self)}>"


class Headers:
    """The headers for each of a row's keys. A missing key among several is passed over as long as one is there."""

    def __init__(self, row: ModelRow) -> None:
        self._row = row
        self._by_key: dict[tuple[str, str, str], Mapping[str, str]] = {}
        self._common = Sent()
        self._keys = Sent()
        self.proxy: str | None = row.proxy

    def __repr__(self) -> str:
        return f"<Headers of {self._row.name!r}>"

    def resolve(self, resources: Resources) -> None:
        """Read every secret. MissingSecret when one is missing. Blocks."""
        row = self._row
        self._by_key.clear()
        self._keys.clear()
        usual = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "gateway-remote"}
        self._common = Sent({**usual, **row.wire.headers})
        for name, value in row.headers.items():
            self._common[name.lower()] = header_secret(resources, value) if is_reference(value) else value
        missing: MissingSecret | None = None
        for ref in row.api_key:
            try:
                self._keys[ref] = header_secret(resources, ref)
            except MissingSecret as error:
                missing = error
        if missing is not None and not self._keys:
            raise missing
        if row.proxy is not None and is_reference(row.proxy):
            self.proxy = resources.secret(row.proxy).reveal()

    @property
    def present(self) -> tuple[str, ...]:
        """The keys that are there, by reference."""
        return tuple(self._keys)

    def of(self, ref: str, content_type: str, accept: str = "") -> Mapping[str, str]:
        """What a call with this key sends."""
        known = self._by_key.get((ref, content_type, accept))
        if known is None:
            known = self._made(ref, content_type, accept)
            if len(self._by_key) < MOST_KEPT:
                self._by_key[ref, content_type, accept] = known
        return known

    def _made(self, ref: str, content_type: str, accept: str) -> Mapping[str, str]:
        headers = Sent({"content-type": content_type, **self._common})
        if accept:
            headers["accept"] = accept
        if ref:
            header = (self._row.key_header or self._row.wire.key_header).lower()
            headers[header] = f"Bearer {self._keys[ref]}" if header == "authorization" else self._keys[ref]
        return headers


def header_secret(resources: Resources, ref: str) -> str:
    """A secret that an HTTP header can carry."""
    secret = resources.secret(ref)
    # Checked here, because the HTTP library's own complaint would quote the value.
    if not secret.reveal().isascii() or not secret.reveal().isprintable():
        raise ConfigError(f"the secret {ref!r} holds characters that an HTTP header cannot carry")
    return secret.reveal()
