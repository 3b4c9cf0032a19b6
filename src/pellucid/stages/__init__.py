"""What is computed from a frame; one file each."""
