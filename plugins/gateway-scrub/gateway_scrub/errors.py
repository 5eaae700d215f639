"""ScrubError: text that cannot be covered. Whoever gets it must not send the text on."""

from __future__ import annotations

from gateway import GatewayError


class ScrubError(GatewayError):
    """A text could not be covered, so nothing of it may leave. The message names no value."""
