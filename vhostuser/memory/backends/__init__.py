"""Where guest memory comes from: QEMU's memory backend objects, by their names and properties, one kind a file."""

from vhostuser.memory.backends.base import MemoryBackend
from vhostuser.memory.backends.block import MemoryBlock
from vhostuser.memory.backends.errors import MemoryBackendError, MemoryBackendWarning
from vhostuser.memory.backends.file import MemoryBackendFile
from vhostuser.memory.backends.memfd import MemoryBackendMemfd
from vhostuser.memory.backends.options import describe_properties, help_wanted, parse_object, parse_objects
from vhostuser.memory.backends.properties import HostMemPolicy, OnOffAuto
from vhostuser.memory.backends.ram import MemoryBackendRam
from vhostuser.memory.backends.shm import MemoryBackendShm

__all__ = [
    "HostMemPolicy",
    "MemoryBackend",
    "MemoryBackendError",
    "MemoryBackendFile",
    "MemoryBackendMemfd",
    "MemoryBackendRam",
    "MemoryBackendShm",
    "MemoryBackendWarning",
    "MemoryBlock",
    "OnOffAuto",
    "describe_properties",
    "help_wanted",
    "parse_object",
    "parse_objects",
]
