"""``python tools/bench.py``: the same as ``pellucid bench``."""

import sys

from pellucid.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "bench")
    main()
