"""vhost-user, both roles: the protocol as data, sans-I/O state machines, shared memory, virtqueues and trio I/O.

The packages stand on floors and import only downwards; docs/architecture.md has the table.  Nothing is imported
here, so that ``import vhostuser`` costs nothing: take what you need from ``vhostuser.wire``, ``vhostuser.protocol``,
``vhostuser.memory``, ``vhostuser.virtqueue``, ``vhostuser.transport``, ``vhostuser.device`` or ``vhostuser.backend``.
"""

__version__ = "0.1.0.dev0"
