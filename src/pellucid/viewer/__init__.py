"""The window: a process of its own that draws the newest frame, fed over the wire.

Nothing of the package imports this room. ``sinks/window.py`` starts it by name
(``python -m pellucid.viewer``), so that a driver that crashes, a window that stalls and the interpreter lock
of either side cost the other nothing.

::

    __main__.py   the process: receiver, window, and the pipe to the session that started it
    newest.py     drains the wire to the newest frame and gives every slot back
    contrast.py   display limits that are fixed or follow the picture slowly
    panes.py      vispy: one texture and one camera a plane, the cameras linked
    overlay.py    Qt: what is written over the panes (titles, limits, scale bar, help)
    bars.py       Qt: title, state and figures above and below them
    window.py     Qt: the window around it all, and its keys
    look.py       colours and type
"""
