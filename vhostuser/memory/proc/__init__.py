"""Another process's memory, looked at from outside: what it has mapped, by which descriptors, and who could share it.

Linux only, and read-only: everything comes out of /proc, nothing is attached to and nothing is stopped.
"""

from vhostuser.memory.proc.blocks import RamBlock
from vhostuser.memory.proc.report import MemoryReport, inspect_process
from vhostuser.memory.proc.tables import ProcessError

__all__ = ["MemoryReport", "ProcessError", "RamBlock", "inspect_process"]
