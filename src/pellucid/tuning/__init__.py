"""``pellucid tune``: which values of a config's keys reach a latency at a rate, without a worse picture.

Every candidate is a process of its own (`trial`), which measures it with the same frames (`frames`): its picture
against that of the unchanged config, its latency at the camera's rate, its throughput (`measure`). What may be changed
is in `space`, in which order it is tried in `search`, what stands in the way in `limits`, and what is told of it in
`page`, `written` and `command`.
"""
