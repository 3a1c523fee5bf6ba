"""``host-nodes`` and ``policy``: from which NUMA nodes a block's pages come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from vhostuser.memory.backends import libc
from vhostuser.memory.backends.errors import MemoryBackendError
from vhostuser.memory.backends.pages import round_up
from vhostuser.memory.backends.properties import HostMemPolicy

if TYPE_CHECKING:
    from vhostuser.memory.backends.mapping import Mapping

HOST_NODES: Final = Path("/sys/devices/system/node")


def check_nodes(nodes: tuple[int, ...], policy: HostMemPolicy, title: str) -> None:
    """Refuse nodes without a policy, a policy without nodes, and nodes that the host lacks.

    ``mbind`` minds the last only when none of them exists.

    Raises:
        MemoryBackendError: says what to change.
    """
    if nodes and policy is HostMemPolicy.DEFAULT:
        raise MemoryBackendError(
            f"{title}: host-nodes must be empty for policy default, found {', '.join(map(str, nodes))}: "
            "set policy=bind, preferred or interleave, or leave host-nodes out"
        )
    if not nodes and policy is not HostMemPolicy.DEFAULT:
        raise MemoryBackendError(
            f"{title}: host-nodes must be set for policy {policy.value}: add host-nodes=0, or leave policy out"
        )
    for node in nodes:
        if not (HOST_NODES / f"node{node}").exists():
            raise MemoryBackendError(
                f"{title}: this host has no NUMA node {node}: {HOST_NODES}/online says which it has"
            )


def bind(mapping: Mapping, nodes: tuple[int, ...], policy: HostMemPolicy, title: str) -> None:
    """Have the mapping's pages come from these nodes.

    Raises:
        MemoryBackendError: the system refuses.
    """
    if not nodes:
        return
    mode = list(HostMemPolicy).index(policy)
    mask = sum(1 << node for node in set(nodes))
    length = round_up(mapping.size, mapping.page_size)
    try:
        libc.bind(mapping.address, length, mode, mask, libc.MPOL_MF_STRICT | libc.MPOL_MF_MOVE)
    except OSError as error:
        raise MemoryBackendError(
            f"{title}: cannot bind memory to host NUMA nodes {', '.join(map(str, nodes))}: {error}; leave 'policy' out"
        ) from error
