"""Recorded data through a config's stages, as fast as the computer can: ``pellucid process IN OUT CONFIG``.

::

    command    the order of things: check, plan, make OUT or go on with it, run, put together
    mistakes   what can be wrong with both before anything is made
    config     the config, with IN as its source
    recorded   IN: streams, units (planes or stacks), their places, their pixels
    images     its images, positions put together
    facts      what a file tells beside its pixels: z step, interval, rows of a recording
    written    which planes of a recording that was not ended are there
    plan       what is done, as JSON in OUT: blocks, planes, threads; by which a second call knows that it may go on
    arrays     the arrays of OUT: made as a recording's are, then written by index
    bound      the stages of a stream, open and bound to memory
    block      one block: read, run the stages, write, and at last its rows
    folder     OUT itself: made in one step, locked, resumed, never overwritten
    cluster    blocks given to the workers of dask.distributed
    finish     rows of all blocks and the report, when all are done
    progress   the bar

A block is a run of frames of one stream. It is done when its file of rows is there, which is put there in one step
after its last pixel, and whatever ends a run, blocks without that file are done again from their first frame. What a
block gives depends on the plan and on IN alone, never on who computes it: so two workers, or two calls, give what one
gives, to the last bit.
"""

from pellucid.process.command import process_recorded

__all__ = ["process_recorded"]
