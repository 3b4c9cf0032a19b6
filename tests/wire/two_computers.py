"""Two computers: network namespaces with a cable between them, or this one with a cable between two of its ports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

from cable import Cable


class Namespaces:
    """Two network namespaces with a cable between them: silence when it is cut, as from a computer that fell asleep."""

    def __init__(self) -> None:
        tag = os.getpid() % 100_000
        self._names = f"psm{tag}a", f"psm{tag}b"
        self._ends = f"pv{tag}a", f"pv{tag}b"
        for name in self._names:
            self._ip("netns", "add", name)
        self._ip("link", "add", self._ends[0], "type", "veth", "peer", "name", self._ends[1])
        for at, (name, end) in enumerate(zip(self._names, self._ends, strict=True)):
            self._ip("link", "set", end, "netns", name)
            self._ip("-n", name, "addr", "add", f"10.211.7.{at + 1}/24", "dev", end)
            self._ip("-n", name, "link", "set", "lo", "up")
            self._ip("-n", name, "link", "set", end, "up")
        self.session, self.camera = (("ip", "netns", "exec", name) for name in self._names)
        self.bind = self.to = "tcp://10.211.7.1:5599"

    def _ip(self, *args: str) -> None:
        out = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
        if out.returncode:
            self.close()
            raise OSError(f"ip {' '.join(args)}: {out.stderr.strip()}")

    def cut(self) -> None:
        self._ip("-n", self._names[1], "link", "set", self._ends[1], "down")

    def mend(self) -> None:
        self._ip("-n", self._names[1], "link", "set", self._ends[1], "up")

    def firewall(self, ports: str, *, on: bool) -> None:
        """Let nobody connect to those ports of the second computer: as a firewall that swallows what comes."""
        rule = ("ipproto", "tcp", "sport", ports, "blackhole", "priority", "10")
        self._ip("-n", self._names[1], "rule", "add" if on else "del", *rule)

    def close(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Loopback:
    """This computer, with a cable between two of its ports."""

    session: tuple[str, ...] = ()
    camera: tuple[str, ...] = ()

    def __init__(self, port: int) -> None:
        self.bind = f"tcp://127.0.0.1:{port}"
        self._cable = Cable(self.bind)
        self.to = self._cable.endpoint

    def cut(self) -> None:
        self._cable.pull()

    def mend(self) -> None:
        self._cable.plug()

    def close(self) -> None:
        self._cable.close()


def namespaces() -> Any:
    """Return `Namespaces`, or None without the right to make them."""
    if sys.platform == "linux" and shutil.which("ip") and os.geteuid() == 0:
        try:
            return Namespaces()
        except OSError:
            return None
    return None
