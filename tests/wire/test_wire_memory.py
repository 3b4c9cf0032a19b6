"""Blocks of slots: attached by another process or the same, and never removed by a guest."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pellucid.protocols import Spec
from pellucid.wire.memory import ALIGN, SlotLayout, SlotMemory

PLANES = {"raw": Spec((30, 50), "uint16"), "restored": Spec((30, 50), "float32")}


def test_planes_of_all_slots_are_apart_and_aligned():
    memory = SlotMemory.create(SlotLayout(PLANES, 3), shared=False)
    views = [memory.views(i) for i in range(3)]
    for i, planes in enumerate(views):
        for j, plane in enumerate(planes.values()):
            assert plane.ctypes.data % ALIGN == 0
            plane[...] = 10 * i + j
    for i, planes in enumerate(views):
        for j, plane in enumerate(planes.values()):
            assert (plane == 10 * i + j).all()
    with pytest.raises(IndexError):
        memory.views(3)
    memory.close()


def test_attached_in_the_same_process():
    owner = SlotMemory.create(SlotLayout(PLANES, 2), shared=True)
    guest = SlotMemory.attach(owner.layout, owner.name, owner.nonce)
    assert guest is not None
    guest.views(1)["raw"][...] = 7
    assert (owner.views(1)["raw"] == 7).all()
    guest.close()
    again = SlotMemory.attach(owner.layout, owner.name, owner.nonce)
    assert again is not None
    again.close()
    owner.close()


def test_the_wrong_block_is_not_attached():
    owner = SlotMemory.create(SlotLayout(PLANES, 2), shared=True)
    assert SlotMemory.attach(owner.layout, owner.name, bytes(16)) is None
    assert SlotMemory.attach(SlotLayout(PLANES, 50), owner.name, owner.nonce) is None
    assert SlotMemory.attach(owner.layout, "pellucid-none", owner.nonce) is None
    owner.close()


def test_a_guest_process_ends_quietly_and_leaves_the_block():
    """Neither at the guest's end nor at the owner's has the resource tracker anything to say."""
    script = """
import subprocess, sys
from pellucid.protocols import Spec
from pellucid.wire.memory import SlotLayout, SlotMemory
layout = SlotLayout({"raw": Spec((30, 50), "uint16")}, 2)
if len(sys.argv) > 1:
    guest = SlotMemory.attach(layout, sys.argv[1], bytes.fromhex(sys.argv[2]))
    guest.views(0)["raw"][...] = 5
    sys.exit()
owner = SlotMemory.create(layout, shared=True)
same = SlotMemory.attach(layout, owner.name, owner.nonce)
for _ in range(2):
    subprocess.run([sys.executable, __file__, owner.name, owner.nonce.hex()], check=True)
    assert (owner.views(0)["raw"] == 5).all()
    again = SlotMemory.attach(layout, owner.name, owner.nonce)
    assert again is not None
    again.close()
same.close()
owner.close()
assert SlotMemory.attach(layout, owner.name, owner.nonce) is None
"""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "owner.py"
        path.write_text(script)
        done = subprocess.run([sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_closing_with_a_view_left_keeps_it_usable():
    owner = SlotMemory.create(SlotLayout(PLANES, 2), shared=True)
    view = owner.views(0)["raw"]
    owner.close()
    view[...] = 3
    assert int(view.sum(dtype=np.int64)) == 3 * view.size


def test_a_told_layout_keeps_planes_in_their_slot():
    layout = SlotLayout(PLANES, 4)
    told = SlotLayout.told({"restored": PLANES["restored"]}, {"restored": layout.offsets["restored"]}, layout.stride, 4)
    assert told.nbytes == layout.nbytes
    buffer = np.zeros(layout.nbytes, np.uint8)
    told.views(buffer, 2)["restored"][...] = 2
    assert (layout.views(buffer, 2)["restored"] == 2).all()
    assert (layout.views(buffer, 2)["raw"] == 0).all()
    for offset in (-1, layout.stride - PLANES["restored"].nbytes + 1):
        with pytest.raises(ValueError, match="plane restored"):
            SlotLayout.told({"restored": PLANES["restored"]}, {"restored": offset}, layout.stride, 4)
