"""`Vcpu`: a virtual CPU, the loop that runs it, and how to stop that loop from outside.

Theory of stopping.  KVM_RUN can stay in the kernel for ever: in a loop of the guest's, or in HLT, waiting for an
interrupt.  Only a signal to its very thread brings it back.  A handler would be the whole process's business, and
Python handlers run in the main thread only; so there is none.  The thread *blocks* one signal, KVM_SET_SIGNAL_MASK
unblocks it for the time in KVM_RUN and nowhere else, and what arrives makes KVM_RUN return EINTR and stays pending.
The thread takes it away again before it goes, so no signal is ever delivered.  A lock keeps `Vcpu.stop` from aiming at
a thread that has left the loop, and may be somebody else's by now.

``immediate_exit`` closes the gap: a stop that comes before KVM_RUN is found there.
"""

from __future__ import annotations

import mmap
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EINTR
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from frontend.background import background
from frontend.guest.kvm import abi
from frontend.guest.kvm.system import KvmError, ioctl
from frontend.guest.mmio import MmioExit
from vhostuser.fd import Fd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from frontend.guest.mmio import MmioHandler

KICK: Final[int] = getattr(signal, "SIGRTMIN", 0) + 5
"""A real-time signal that nobody else is likely to use: one sent to the process could be lost while a guest runs."""


@dataclass(frozen=True, slots=True)
class PortWrite:
    """The guest executed OUT, or OUTS.

    Attributes:
        port: which port.
        size: bytes of one item.
        data: all items.
    """

    port: int
    size: int
    data: bytes


PortHandler: TypeAlias = "Callable[[PortWrite], None]"


class Vcpu:
    """A virtual CPU; made by `Vm.create_vcpu`, which also ends it.

    Attributes:
        run: the page that is shared with the kernel.
    """

    def __init__(self, fd: Fd, run_size: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = mmap.mmap(fd.fileno(), run_size)
        self.run: abi.Run | None = abi.Run.from_buffer(self._map)
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._stopping = False
        ioctl(fd, abi.KVM_SET_SIGNAL_MASK, abi.SignalMask(8, ~(1 << KICK - 1) & (1 << 64) - 1))

    @classmethod
    def create(cls, vm: Fd, number: int, run_size: int) -> Vcpu:
        """The virtual CPU ``number`` of a machine.

        Raises:
            OSError: the kernel refuses.
        """
        fd = Fd(ioctl(vm, abi.KVM_CREATE_VCPU, number))
        try:
            return cls(fd, run_size)
        except BaseException:
            fd.close()
            raise

    def close(self) -> None:
        """Give it up; it must not be running."""
        self.run = None
        self._map = None
        self._fd.close()

    # --- registers ---

    @property
    def regs(self) -> abi.Regs:
        """A copy of the general registers."""
        found = abi.Regs()
        ioctl(self._fd, abi.KVM_GET_REGS, found)
        return found

    def set_regs(self, **values: int) -> None:
        """Set all general registers: those that are not named become 0."""
        ioctl(self._fd, abi.KVM_SET_REGS, abi.Regs(**{"rflags": 2, **values}))  # bit 1 is always set

    @property
    def sregs(self) -> abi.Sregs:
        """A copy of the segment and control registers."""
        found = abi.Sregs()
        ioctl(self._fd, abi.KVM_GET_SREGS, found)
        return found

    def set_sregs(self, sregs: abi.Sregs) -> None:
        """Set the segment and control registers."""
        ioctl(self._fd, abi.KVM_SET_SREGS, sregs)

    # --- running ---

    def run_until_halt(self, on_mmio: MmioHandler, on_port: PortHandler) -> bool:
        """Let the guest run until it halts for good, or until `stop`; blocks this thread.

        Args:
            on_mmio: gets loads and stores that no memory answers; called in this thread.
            on_port: gets what the guest writes to ports; called in this thread.

        Returns:
            True if it was stopped, False if it executed HLT (of which only a machine without irqchip hears).

        Raises:
            KvmError: the guest cannot go on, or reads a port.
        """
        with self._running():
            while not self._stopping:
                match self._enter():
                    case abi.ExitReason.MMIO:
                        self._serve_mmio(on_mmio)
                    case abi.ExitReason.IO:
                        on_port(self._port_write())
                    case abi.ExitReason.HLT:
                        return False
                    case abi.ExitReason.INTR:
                        continue
                    case reason:
                        raise KvmError(self._last_words(reason))
            return True

    async def run_in_thread(self, on_mmio: MmioHandler, on_port: PortHandler) -> bool:
        """As `run_until_halt`, in a thread of its own, and cancelled as anything else in trio."""
        try:
            async with background() as nursery:
                nursery.start_soon(self._stop_when_cancelled)
                stopped = await trio.to_thread.run_sync(self.run_until_halt, on_mmio, on_port)
        finally:
            self._stop_nothing()  # the loop may have ended by itself, just before
        await trio.lowlevel.checkpoint_if_cancelled()
        return stopped

    def stop(self) -> None:
        """End the loop that runs now, or else the next one; from any thread, and from the handlers too."""
        with self._lock:
            self._stopping = True
            if self.run is not None:
                self.run.immediate_exit = 1
            if self._thread not in (None, threading.get_ident()):
                assert self._thread is not None  # mypy does not look into the tuple
                signal.pthread_kill(self._thread, KICK)

    def _stop_nothing(self) -> None:
        with self._lock:
            self._stopping = False
            self._state.immediate_exit = 0

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.stop()

    @contextmanager
    def _running(self) -> Iterator[None]:
        """This thread runs the CPU, and may be sent the signal."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {KICK})
        with self._lock:
            self._thread = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                self._thread = None
            self._stop_nothing()
            # Nobody sends one any more.  What is pending goes, for a moment later it would end the process.
            while signal.sigtimedwait({KICK}, 0) is not None:
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _enter(self) -> int:
        try:
            ioctl(self._fd, abi.KVM_RUN)
        except OSError as error:
            if error.errno != EINTR:
                raise KvmError(f"KVM_RUN: {error.strerror}, at {self._where()}") from error
            return abi.ExitReason.INTR
        return int(self._state.exit_reason)

    # --- exits ---

    @property
    def _state(self) -> abi.Run:
        if self.run is None:
            raise KvmError("this virtual CPU was closed")
        return self.run

    def _serve_mmio(self, handler: MmioHandler) -> None:
        mmio = self._state.exit.mmio
        length = mmio.len
        if mmio.is_write:
            handler(MmioExit.store(mmio.phys_addr, bytes(mmio.data[:length])))
        else:
            # Taken over by the guest's register when the CPU is entered again.
            mmio.data[:length] = list(handler(MmioExit.load(mmio.phys_addr, length)))

    def _port_write(self) -> PortWrite:
        found, offset = self._state.exit.io, self._state.exit.io.data_offset
        if found.direction != abi.IO_OUT:
            raise KvmError(f"the guest reads port {found.port:#x}, where nothing is, at {self._where()}")
        assert self._map is not None
        return PortWrite(found.port, found.size, self._map[offset : offset + found.size * found.count])

    def _last_words(self, reason: int) -> str:
        known = reason in list(abi.ExitReason)
        name = abi.ExitReason(reason).name if known else f"exit reason {reason}"
        detail = f" {self._state.exit.internal.suberror}" if reason == abi.ExitReason.INTERNAL_ERROR else ""
        return f"the guest cannot go on: {name}{detail} at {self._where()}"

    def _where(self) -> str:
        return f"{self.sregs.cs.selector:#x}:{self.regs.rip:#x}"
