"""Anthropic's Messages API, as the loopback server speaks it."""

from gateway.testing.dialect import Dialect


class Anthropic(Dialect):
    """Anthropic's Messages API."""
