"""merge, dump, host-nodes and policy: the kernel is told, and what it cannot do is an error for who asked."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from tests.memory.files import PAGE, SMAPS, mapping_at
from vhostuser.memory import (
    HostMemPolicy,
    MemoryBackendError,
    MemoryBackendRam,
    MemoryBackendShm,
    MemoryBackendWarning,
)
from vhostuser.memory.backends import numa

reads_smaps = pytest.mark.skipif(not SMAPS.exists(), reason="reads /proc/self/smaps")
merges = pytest.mark.skipif(not Path("/sys/kernel/mm/ksm").exists(), reason="this kernel merges no pages")
has_nodes = pytest.mark.skipif(
    not Path("/sys/devices/system/node/node0").exists(), reason="this host has no NUMA nodes"
)

NO_KERNELS_ADVICE = 0x7FFF


def flags(address: int) -> list[str]:
    return mapping_at(address)["VmFlags"].split()


@reads_smaps
def test_memory_is_left_out_of_core_dumps_if_asked_for() -> None:
    with MemoryBackendRam(size=PAGE, dump=False).allocate() as block:
        assert "dd" in flags(block.mapping.address)
        block.set_dump(True)
        assert "dd" not in flags(block.mapping.address)


@reads_smaps
def test_by_default_nothing_is_merged_and_everything_is_dumped() -> None:
    with MemoryBackendRam(size=PAGE).allocate() as block:
        assert not {"dd", "mg"} & set(flags(block.mapping.address))


@reads_smaps
@merges
def test_equal_pages_of_private_memory_are_merged_if_asked_for() -> None:
    with MemoryBackendRam(size=PAGE + 1, merge=True).allocate() as block:
        assert "mg" in flags(block.mapping.address)
        block.set_merge(False)
        assert "mg" not in flags(block.mapping.address)


@merges
def test_merging_shared_memory_is_not_what_linux_does_and_we_say_so() -> None:
    with pytest.warns(MemoryBackendWarning) as warned:
        MemoryBackendShm(size=PAGE, merge=True).allocate().close()
    assert [str(each.message) for each in warned] == [
        "memory-backend-shm mem0: property 'merge=on' has no effect: Linux merges private pages only, "
        "and this memory has share=on"
    ]


def test_a_system_without_the_advice_is_an_error_for_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_MERGEABLE", raising=False)
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendRam(size=PAGE, merge=True).allocate()
    assert str(caught.value) == (
        "memory-backend-ram mem0: property 'merge=on' needs MADV_MERGEABLE: this system has none; leave 'merge' out"
    )


def test_a_kernel_that_refuses_the_advice_is_an_error_for_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_DONTDUMP", NO_KERNELS_ADVICE, raising=False)
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendShm(size=PAGE, dump=False).allocate()
    assert str(caught.value) == (
        "memory-backend-shm mem0: property 'dump=off' needs MADV_DONTDUMP: [Errno 22] Invalid argument; "
        "leave 'dump' out"
    )


# --- NUMA -------------------------------------------------------------------------------------------------------------


def numa_policy(address: int) -> str:
    for line in Path("/proc/self/numa_maps").read_text().splitlines():
        begin, policy, *_ = line.split()
        if int(begin, 16) == address:
            return policy
    raise LookupError(f"nothing is mapped at {address:#x}")


@has_nodes
@pytest.mark.parametrize(
    ("policy", "seen"),
    [
        (HostMemPolicy.BIND, "bind:0"),
        (HostMemPolicy.PREFERRED, "prefer:0"),
        (HostMemPolicy.INTERLEAVE, "interleave:0"),
    ],
)
def test_pages_come_from_the_nodes_asked_for(policy: HostMemPolicy, seen: str) -> None:
    try:
        block = MemoryBackendShm(size=PAGE, host_nodes=(0,), policy=policy).allocate()
    except MemoryBackendError as error:
        if isinstance(error.__cause__, PermissionError):
            pytest.skip("this sandbox forbids mbind")
        raise
    with block:
        assert numa_policy(block.mapping.address) == seen


@has_nodes
def test_a_node_that_the_host_lacks_is_an_error_that_names_it() -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendRam(size=PAGE, host_nodes=(0, 127), policy=HostMemPolicy.BIND).allocate()
    assert str(caught.value) == (
        "memory-backend-ram mem0: this host has no NUMA node 127: /sys/devices/system/node/online says which it has"
    )


def test_nodes_that_the_kernel_refuses_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node100").mkdir()
    monkeypatch.setattr(numa, "HOST_NODES", tmp_path)
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendRam(size=PAGE, host_nodes=(100,), policy=HostMemPolicy.BIND).allocate()
    said = str(caught.value)
    assert said.startswith("memory-backend-ram mem0: cannot bind memory to host NUMA nodes 100: [Errno ")
    assert said.endswith("; leave 'policy' out")


def test_nodes_without_a_policy_are_refused() -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendRam(size=PAGE, host_nodes=(0, 1)).allocate()
    assert str(caught.value) == (
        "memory-backend-ram mem0: host-nodes must be empty for policy default, found 0, 1: "
        "set policy=bind, preferred or interleave, or leave host-nodes out"
    )


def test_a_policy_without_nodes_is_refused() -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendRam(size=PAGE, policy=HostMemPolicy.BIND).allocate()
    assert str(caught.value) == (
        "memory-backend-ram mem0: host-nodes must be set for policy bind: add host-nodes=0, or leave policy out"
    )
