"""What has been acquired is on the disk, and it can be told what is: the recorder's files, and their recovery.

::

    recorder (sink) ── Backlog ── writer threads ── Image (a format) ── Disk
                       slots,          │                                 │
                       memory,         └── Journal: a line a plane ──────┤
                       spill                                             └── Committer: all of it synced, in time

A plane is *taken* (its checksum is made), *written* (the system has its bytes, and a line in the journal says where),
and *committed* (the disk has them). What dies between costs at most what was not committed. ``recover`` reads the
journal, holds every plane against its checksum, and ends the recording with the code that would have ended it.
"""
