"""What can be changed while a session runs: parameters of its stages, by a command, from Python, or in the config file.

`knobs` says what there is to change, `text` changes a config's text, `controls` carries a change out, `watch` follows
the file, `save` writes back into it, `snap` writes what is seen.
"""

from __future__ import annotations

from pellucid.controls.controls import Controls

__all__ = ["Controls"]
