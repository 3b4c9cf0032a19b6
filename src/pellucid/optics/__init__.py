"""PSFs, OTFs and back projectors: pure functions."""
