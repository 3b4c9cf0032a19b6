"""Frames from cameras, senders and files; one file each."""
