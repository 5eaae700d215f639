"""For tests of plugins and apps: contracts to inherit, fakes that behave, a loopback server that fails on command.

The contracts are in `gateway.testing.contract`, which needs pytest; nothing else here does.
"""

from __future__ import annotations

from gateway.testing.fakes import (
    Echo,
    FakeClock,
    MemoryStore,
    MemoryWeights,
    Recorder,
    Scripted,
    Step,
    resources,
)
from gateway.testing.server import Fault, LoopbackServer, Reply

__all__ = [
    "Echo",
    "FakeClock",
    "Fault",
    "LoopbackServer",
    "MemoryStore",
    "MemoryWeights",
    "Recorder",
    "Reply",
    "Scripted",
    "Step",
    "resources",
]
