"""Frames between processes and computers: message layout, sender, receiver, shared memory."""
