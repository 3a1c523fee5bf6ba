"""What a QEMU's command line says about its memory."""

from __future__ import annotations

import pytest

from vhostuser.memory.proc.command_line import QemuMemory, RamObject, options

MIB = 1 << 20


def objects(*arguments: str) -> tuple[RamObject, ...]:
    found = QemuMemory.of(["/usr/bin/qemu-system-x86_64", *arguments])
    assert found is not None
    return found.objects


@pytest.mark.parametrize("size", ["1024", "1G", "size=1G,slots=2,maxmem=4G", "1024M", "size=1024"])
def test_memory_without_an_object_is_the_machines_own(size: str) -> None:
    assert objects("-m", size) == (RamObject("pc.ram", "", 1024 * MIB, share=False),)


def test_without_any_option_there_are_128_mib() -> None:
    assert objects("-S") == (RamObject("pc.ram", "", 128 * MIB, share=False),)


def test_mem_path_is_a_private_file() -> None:
    assert objects("-mem-path", "/hugepages") == (RamObject("pc.ram", "", 128 * MIB, share=False, path="/hugepages"),)


@pytest.mark.parametrize(
    "users",
    [
        ["-machine", "q35,memory-backend=m0"],
        ["-M", "type=pc,memory-backend=m0"],
        ["-numa", "node,nodeid=0,memdev=m0"],
        ["--machine", '{"type": "q35", "memory-backend": "m0"}'],
    ],
)
def test_an_object_is_the_machines_memory_when_the_machine_names_it(users: list[str]) -> None:
    found = objects("-m", "1G", "-object", "memory-backend-memfd,id=m0,size=1G", *users)
    assert found == (RamObject("m0", "memory-backend-memfd", 1024 * MIB, share=True),)


def test_an_object_that_nobody_names_is_there_and_not_used() -> None:
    found = objects("-object", "memory-backend-memfd,id=m0,size=1G")
    assert [(ram.id, ram.used) for ram in found] == [("pc.ram", True), ("m0", False)]


def test_memory_that_a_device_uses_comes_on_top_of_the_machines() -> None:
    found = objects("-object", "memory-backend-shm,id=d0,size=64M", "-device", "pc-dimm,memdev=d0")
    assert [(ram.id, ram.used) for ram in found] == [("pc.ram", True), ("d0", True)]


@pytest.mark.parametrize(
    ("kind", "share", "shared"),
    [
        ("ram", "", False),
        ("ram", ",share=on", True),
        ("file", "", False),
        ("file", ",share=yes", True),
        ("memfd", "", True),
        ("memfd", ",share=off", False),
        ("shm", "", True),
    ],
)
def test_share_has_the_default_of_its_kind(kind: str, share: str, shared: bool) -> None:
    *_, found = objects("-object", f"memory-backend-{kind},id=m0,size=1G{share}")
    assert found.share is shared


def test_an_object_may_be_json_as_libvirt_writes_it() -> None:
    text = '{"qom-type":"memory-backend-file","id":"pc.ram","mem-path":"/ram,disk","share":true,"size":67108864}'
    assert objects("-object", text, "-machine", "q35,memory-backend=pc.ram") == (
        RamObject("pc.ram", "memory-backend-file", 64 * MIB, share=True, path="/ram,disk"),
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("q35,accel=kvm", {"type": "q35", "accel": "kvm"}),
        ("type=q35,usb", {"type": "q35", "usb": "on"}),
        ("mem-path=/a,,b,share=on", {"mem-path": "/a,b", "share": "on"}),
        ("path=a=b", {"path": "a=b"}),
        ("{no json", {}),
    ],
)
def test_options_are_read_as_qemu_reads_them(text: str, found: dict[str, str]) -> None:
    assert options(text, "type") == found


def test_a_size_that_we_cannot_read_is_unknown() -> None:
    *_, found = objects("-object", "memory-backend-memfd,id=m0,size=lots")
    assert found.size == 0


def test_objects_of_other_kinds_are_passed_over() -> None:
    assert [ram.id for ram in objects("-object", "rng-random,id=r0,filename=/dev/urandom")] == ["pc.ram"]


@pytest.mark.parametrize("program", ["/usr/bin/qemu-system-aarch64", "/usr/libexec/qemu-kvm", "kvm"])
def test_qemu_has_several_names(program: str) -> None:
    found = QemuMemory.of(["/lib64/ld-linux-x86-64.so.2", "--argv0", "q", program, "-m", "1G"])
    assert found is not None
    assert found.program == program.rpartition("/")[2]


@pytest.mark.parametrize("program", ["/usr/bin/qemu-storage-daemon", "qemu-img", "python3", "cloud-hypervisor"])
def test_other_programs_are_not_qemu(program: str) -> None:
    assert QemuMemory.of([program, "-m", "1G"]) is None
