"""/dev/kvm: whether it can be used here, and its ioctls as calls that raise."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Final

from frontend.guest.kvm import abi
from vhostuser.errors import VhostUserError
from vhostuser.fd import Fd

DEVICE: Final = Path("/dev/kvm")
MACHINES: Final = frozenset({"x86_64", "amd64"})

_libc = ctypes.CDLL(None, use_errno=True)  # CDLL: the GIL is given away, and a virtual CPU runs in the call
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class KvmError(VhostUserError):
    """KVM is not there, cannot do what is asked, or the guest did something that ends it."""


def ioctl(fd: Fd, request: int, argument: ctypes.Structure | ctypes.c_uint64 | int = 0) -> int:
    """One of KVM's calls.

    Raises:
        OSError: as the kernel says.
    """
    value = argument if isinstance(argument, int) else ctypes.addressof(argument)
    result: int = _libc.ioctl(fd.fileno(), request, value)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Kvm:
    """/dev/kvm, open.

    Raises:
        KvmError: it cannot be used; says why.
    """

    def __init__(self) -> None:
        if sys.platform != "linux" or platform.machine().lower() not in MACHINES:
            raise KvmError(f"no KVM for this guest: it is x86, and this is {sys.platform} on {platform.machine()}")
        try:
            self.fd = Fd(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            raise KvmError(f"no {DEVICE}") from None
        except OSError as error:
            raise KvmError(f"cannot open {DEVICE}: {error.strerror}") from error
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def has(self, capability: abi.Capability) -> int:
        """What KVM_CHECK_EXTENSION says: 0 is no, anything else yes, sometimes with a meaning."""
        return ioctl(self.fd, abi.KVM_CHECK_EXTENSION, capability)

    def create_vm(self) -> Fd:
        """A new virtual machine, owned by the caller.

        Raises:
            KvmError: the kernel refuses.
        """
        try:
            return Fd(ioctl(self.fd, abi.KVM_CREATE_VM))
        except OSError as error:
            raise KvmError(f"{DEVICE} is there, but makes no virtual machine: {error.strerror}") from error

    def close(self) -> None:
        """Close it; machines that came out of it live on."""
        self.fd.close()

    def _check(self) -> None:
        try:
            version = ioctl(self.fd, abi.KVM_GET_API_VERSION)
        except OSError as error:
            raise KvmError(f"{DEVICE} is not KVM's: {error.strerror}") from error
        if version != abi.API_VERSION:
            raise KvmError(f"{DEVICE} speaks version {version}, expected {abi.API_VERSION}")
        missing = [
            capability.name
            for capability in (abi.Capability.USER_MEMORY, abi.Capability.READONLY_MEM)
            if not self.has(capability)
        ]
        if missing:
            raise KvmError(f"this KVM lacks {', '.join(missing)}")


def why_no_kvm() -> str | None:
    """Why no virtual machine can be made here, in a few words; None when one can."""
    try:
        kvm = Kvm()
        try:
            kvm.create_vm().close()
        finally:
            kvm.close()
    except KvmError as error:
        return str(error)
    return None
