"""OpenAI's Responses API, as the loopback server speaks it."""

from gateway.testing.dialect import Dialect


class Responses(Dialect):
    """OpenAI's Responses API."""
