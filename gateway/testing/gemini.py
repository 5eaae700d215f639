"""Gemini's generateContent API, as the loopback server speaks it."""

from gateway.testing.dialect import Dialect


class Gemini(Dialect):
    """Gemini's generateContent API."""
