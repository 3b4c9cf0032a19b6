"""The window's sink where there is no window: it says so in one line, before anything runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pellucid.errors import MissingExtra, SinkError
from pellucid.ledger import Ledger
from pellucid.protocols import Sink, Slot, Spec, Stream
from pellucid.sinks import _window_pictures as pictures
from pellucid.sinks import window as window_module
from pellucid.sinks.window import Window

PLANES = [{"raw": Spec((8, 8), "uint16")}]
STREAMS = [Stream(PLANES[0]["raw"])]


def open_(sink: Window) -> None:
    sink.open(STREAMS, PLANES, {"ledger": Ledger()})


@pytest.fixture
def somewhere(monkeypatch):
    """Pretend that there is a screen and that the packages are installed."""
    monkeypatch.setattr(Window, "why_not", classmethod(lambda cls: None))


def test_it_is_a_sink_for_the_newest_frame():
    sink = Window()
    assert isinstance(sink, Sink)
    assert (sink.policy, sink.early) == ("latest", False)
    with pytest.raises(ValidationError):
        Window(policy="block")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_without_a_screen_it_says_what_to_type(monkeypatch):
    pytest.importorskip("vispy", reason='needs vispy: pip install "pellucid[window]"')
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SinkError, match="--headless"):
        open_(Window())


@pytest.mark.parametrize(
    ("version", "python", "said"),
    [("6.12.0", (3, 11), "6.12.0 aborts"), ("7.0.1", (3, 10), "7.0.1 aborts"), ("6.11.3", (3, 11), None),
     ("6.9.0", (3, 10), None), ("6.12.0", (3, 12), None), ("main", (3, 11), None)],
)  # fmt: skip
def test_a_pyside_that_aborts_is_refused_in_a_line(version, python, said, monkeypatch):
    pytest.importorskip("vispy", reason='needs vispy: pip install "pellucid[window]"')
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(window_module.importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(window_module.sys, "version_info", python)
    why = Window.why_not()
    assert why is None if said is None else said in why


def test_the_pyside_that_is_installed_keeps_its_references():
    pytest.importorskip("PySide6", reason='needs PySide6: pip install "pellucid[window]"')
    program = (
        "import sys; from PySide6.QtCore import QObject; one = QObject(); before = sys.getrefcount(None)\n"
        "for _ in range(2000): one.setObjectName('x')\n"
        "print(before - sys.getrefcount(None))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(out.stdout) < 1000


def test_without_vispy_it_names_the_extra(monkeypatch):
    monkeypatch.setattr(Window, "needs", {"no_such_package_vispy": "window"})
    with pytest.raises(MissingExtra, match=r"pellucid\[window\]"):
        open_(Window())


@pytest.mark.skipif(sys.platform == "win32", reason="makes links to all that is installed but one package")
def test_where_vispy_is_not_installed_the_extra_is_named(tmp_path):
    import numpy as np

    import pellucid

    for entry in Path(np.__file__).parents[1].iterdir():
        if not entry.name.lower().startswith("vispy"):
            (tmp_path / entry.name).symlink_to(entry)
    code = (
        "from pellucid.sinks.window import Window; from pellucid.ledger import Ledger;"
        "from pellucid.protocols import Spec, Stream; s = Spec((8, 8), 'uint16');"
        "Window().open([Stream(s)], [{'raw': s}], {'ledger': Ledger()})"
    )
    # -S: the interpreter does not look for installed packages by itself.
    path = os.pathsep.join([str(Path(pellucid.__file__).parents[1]), str(tmp_path)])
    out = subprocess.run(
        [sys.executable, "-S", "-c", code], env=os.environ | {"PYTHONPATH": path, "DISPLAY": ":0"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    last = out.stderr.splitlines()[-1]
    assert "MissingExtra" in last
    assert 'vispy is not installed. Type: pip install "pellucid[window]"' in last


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('GL is broken', file=sys.stderr); print('no driver found', file=sys.stderr)", "no driver"),
        ("import sys; print('libxcb-cursor0 is needed to load xcb\\nAvailable: x', file=sys.stderr)", "libxcb-cursor0"),
        ("import os; os._exit(9)", "it did not come up|said nothing|did not come up"),
    ],
)
def test_a_window_that_does_not_come_up_is_told_in_its_own_words(monkeypatch, somewhere, tmp_path, code, said):
    module = tmp_path / "pellucid_window_that_fails.py"
    module.write_text(code)
    from pellucid.sinks import _window_process

    monkeypatch.setattr(_window_process, "COMMAND", [sys.executable, str(module)])
    with pytest.raises(SinkError, match=said) as caught:
        open_(Window())
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_told_at_open(somewhere, tmp_path):
    with pytest.raises(SinkError, match="there is no folder"):
        open_(Window(screenshot=tmp_path / "none" / "a.png"))


@pytest.mark.parametrize("contrast", [[5, 5], [9, 1], {"raw": [2, 1]}, "automatic", {"raw": "slow"}, [1]])
def test_contrast_that_makes_no_sense_is_refused(contrast):
    with pytest.raises(ValidationError):
        Window(contrast=contrast)


@pytest.mark.parametrize("contrast", ["auto", [0, 10], {"raw": [0, 10], "restored": "auto"}])
def test_contrast_as_the_config_writes_it(contrast):
    assert Window(contrast=contrast)


def test_closing_what_was_never_opened_is_quiet():
    sink = Window()
    sink.close(None)
    sink.close(None)


def test_planes_that_are_no_pictures_are_left_out_and_types_fit_textures():
    assert not pictures._is_picture(Spec((100,), "float32"))
    assert pictures._flat(Spec((4, 8, 9), "int16")) == Spec((8, 9), "float32")
    assert pictures._flat(Spec((8, 9), "uint8")) == Spec((8, 9), "uint8")


@pytest.mark.parametrize(
    ("stack", "level", "told"), [("max", 9, "maximum of z 1–4"), ("middle", 3, "z 3/4, the middle")]
)
def test_a_stack_is_shown_as_one_picture_that_says_which(stack, level, told):
    deep, flat = Spec((4, 8, 8), "uint16"), Spec((8, 8), "uint16")
    planes = {"raw": deep, "restored": Spec((4, 8, 8), "float32"), "seen": flat, "wide": Spec((4, 8, 8), "int16")}
    one = pictures.Pictures(Stream(deep), planes, 0, stack)
    assert one.feed.stream.details == {"projections": dict.fromkeys(("raw", "restored", "wide"), told)}
    assert one.feed.planes["raw"] == flat
    pixels = {name: np.full(spec.shape, 5, spec.dtype) for name, spec in planes.items()}
    for name in ("raw", "restored", "wide"):
        pixels[name][0], pixels[name][2] = 9, 3
    free = Slot(0, Stream(deep), {name: np.zeros(spec.shape, spec.dtype) for name, spec in one.feed.planes.items()})
    one.fill(free, Slot(0, Stream(deep), pixels), list(planes))
    for name in ("raw", "restored", "wide"):
        assert (free.planes[name] == level).all()
    assert (free.planes["seen"] == 5).all()
