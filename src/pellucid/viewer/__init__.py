"""The window: a process of its own, fed over the wire."""
