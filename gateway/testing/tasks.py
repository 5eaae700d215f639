"""Hugging Face's task APIs, as the loopback server speaks it."""

from gateway.testing.dialect import Dialect


class Tasks(Dialect):
    """Hugging Face's task APIs."""
