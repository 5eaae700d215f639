"""OpenAI's images and sound, and rerank as Cohere and Jina have it, as the loopback server speaks it."""

from gateway.testing.dialect import Dialect


class Media(Dialect):
    """OpenAI's images and sound, and rerank as Cohere and Jina have it."""
