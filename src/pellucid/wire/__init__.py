"""Frames between processes and computers: message layout, sender, receiver, shared memory.

One thing a file: `message` (bytes), `handshake` (who and where), `keys` (who may), `memory` (slots in a
block). The camera's end is `sender`, over its connection (`link`) and its slots (`berths`). The session's end
is `receiver`, over its handshakes (`reception`), its socket (`door`), the sender it listens to (`seat`, with
the `clock`), its slots (`landing`) and the count of frames (`numbering`).
"""
