"""Guest memory: where it comes from, how it is mapped, and how two processes use it at the same time.

No I/O but ``mmap`` and what makes memory; nothing here waits, and nothing knows trio.
"""

from vhostuser.memory.backends import (
    HostMemPolicy,
    MemoryBackend,
    MemoryBackendError,
    MemoryBackendFile,
    MemoryBackendMemfd,
    MemoryBackendRam,
    MemoryBackendShm,
    MemoryBackendWarning,
    MemoryBlock,
    OnOffAuto,
    describe_properties,
    help_wanted,
    parse_object,
    parse_objects,
)
from vhostuser.memory.map import (
    MAX_TOTAL,
    GuestAddr,
    GuestAddressError,
    GuestMemory,
    MappedRegion,
    MappingError,
    UserAddr,
)
from vhostuser.memory.sizes import SizeError, format_size, parse_size

__all__ = [
    "MAX_TOTAL",
    "GuestAddr",
    "GuestAddressError",
    "GuestMemory",
    "HostMemPolicy",
    "MappedRegion",
    "MappingError",
    "MemoryBackend",
    "MemoryBackendError",
    "MemoryBackendFile",
    "MemoryBackendMemfd",
    "MemoryBackendRam",
    "MemoryBackendShm",
    "MemoryBackendWarning",
    "MemoryBlock",
    "OnOffAuto",
    "SizeError",
    "UserAddr",
    "describe_properties",
    "format_size",
    "help_wanted",
    "parse_object",
    "parse_objects",
    "parse_size",
]
