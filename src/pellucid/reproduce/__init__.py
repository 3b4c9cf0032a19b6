"""``pellucid reproduce FOLDER``: look whether the raw frames of a recording give its restored ones again, bit for bit.

A chain sees a recording as it saw the camera: the frames that it was given then, in order, with what was known of
each, through a session like any other. Only the ends differ: here a source gives them from the disk, and a sink
compares what comes out with the checksum that was made when it was recorded. Each stream has a chain of its own, so
they are replayed one after the other.

What a frame becomes may depend on those before it (a network of several frames, percentiles that follow slowly, a
rolling volume). Where one of those is not in the recording, nothing can be told of the frames that depend on it.

::

    ways     which frames each chain was given, in which order, and where one of them is missing
    ends     the source that gives them, the sink that compares
    stages   the stages as they were: config, engine, tiles, device
    run      the order of things
    told     what is said of it
"""

from pellucid.reproduce.run import reproduce
from pellucid.reproduce.told import Reproduced

__all__ = ["Reproduced", "reproduce"]
