"""KVM's numbers and structures against <linux/kvm.h>, asked through the compiler."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from frontend.guest.kvm import abi
from tests.tools.missing import missing

HEADER = Path("/usr/include/linux/kvm.h")
STRUCTURES: dict[type[ctypes.Structure], str] = {
    abi.UserspaceMemoryRegion: "kvm_userspace_memory_region",
    abi.DirtyLog: "kvm_dirty_log",
    abi.IoEventFd: "kvm_ioeventfd",
    abi.IrqFd: "kvm_irqfd",
    abi.Regs: "kvm_regs",
    abi.Segment: "kvm_segment",
    abi.Dtable: "kvm_dtable",
    abi.Sregs: "kvm_sregs",
}
UNION = {"io": abi.RunIo, "mmio": abi.RunMmio, "internal": abi.RunInternal}
NUMBERS = {
    **{name: value for name, value in vars(abi).items() if name.startswith("KVM_")},
    **{f"KVM_CAP_{each.name}": each.value for each in abi.Capability},
    **{f"KVM_EXIT_{each.name}": each.value for each in abi.ExitReason},
    "KVM_IOEVENTFD_FLAG_DATAMATCH": abi.IoEventFdFlags.DATAMATCH,
    "KVM_IOEVENTFD_FLAG_PIO": abi.IoEventFdFlags.PIO,
    "KVM_IOEVENTFD_FLAG_DEASSIGN": abi.IoEventFdFlags.DEASSIGN,
    "KVM_IRQFD_FLAG_DEASSIGN": abi.IRQFD_DEASSIGN,
    "KVM_EXIT_IO_OUT": abi.IO_OUT,
    "KVM_API_VERSION": abi.API_VERSION,
}


def expected() -> dict[str, int]:
    """C expressions and what they should be."""
    found = dict(NUMBERS)
    for ours, theirs in STRUCTURES.items():
        found[f"sizeof(struct {theirs})"] = ctypes.sizeof(ours)
        for name in fields(ours):
            found[f"offsetof(struct {theirs}, {name})"] = getattr(ours, name).offset
    found["offsetof(struct kvm_signal_mask, sigset)"] = abi.SignalMask.sigset.offset
    for name in fields(abi.Run):
        if name != "exit":
            found[f"offsetof(struct kvm_run, {name})"] = getattr(abi.Run, name).offset
    for member, kind in UNION.items():
        for name in fields(kind):
            offset = abi.Run.exit.offset + getattr(kind, name).offset
            found[f"offsetof(struct kvm_run, {member}.{name})"] = offset
    return found


def fields(structure: type[ctypes.Structure]) -> list[str]:
    return [field[0] for field in structure._fields_]


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the structures are x86-64's")
def test_numbers_and_structures_are_the_kernels(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not HEADER.exists():
        missing("no C compiler, or no linux/kvm.h: on Debian, apt install gcc linux-libc-dev")
    wanted = expected()
    lines = [f'printf("%llu\\n", (unsigned long long)({question}));' for question in wanted]
    source = tmp_path / "ask.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n#include <linux/kvm.h>\n"
        "int main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n"
    )
    program = tmp_path / "ask"
    subprocess.run([compiler, "-o", str(program), str(source)], check=True)
    answers = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip(wanted, map(int, answers), strict=True)) == wanted
