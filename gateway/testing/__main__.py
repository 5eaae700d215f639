"""Run a loopback server in the foreground: ``python -m gateway.testing --port 8000``."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Sequence

from gateway.testing.server import LoopbackServer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a server in the foreground until Ctrl-C, and print its URL."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--key", help="the bearer token to ask for")
    given = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt), LoopbackServer(port=given.port, key=given.key) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
