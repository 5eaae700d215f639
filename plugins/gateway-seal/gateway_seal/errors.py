"""SealError: a sealed model that does not open, or cannot be made. The message says what, which and what to do, never why in a
way that would help who tampered."""

from __future__ import annotations

from gateway import WeightsError


class SealError(WeightsError):
    """A sealed model is missing, damaged, tampered with, or none of the caller's keys opens it."""
