"""The window's keys and the buttons of its tool bar: what there is to do, and how it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.viewer.actions import Action
from pellucid.viewer.arrangement import ARRANGEMENTS
from pellucid.viewer.stack import MANNERS

if TYPE_CHECKING:
    from pellucid.viewer.window import ViewerWindow

__all__ = ["commands_of"]


def commands_of(window: ViewerWindow) -> list[Action]:
    """Return all that can be done in a window, in the order of its tool bar and its list of keys."""
    panes, overlay = window.panes, window.overlay

    def arranged() -> str:
        return ARRANGEMENTS[panes.arrangement].capitalize() if window.has_pairs() else ""

    def several() -> str:
        return "Overlay" if len(panes.rows) > 1 else ""

    def close() -> None:
        window.close()

    return [
        Action("fit", ("F", "Space"), "show every picture whole", panes.fit, "Fit"),
        Action("arrange", ("V",), "side by side, split, blinking, one alone", window.next_arrangement, arranged),
        Action(
            "overlay", ("O",), "channels over each other, in colours", window.switch_overlay, several,
            lambda: panes.overlay,
        ),
        Action(
            "stack", ("Z",), "stacks as maximum, by slice, as a volume", window.next_manner,
            lambda: MANNERS[panes.manner].capitalize() if panes.stacks else "",
        ),
        Action("down", (",",), "the slice before", lambda: window.step_z(-1)),
        Action("up", (".",), "the next slice", lambda: window.step_z(1)),
        Action(
            "contrast", ("A",), "automatic contrast on or off", window.switch_contrast, "Auto",
            lambda: any(shown.contrast.auto for shown in window.shown),
        ),
        Action(
            "histogram", ("G",), "histograms, with limits to drag", window.switch_histogram,
            "Histogram", lambda: not window.histograms.isHidden(),
        ),
        Action("log", ("L",), "histograms logarithmic or linear", window.histograms.switch_log),
        Action("colormap", ("M",), "next colour map, of the plane under the cursor or of all", window.next_colormap),
        Action("darker", ("]",), "gamma up: dark parts darker", lambda: window.change_gamma(2**0.25)),
        Action("lighter", ("[",), "gamma down: dark parts lighter", lambda: window.change_gamma(2**-0.25)),
        Action(
            "knobs", ("K",), "parameters of the stages", window.switch_knobs, "Parameters",
            lambda: not window.knobs.isHidden(),
        ),
        Action("snap", ("S",), "snap: pictures and data of the newest frame", window.snap, "Snap", once=True),
        Action("record", ("R",), "start or stop recording", window.press_record, once=True),
        Action(
            "texts", ("T",), "names and scale bars on or off", window.switch_texts, "Texts", lambda: overlay.texts
        ),
        Action("help", ("?", "H", "F1"), "this list", window.switch_help, "?", lambda: overlay.help),
        Action("close", ("Q", "Esc"), "close; the run goes on", close),
    ]  # fmt: skip
