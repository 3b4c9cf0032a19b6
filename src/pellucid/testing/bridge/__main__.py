"""``python -m pellucid.testing.bridge``: a server until it is interrupted."""

from __future__ import annotations

import argparse
import signal
import threading

from pellucid.testing.bridge.server import LOOPBACK, BridgeServer

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run a server until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m pellucid.testing.bridge", description=main.__doc__)
    parser.add_argument("--port", type=int, default=4827, help="0: any")
    parser.add_argument("--set", action="append", default=[], metavar="Camera.PixelType=16bit", help="a property")
    parser.add_argument("--config", default="demo", help="a .cfg file")
    parser.add_argument("--buffer-mb", type=int, default=256)
    parser.add_argument("--live", action="store_true", help="turn live mode on")
    given = parser.parse_args(arguments)
    properties = dict(each.split("=", 1) for each in given.set)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with BridgeServer(given.port, properties, given.config, given.buffer_mb, live=given.live) as server:
        print(f"listening on {LOOPBACK}:{server.port}", flush=True)
        while not ended.wait(0.2):
            pass
        errors = server.preview_errors
    if given.live:
        print(f"preview errors: {errors}", flush=True)


if __name__ == "__main__":
    main()
