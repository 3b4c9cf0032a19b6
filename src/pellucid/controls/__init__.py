"""What can be changed while a session runs: parameters of its stages, by a command, from Python, or in the config file.

`knobs` says what there is to change, `text` changes a config's text, `controls` carries a change out, `file` follows
the config file and writes back into it. `views` shows a session to windows of this computer, `visits` to those of
others.
"""

from __future__ import annotations

from pellucid.controls.controls import Controls
from pellucid.controls.file import following

__all__ = ["Controls", "following"]
