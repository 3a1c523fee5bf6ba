"""KVM's ioctls and structures, as <linux/kvm.h> has them; the structures of the CPU are those of x86-64.

ctypes and not our own records, because ``struct kvm_run`` is shared memory that is read and written in place.  Names
are the kernel's, so that its documentation (virt/kvm/api.rst) can be read beside this file.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_uint8, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag
from typing import Final

API_VERSION: Final = 12
"""The only one there is since Linux 2.6.22."""


class UserspaceMemoryRegion(ctypes.Structure):
    """``struct kvm_userspace_memory_region``."""

    _fields_ = (
        ("slot", c_uint32),
        ("flags", c_uint32),
        ("guest_phys_addr", c_uint64),
        ("memory_size", c_uint64),
        ("userspace_addr", c_uint64),
    )


class DirtyLog(ctypes.Structure):
    """``struct kvm_dirty_log``."""

    _fields_ = (("slot", c_uint32), ("padding1", c_uint32), ("dirty_bitmap", c_uint64))


class IoEventFd(ctypes.Structure):
    """``struct kvm_ioeventfd``."""

    _fields_ = (
        ("datamatch", c_uint64),
        ("addr", c_uint64),
        ("len", c_uint32),
        ("fd", c_int32),
        ("flags", c_uint32),
        ("pad", c_uint8 * 36),
    )


class IrqFd(ctypes.Structure):
    """``struct kvm_irqfd``."""

    _fields_ = (
        ("fd", c_uint32),
        ("gsi", c_uint32),
        ("flags", c_uint32),
        ("resamplefd", c_uint32),
        ("pad", c_uint8 * 16),
    )


class SignalMask(ctypes.Structure):
    """``struct kvm_signal_mask`` with the kernel's eight bytes of signals behind it."""

    _pack_ = 4  # the array begins right behind len
    _fields_ = (("len", c_uint32), ("sigset", c_uint64))


class Regs(ctypes.Structure):
    """``struct kvm_regs``: general registers."""

    _fields_ = tuple(
        (name, c_uint64)
        for name in (
            *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
            *(f"r{number}" for number in range(8, 16)),
            *("rip", "rflags"),
        )
    )


class Segment(ctypes.Structure):
    """``struct kvm_segment``: a segment register with what the CPU remembers of its descriptor."""

    _fields_ = (
        ("base", c_uint64),
        ("limit", c_uint32),
        ("selector", c_uint16),
        *((name, c_uint8) for name in ("type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable", "padding")),
    )


class Dtable(ctypes.Structure):
    """``struct kvm_dtable``."""

    _fields_ = (("base", c_uint64), ("limit", c_uint16), ("padding", c_uint16 * 3))


class Sregs(ctypes.Structure):
    """``struct kvm_sregs``: segment and control registers."""

    _fields_ = (
        *((name, Segment) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        *((name, Dtable) for name in ("gdt", "idt")),
        *((name, c_uint64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", c_uint64 * 4),
    )


class RunIo(ctypes.Structure):
    """``kvm_run.io``: the guest executed IN or OUT."""

    _fields_ = (
        ("direction", c_uint8),
        ("size", c_uint8),
        ("port", c_uint16),
        ("count", c_uint32),
        ("data_offset", c_uint64),
    )


class RunMmio(ctypes.Structure):
    """``kvm_run.mmio``: a load or store that no memory answers."""

    _fields_ = (("phys_addr", c_uint64), ("data", c_uint8 * 8), ("len", c_uint32), ("is_write", c_uint8))


class RunInternal(ctypes.Structure):
    """``kvm_run.internal``, how it begins: KVM met something that it cannot do for the guest."""

    _fields_ = (("suberror", c_uint32), ("ndata", c_uint32))


class _RunUnion(ctypes.Union):
    _fields_ = (("io", RunIo), ("mmio", RunMmio), ("internal", RunInternal), ("padding", c_uint8 * 256))


class Run(ctypes.Structure):
    """``struct kvm_run``, up to the union: how user space and a virtual CPU talk to each other."""

    _fields_ = (
        ("request_interrupt_window", c_uint8),
        ("immediate_exit", c_uint8),
        ("padding1", c_uint8 * 6),
        ("exit_reason", c_uint32),
        ("ready_for_interrupt_injection", c_uint8),
        ("if_flag", c_uint8),
        ("flags", c_uint16),
        ("cr8", c_uint64),
        ("apic_base", c_uint64),
        ("exit", _RunUnion),
    )


class Capability(IntEnum):
    """What KVM_CHECK_EXTENSION is asked for."""

    IRQCHIP = 0
    USER_MEMORY = 3
    NR_MEMSLOTS = 10
    IRQFD = 32
    IOEVENTFD = 36
    READONLY_MEM = 81


class ExitReason(IntEnum):
    """Why KVM_RUN came back."""

    UNKNOWN = 0
    EXCEPTION = 1
    IO = 2
    HLT = 5
    MMIO = 6
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTR = 10
    INTERNAL_ERROR = 17


class IoEventFdFlags(IntFlag):
    """``KVM_IOEVENTFD_FLAG_*``."""

    NONE = 0
    DATAMATCH = 1
    PIO = 2
    DEASSIGN = 4


IRQFD_DEASSIGN: Final = 1
IO_OUT: Final = 1


def _request(direction: int, number: int, size: int = 0) -> int:
    """``_IO``, ``_IOW`` and ``_IOR`` of <asm-generic/ioctl.h>, for KVM's letter."""
    return direction << 30 | size << 16 | 0xAE << 8 | number


def _io(number: int) -> int:
    return _request(0, number)


def _iow(number: int, what: type[ctypes.Structure] | type[c_uint64] | type[c_uint32]) -> int:
    return _request(1, number, ctypes.sizeof(what))


def _ior(number: int, what: type[ctypes.Structure]) -> int:
    return _request(2, number, ctypes.sizeof(what))


KVM_GET_API_VERSION: Final = _io(0x00)
KVM_CREATE_VM: Final = _io(0x01)
KVM_CHECK_EXTENSION: Final = _io(0x03)
KVM_GET_VCPU_MMAP_SIZE: Final = _io(0x04)
KVM_CREATE_VCPU: Final = _io(0x41)
KVM_GET_DIRTY_LOG: Final = _iow(0x42, DirtyLog)
KVM_SET_USER_MEMORY_REGION: Final = _iow(0x46, UserspaceMemoryRegion)
KVM_SET_TSS_ADDR: Final = _io(0x47)
KVM_SET_IDENTITY_MAP_ADDR: Final = _iow(0x48, c_uint64)
KVM_CREATE_IRQCHIP: Final = _io(0x60)
KVM_IRQFD: Final = _iow(0x76, IrqFd)
KVM_IOEVENTFD: Final = _iow(0x79, IoEventFd)
KVM_RUN: Final = _io(0x80)
KVM_GET_REGS: Final = _ior(0x81, Regs)
KVM_SET_REGS: Final = _iow(0x82, Regs)
KVM_GET_SREGS: Final = _ior(0x83, Sregs)
KVM_SET_SREGS: Final = _iow(0x84, Sregs)
KVM_SET_SIGNAL_MASK: Final = _iow(0x8B, c_uint32)
"""Its structure ends in an array without a length, so only ``len`` counts for the number."""
