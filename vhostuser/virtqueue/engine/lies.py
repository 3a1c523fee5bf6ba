"""What the numbers of the compiled engine's `Lie` mean: the texts of the errors, which are those of the Python engine.

They stand in the order of `LieCode` in ``types.pxd``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vhostuser.memory.map import GuestAddr, GuestAddressError
from vhostuser.wire.split import DESC_SIZE, MAX_CHAIN_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.memory.map import GuestMemory

BAD_ADDRESS: Final = 10

TEXTS: Final = (
    "",
    "avail.idx jumped from {} to {}, a queue of {}",
    "chain {} made available again while it is in flight",
    "chain {} goes to descriptor {} of a table of {}",
    "chain {} is longer than the {} entries of the queue, or a loop",
    "chain {} has an indirect descriptor, which was not negotiated",
    "chain {} has an indirect descriptor inside an indirect table",
    "chain {} has a descriptor with both INDIRECT and NEXT",
    f"chain {{}} has more than {MAX_CHAIN_BYTES} bytes",
    "chain {} has a device-readable element after a device-writable one",
    "chain {}: {:#x} and {:#x} bytes from there: not in guest memory",
    f"chain {{}} has an indirect table of {{}} bytes, expected 1 to {{}} entries of {DESC_SIZE}",
    "the chain at entry {} has entry {} in it, which is not available",
    "the chain at entry {} is longer than the {} entries of the queue",
    "the chain at entry {} has an indirect descriptor, which was not negotiated",
    "the chain at entry {} has an indirect descriptor after a direct one",
    "the chain at entry {} has a descriptor with both INDIRECT and NEXT",
    "the chain at entry {} takes entries whose chain is in flight",
    "used.idx jumped from {} to {}, with {} chains outstanding",
    "used element names chain {}, which is not outstanding",
    "used element says {} bytes written to chain {}, which offered {}",
    "used descriptor {} names chain {}, which is not outstanding",
    "used descriptor {} says {} bytes written to chain {}, which offered {}",
    "used element names chain {}, number {} of {} that were used",
)


def lie_text(code: int, numbers: Sequence[int], memory: GuestMemory | None = None) -> str:
    """What the peer did wrong.

    Args:
        code: a `LieCode`.
        numbers: its four numbers.
        memory: where an address was looked for, to say what is there instead.
    """
    if code == BAD_ADDRESS and memory is not None:
        chain, address, length, _ = numbers
        try:
            memory.views(GuestAddr(address), length)
        except GuestAddressError as error:
            return f"chain {chain}: {error}"
    return TEXTS[code].format(*numbers)
