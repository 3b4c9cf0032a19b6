"""Networks on frames: what happens to a frame before and after one, its tiles, and the frames before it."""
