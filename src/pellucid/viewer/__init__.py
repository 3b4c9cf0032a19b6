"""The window: a process of its own that draws the newest frame, fed over the wire.

Nothing of the package imports this room. ``sinks/window.py`` starts it by name
(``python -m pellucid.viewer``), so that a driver that crashes, a window that stalls and the interpreter lock
of either side cost the other nothing.

::

    __main__.py   the process: receiver, window, and the pipe to the session that started it
    newest.py     drains the wire to the newest frame and gives every slot back
    note.py       what frames tell beside their pictures: reasons, places, what did not arrive
    names.py      what streams and places are called
    contrast.py   display limits that are fixed or follow the picture slowly
    aim.py        where they go, found in another thread
    layout.py     where panes lie
    pane.py       vispy: the textures and the camera of one plane
    panes.py      vispy: all of them on one canvas, zoomed together
    shown.py      a pane with its contrast, and what is written over it
    overlay.py    Qt: writes it (titles, limits, places, scale bar, help)
    bar.py        Qt: a line that leaves out what has no room
    bars.py       Qt: title, state, losses and figures above and below
    window.py     Qt: the window around it all, and its keys
    asking.py     asks the session: recording, parameters, pictures
    attach.py     Qt: a window that nobody's session has started, and that stays for the next one: ``pellucid view``
    ways.py       how it comes to one, on this computer or another
    knobs.py      Qt: the drawer of live parameters
    look.py       colours and type
"""
