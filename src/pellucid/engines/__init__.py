"""Ways to run a network; one file each."""
