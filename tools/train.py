"""Train a network: ``python tools/train.py configs/train/denoise.toml``; see docs/training.md."""

from pellucid.training.command import main

if __name__ == "__main__":
    main()
