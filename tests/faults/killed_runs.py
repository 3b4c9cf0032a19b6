"""Runs whose processes are killed at a random moment: a recorder, a session, a camera, a window, a recovery."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile

from pellucid.recording.journal import read_journal
from pellucid.recording.recover import recover
from tests.faults.fault_parts import Flags, Outcome, cleared, judge, silenced, started
from tests.faults.frames_told import Run

__all__ = ["Sessions", "kill_recorder", "kill_recovery", "unfinished"]

# ---------------------------------------------------------------- the recorder alone


def _record(folder: Path, keys: dict[str, Any], told: Path, frames: int, most_behind: int) -> None:
    """In a child: record frames as fast as they are taken, and note which are written."""
    silenced(told.with_suffix(".txt"))
    flags = Flags(told)
    run = Run(folder, **keys)
    for _ in range(frames):
        run.give(1)
        flags.note(run.sent, written := run.written())
        while run.sent - len(written) > most_behind:
            time.sleep(0.0005)
            flags.note(run.sent, written := run.written())
    run.wait()
    flags.note(run.sent, run.written())
    run.end()


def kill_recorder(place: Path, keys: dict[str, Any], rng: random.Random) -> Outcome:
    """Kill a recorder at any moment between its first file and its last."""
    folder, told = cleared(place / "rec"), place / "told"
    told.unlink(missing_ok=True)
    flags = Flags(told)
    process = started(_record, folder, keys, told, rng.randint(1, 120), rng.choice([0, 3, 30]))
    if rng.random() < 0.5:  # by frames: sooner or later in a run that is quick or slow
        last = rng.randint(0, 60)
        while flags.sent <= last and process.is_alive():
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.005)
    else:  # by time: the beginning and the end of a run are met as well
        while not folder.exists() and process.is_alive():
            time.sleep(0.0005)
        time.sleep(rng.random() * rng.choice([0.02, 0.1, 0.6]))
    process.kill()
    process.join()
    said = told.with_suffix(".txt")
    out = _judge_if_any(folder, flags.written, flags.sent)
    if said.exists() and "Traceback" in (text := said.read_text()):
        out.faults.append(text[-600:])
    said.unlink(missing_ok=True)
    return out


def _judge_if_any(folder: Path, written: list[int], sent: int) -> Outcome:
    if not folder.exists() and not written:
        return Outcome(sent)
    looks = (folder / "config.toml").exists() and (folder / "recording.json").exists()
    return judge(folder, {"raw": written, "restored": written}, sent, looks=looks)


def unfinished(folder: Path, keys: dict[str, Any], frames: int) -> list[int]:
    """Leave a recording as a kill leaves it, with so many frames written at least; return which: threads overtake."""
    told = folder.with_name(f"{folder.name}.told")
    told.unlink(missing_ok=True)
    flags = Flags(told)
    process = started(_record, folder.absolute(), keys, told, 4000, 3)
    while len(flags.written) < frames:
        time.sleep(0.001)
        assert process.is_alive()
    process.kill()
    process.join()
    return flags.written


# ---------------------------------------------------------------- recovery


def _recover(folder: Path, said: Path) -> None:
    silenced(said)
    recover(folder, check_all=True)


def kill_recovery(place: Path, whole: Path, written: list[int], rng: random.Random, times: int = 3) -> Outcome:
    """Kill recoveries of a copy of `whole` one after the other, then let one end."""
    folder = cleared(place / "again")
    shutil.copytree(whole, folder)
    for _ in range(times):
        process = started(_recover, folder, place / "said.txt")
        # Not before it has begun: it takes the lock first.
        end = time.monotonic() + 5
        while not (folder / ".lock").exists() and process.is_alive() and time.monotonic() < end:
            time.sleep(0.0002)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.join()
    return judge(folder, {"raw": written, "restored": written}, len(written))


# ---------------------------------------------------------------- sessions

_FRAMES = 64


def _pellucid(words: list[str], said: Path, environment: dict[str, str]) -> None:
    """In a child: what the command line does."""
    from pellucid.cli import main

    silenced(said)
    os.environ |= environment
    sys.argv = ["pellucid", *words]
    main()


class Sessions:
    """Sessions of the command line that play frames that are known, deconvolve them, and record both.

    Parameters
    ----------
    place
        A folder to work in.
    """

    def __init__(self, place: Path) -> None:
        self.place = place.absolute()
        self.folder = self.place / "rec"
        pixels = np.random.default_rng(7).integers(100, 5000, (_FRAMES, 64, 64)).astype(np.uint16)
        tifffile.imwrite(self.place / "sent.tif", pixels, metadata={"axes": "TYX"})
        self._said = self.place / "said.txt"
        self._environment = {"PELLUCID_RUNTIME": str(self.place / "runtime")}
        process = self._run(self._replay(fps=None, loop=1), {})
        process.join()
        seen = _zarr(self.folder)
        assert np.array_equal(seen["raw"], pixels), self._said.read_text()
        self._made = {plane: (lambda i, frames=frames: frames[i % _FRAMES]) for plane, frames in seen.items()}

    def _replay(self, fps: int | None = 400, loop: int = 0) -> str:
        rate = f"fps = {fps}\n" if fps else ""
        return f'kind = "replay"\npath = "{(self.place / "sent.tif").as_posix()}"\nloop = {loop}\n{rate}'

    def _run(self, source: str, keys: dict[str, Any], more: str = "", *, window: bool = False) -> BaseProcess:
        cleared(self.folder)
        self._said.unlink(missing_ok=True)
        config = self.place / "run.toml"
        told = "".join(
            f"{key} = {value}\n" if isinstance(value, int | float) else f'{key} = "{value}"\n'
            for key, value in keys.items()
        )
        config.write_text(
            f'[source]\n{source}\n[[stages]]\nkind = "deconvolve"\npsf = {{ kind = "gaussian", fwhm_px = 3 }}\n'
            'output = "uint16"\n'
            f'[[sinks]]\nkind = "recorder"\n{told}path = "{self.folder.as_posix()}"\n'
            + ('[[sinks]]\nkind = "window"\n' if window else "")
            + f'[session]\nrestore = "every"\n{more}'
        )
        words = ["run", str(config), *([] if window else ["--headless"])]
        screen = {key: os.environ[key] for key in ("DISPLAY", "QT_QPA_PLATFORM") if key in os.environ}
        return started(_pellucid, words, self._said, self._environment | screen)

    def _begun(self, process: BaseProcess, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.folder.exists():
            assert process.is_alive(), self._said.read_text()
            assert time.monotonic() < end, "the session does not begin"
            time.sleep(0.001)

    def _records(self, process: BaseProcess, seconds: float = 60) -> None:
        """Wait for the first frame on the disk."""
        end = time.monotonic() + seconds
        while not any(self._owed().values()):
            assert process.is_alive(), self._said.read_text()
            assert time.monotonic() < end, "nothing is recorded"
            time.sleep(0.005)

    def _owed(self) -> dict[str, list[int]]:
        """Return what the session has acknowledged by now: the lines that its journal has."""
        journal = self.folder / "journal"
        owed: dict[str, list[int]] = {"raw": [], "restored": []}
        try:
            for line in read_journal(journal):
                if "image" in line:
                    owed["raw" if "raw" in line["image"] else "restored"].append(line["seq"])
        except FileNotFoundError:
            pass
        return owed

    def _judged(self, owed: dict[str, list[int]]) -> Outcome:
        whole = (self.folder / "recording.json").exists()
        sent = max([*owed["raw"], -1]) + 1
        if not self.folder.exists():
            return Outcome(sent)
        out = judge(self.folder, owed, sent, self._made, looks=whole)
        text = self._said.read_text() if self._said.exists() else ""
        if "Traceback" in text:
            out.faults.append(text[-600:])
        return out

    def kill(self, keys: dict[str, Any], rng: random.Random) -> Outcome:
        """Kill a session at any moment after it has begun to make its files."""
        process = self._run(self._replay(), keys, f"frames = {rng.choice([20, 100, 400])}\n")
        try:
            self._begun(process)
            if rng.random() < 0.8:
                self._records(process)
            time.sleep(rng.random() * rng.choice([0.05, 0.5, 1.2]))
            owed = self._owed()
        finally:
            process.kill()
            process.join()
        return self._judged(owed)

    def kill_camera(self, keys: dict[str, Any], rng: random.Random) -> Outcome:
        """Kill the process that sends a session its frames; the session goes on to its end by itself."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        address = f"tcp://127.0.0.1:{port}"
        session = self._run(f'kind = "wire"\nbind = "{address}"', keys)
        words = ["send", "--to", address, "--replay", str(self.place / "sent.tif"), "--fps", "400"]
        sender = started(_pellucid, [*words, "--set", "loop=0"], self.place / "sender.txt", self._environment)
        try:
            self._begun(session)
            self._records(session)
            time.sleep(rng.random() * 0.8)
            owed = self._owed()
            sender.kill()
            sender.join()
            session.join(60)
            ended = not session.is_alive()
        finally:
            for process in (sender, session):
                process.kill()
                process.join()
        out = self._judged(owed)
        if not ended:
            out.faults.append("the session did not end by itself")
        return out

    def kill_window(self, keys: dict[str, Any], rng: random.Random) -> Outcome:
        """Kill the process of the window; the session goes on with what it records, to its end."""
        frames = 150
        session = self._run(self._replay(fps=100), keys, f"frames = {frames}\n", window=True)
        try:
            self._begun(session)
            self._records(session)  # one that dies while the run begins ends it, with its reason
            time.sleep(rng.random() * 1.2)
            for child in psutil.Process(session.pid).children(recursive=True):
                child.kill()
            session.join(60)
            ended = not session.is_alive()
        finally:
            session.kill()
            session.join()
        out = self._judged({"raw": [], "restored": []})
        rows = (self.folder / "frames.jsonl").read_text().splitlines()
        raw = out.sent = sum("raw" in json.loads(row).get("xxh3", {}) for row in rows)
        if not ended or raw < frames * 0.9:
            out.faults.append(f"{raw} of {frames} frames were recorded; ended: {ended}")
        return out


def _zarr(folder: Path) -> dict[str, np.ndarray]:
    import zarr

    return {
        plane: np.asarray(zarr.open_array(str(folder / f"{plane}.ome.zarr/0"), mode="r")[:, 0])
        for plane in ("raw", "restored")
    }
