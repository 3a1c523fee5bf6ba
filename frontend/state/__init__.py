"""Saved state: guest memory and ring positions in one file, so that another process can go on with a device.

How it is done, and what is in the file: ``layout.py``.  In ten lines::

    with GuestRam(backend) as ram:                                # the process that will end
        async with bring_up(channel, plan, ram=ram) as link:
            ...
            save("machine.state", ram, rings=await suspend(link), features=link.features)

    state = read_state("machine.state")                           # the process that goes on
    with GuestRam(*state.places()) as ram:
        restore(state, ram)
        async with bring_up(channel, state.plan(plan), ram=ram, positions=state.rings) as link:
            ...
"""

from frontend.state.errors import StateError
from frontend.state.reading import SavedState, check, read_state, restore
from frontend.state.writing import save

__all__ = ["SavedState", "StateError", "check", "read_state", "restore", "save"]
