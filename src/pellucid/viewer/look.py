"""Colours and type of the window: dark, so that eyes used to the dark of a microscope room stay so."""

from __future__ import annotations

__all__ = ["ACCENT", "BACK", "BAR", "LINE", "LOSS", "MUTED", "PANE", "RECORD", "STYLE", "TEXT", "WARN"]

BACK = "#0b0d10"
PANE = "#000000"
BAR = "#12151a"
LINE = "#232932"
TEXT = "#dfe4ea"
MUTED = "#8b96a3"
ACCENT = "#6cc3b8"
WARN = "#e6aa5c"
LOSS = "#ff7a70"
RECORD = "#ff4a4a"

FONT = '"Inter", "Segoe UI", "SF Pro Text", "Helvetica Neue", "Noto Sans", "DejaVu Sans"'

STYLE = f"""
QWidget#window {{ background: {BACK}; }}
QFrame#header, QFrame#footer {{ background: {BAR}; border: 0; }}
QFrame#header {{ border-bottom: 1px solid {LINE}; }}
QFrame#footer {{ border-top: 1px solid {LINE}; }}
QLabel {{ color: {TEXT}; font-family: {FONT}; font-size: 12px; background: transparent; }}
QLabel#title {{ font-size: 14px; font-weight: 600; }}
QLabel#muted {{ color: {MUTED}; }}
QLabel#losses {{ color: {LOSS}; background: #35100f; border-top: 1px solid #5c1a17; }}
QLabel#losses {{ padding: 5px 14px; font-weight: 600; }}
QLabel#recording[mood="idle"] {{ color: {MUTED}; }}
QLabel#recording[mood="warn"] {{ color: {WARN}; }}
QFrame#histograms {{ background: {LINE}; border: 0; }}
QFrame#slices {{ background: {BAR}; border: 0; border-top: 1px solid {LINE}; }}
QFrame#slices QSlider::groove:horizontal {{ height: 3px; border-radius: 1px; background: #364050; }}
QFrame#slices QSlider::sub-page:horizontal {{ height: 3px; border-radius: 1px; background: {ACCENT}; }}
QFrame#slices QSlider::handle:horizontal {{ width: 12px; margin: -5px 0; border-radius: 6px; background: {TEXT}; }}
QToolButton#tool {{ color: {MUTED}; background: transparent; border: 1px solid transparent; border-radius: 5px; }}
QToolButton#tool {{ padding: 2px 7px; font-family: {FONT}; font-size: 12px; }}
QToolButton#tool:hover {{ color: {TEXT}; background: #1f252d; }}
QToolButton#tool:checked {{ color: {ACCENT}; background: #16302d; border-color: #24504a; }}
QPushButton#record {{ color: {TEXT}; background: #232932; border: 1px solid #364050; border-radius: 9px; }}
QPushButton#record {{ padding: 2px 12px; font-family: {FONT}; font-size: 12px; }}
QPushButton#record:hover {{ background: #2e3642; }}
QPushButton#record:pressed {{ background: #1c2129; }}
QPushButton#record:disabled {{ color: {MUTED}; }}
QLabel#state {{ border-radius: 9px; padding: 2px 10px; font-size: 12px; }}
QLabel#state[mood="good"] {{ color: {ACCENT}; background: #16302d; }}
QLabel#state[mood="warn"] {{ color: {WARN}; background: #38290f; }}
QLabel#state[mood="idle"] {{ color: {MUTED}; background: #1c2129; }}
"""
