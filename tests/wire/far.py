"""Another computer's clock in a process of this one: ``python far.py AHEAD_NS RATE SCRIPT-or-MODULE ARGUMENTS``.

The clock of `pellucid.metrics.now_ns` is ahead by so much when the process begins, and runs faster by RATE. The process
says that it began at another time than it did, so that nobody finds it on this computer.
"""

from __future__ import annotations

import runpy
import sys
import time

import psutil

_true_ns = time.perf_counter_ns


class FarClock:
    """The clock, and what it shows of this computer's."""

    def __init__(self, ahead_ns: int, rate: float) -> None:
        self.ahead_ns, self.rate, self.began_ns = ahead_ns, rate, _true_ns()

    def now_ns(self) -> int:
        true = _true_ns()
        return true + self.ahead_ns + round(self.rate * (true - self.began_ns))

    def true_ns(self, shown_ns: int) -> int:
        since = (shown_ns - self.ahead_ns - self.began_ns) / (1 + self.rate)
        return self.began_ns + round(since)


clock: FarClock


def main() -> None:
    global clock
    ahead_ns, rate, what = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    sys.argv[:] = sys.argv[3:]
    clock = FarClock(ahead_ns, rate)
    time.perf_counter_ns = clock.now_ns
    time.perf_counter = lambda: clock.now_ns() * 1e-9
    psutil.Process.create_time = lambda self: 1.0
    sys.modules["far"] = sys.modules["__main__"]
    if what.endswith(".py"):
        runpy.run_path(what, run_name="__main__")
    else:
        runpy.run_module(what, run_name="__main__")


if __name__ == "__main__":
    main()
