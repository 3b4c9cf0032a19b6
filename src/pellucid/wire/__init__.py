"""Frames between processes and computers: message layout, sender, receiver, shared memory.

One thing a file: `message` (bytes), `handshake` (who and where) and `feed` (what), `memory` (slots in a block),
`codec` (packed pixels), `keys` (who may, with the `keyfile`). The camera's end is `sender`, over its connection
(`link`, with the `watch` over it and the `knocks` that failed), its slots (`berths`) and what it has to say
(`outbox`). The session's end is `receiver`, over its handshakes (`reception`), its socket (`door`, with the
`gate`), the sender it listens to (`seat`, with the `clock`), what outlives it (`run`), its slots (`landing`) and
the count of frames (`numbering`). `bridge` and `bridge_object` speak another protocol: Micro-Manager's. `control` is
where other processes speak to a session (`control_client`), with its `control_file`, `control_message` and
`control_work`; `view_door` where other computers do (`view_client`). What both do with a request is `answering`.
"""
