"""What can be seen of two processes from outside: in /proc, where there is one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vhostuser.trace.descriptors import of_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vhostuser.memory.backends import MemoryBlock
    from vhostuser.trace.descriptors import Descriptor

SHM_FOLDER = Path("/dev/shm")
STDIO = range(3)


def name_is_gone(memory: MemoryBlock) -> bool | None:
    """Whether no name leads to the memory any more; None when the system shows neither names nor their number."""
    links = os.fstat(memory.fd.fileno()).st_nlink
    if not SHM_FOLDER.is_dir():
        return None if links else True
    return links == 0 and not (memory.name and (SHM_FOLDER / memory.name.lstrip("/")).exists())


def mapping_of(pid: int, identity: str) -> str | None:
    """The line of /proc/PID/maps that maps a file, blanks squeezed; None where there is none to be seen."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            words = line.split()
            if " ".join(words[3:5]) == identity:
                return " ".join(words)
    return None


def fds_by_kind(pid: int) -> Mapping[str, Sequence[int]] | None:
    """Numbers of a process's descriptors by their kind, without stdin, stdout and stderr; None if none can be seen."""
    found = of_process(pid)
    if found is None:
        return None
    kinds: dict[str, list[int]] = {}
    for each in found:
        if each.number not in STDIO:
            kinds.setdefault(each.kind, []).append(each.number)
    return kinds


def unwanted_kinds(memory: str, notifier: str) -> list[str]:
    """Kinds of descriptors that neither process may hold, given what was asked for."""
    return [kind for kind, wanted in (("eventfd", notifier == "eventfd"), ("memfd", memory == "memfd")) if not wanted]


def seen(descriptor: Descriptor) -> dict[str, object]:
    """A descriptor for machines."""
    return {"fd": descriptor.number, "kind": descriptor.kind, "file": descriptor.identity, "links": descriptor.links}
