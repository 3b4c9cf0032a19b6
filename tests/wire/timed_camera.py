"""`camera.py` that tells, beside what became of its frames, when it took each by this computer's own clock."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import camera
from far import clock

taken: dict[int, int] = {}
_FrameInfo = camera.FrameInfo


def noting(**keys: Any) -> Any:
    taken[keys["camera_number"]] = clock.true_ns(keys["camera_ns"])
    return _FrameInfo(**keys)


camera.FrameInfo = noting
camera.main(sys.argv[1], json.loads(sys.argv[2]))
print(json.dumps(taken), flush=True)
