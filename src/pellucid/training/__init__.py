"""From images made bad on purpose, or taken twice, to a network that undoes it; see ``tools/train.py``."""
