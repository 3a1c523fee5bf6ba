"""What the kernel is advised about a block: to merge equal pages, to leave it out of core dumps.

QEMU takes its defaults from the machine (``mem-merge=on``, ``dump-guest-core=on``).  There is no machine here, so the
defaults are the kernel's own: nothing is merged, everything is dumped.
"""

from __future__ import annotations

import mmap
import warnings
from typing import TYPE_CHECKING, Final

from vhostuser.memory.backends.errors import MemoryBackendError, MemoryBackendWarning

if TYPE_CHECKING:
    from vhostuser.memory.backends.mapping import Mapping

_ADVICE: Final = {
    ("merge", True): "MADV_MERGEABLE",
    ("merge", False): "MADV_UNMERGEABLE",
    ("dump", True): "MADV_DODUMP",
    ("dump", False): "MADV_DONTDUMP",
}


def advise(mapping: Mapping, name: str, on: bool, title: str) -> None:
    """Have the kernel follow a property.

    Args:
        mapping: all of it.
        name: ``merge`` or ``dump``.
        on: its value.
        title: of the backend, for messages.

    Raises:
        MemoryBackendError: the host cannot.
    """
    advice = _ADVICE[name, on]
    asked = f"{title}: property '{name}={'on' if on else 'off'}'"
    try:
        mapping.advise(getattr(mmap, advice))
    except (AttributeError, OSError) as error:
        why = "this system has none" if isinstance(error, AttributeError) else error
        raise MemoryBackendError(f"{asked} needs {advice}: {why}; leave '{name}' out") from error
    if name == "merge" and on and mapping.shared:
        text = f"{asked} has no effect: Linux merges private pages only, and this memory has share=on"
        warnings.warn(text, MemoryBackendWarning, stacklevel=4)
