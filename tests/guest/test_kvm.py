"""KVM itself: what it says when it is not there, guests of a few bytes, eventfds both ways, and stopping."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from frontend.guest.kvm import KvmError, KvmMachine, PortWrite, Vcpu, Vm, real_mode, system, why_no_kvm
from frontend.guest.kvm.vcpu import KICK
from frontend.guest.mmio import MmioExit
from frontend.guest.slots import SlotError
from tests.guest.machines import Exits, at, memory, slot
from vhostuser.fd import Fd
from vhostuser.memory.map import GuestAddr
from vhostuser.transport.notifier import NotifierKind, event_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CODE = 0x1000

JUMP_TO_ITSELF = "EB FE"
HALT = "F4"


@pytest.fixture
def vm(kvm_here: None) -> Iterator[Vm]:
    """A machine with interrupt controllers: HLT sleeps in the kernel."""
    with Vm(irqchip=True) as vm:
        yield vm


class Ports(list[PortWrite]):
    def __call__(self, write: PortWrite) -> None:
        self.append(write)


def guest(vm: Vm, code: str) -> tuple[Vcpu, memoryview]:
    """A real-mode guest with 64 KiB of RAM at 0 and ``code`` in it."""
    ram = memory(16)
    program = bytes.fromhex(code)
    ram[CODE : CODE + len(program)] = program
    vm.set(slot(0, 0, ram))
    vcpu = vm.create_vcpu()
    vcpu.set_sregs(real_mode(vcpu.sregs, code=0, stack=0))
    vcpu.set_regs(rip=CODE, rsp=0x8000)
    return vcpu, ram


# --- whether there is one ---


def as_if_on(monkeypatch: pytest.MonkeyPatch, name: str, machine: str) -> None:
    monkeypatch.setattr("sys.platform", name)
    monkeypatch.setattr("platform.machine", lambda: machine)


def test_no_device_is_a_reason_not_an_exception(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(system, "DEVICE", tmp_path / "kvm")
    as_if_on(monkeypatch, "linux", "x86_64")
    assert why_no_kvm() == f"no {tmp_path}/kvm"


def test_a_device_that_cannot_be_opened_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(system, "DEVICE", tmp_path)
    as_if_on(monkeypatch, "linux", "x86_64")
    assert why_no_kvm() == f"cannot open {tmp_path}: Is a directory"


def test_a_file_that_is_not_kvm_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kvm").write_bytes(b"")
    monkeypatch.setattr(system, "DEVICE", tmp_path / "kvm")
    as_if_on(monkeypatch, "linux", "x86_64")
    assert f"{tmp_path}/kvm is not KVM's" in str(why_no_kvm())


@pytest.mark.parametrize(("name", "machine"), [("darwin", "x86_64"), ("linux", "aarch64")])
def test_another_system_or_cpu_is_a_reason(monkeypatch: pytest.MonkeyPatch, name: str, machine: str) -> None:
    as_if_on(monkeypatch, name, machine)
    assert why_no_kvm() == f"no KVM for this guest: it is x86, and this is {name} on {machine}"


@pytest.mark.usefixtures("kvm_here")
def test_a_kvm_without_read_only_memory_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.Kvm, "has", lambda _kvm, capability: capability.name != "READONLY_MEM")
    assert why_no_kvm() == "this KVM lacks READONLY_MEM"


# --- a guest ---


def test_a_guest_halts_for_good_where_there_are_no_interrupts(kvm_here: None) -> None:
    with Vm() as vm:
        vcpu, ram = guest(vm, "C6 06 00 30 2A" + HALT)  # mov byte [3000h], 2Ah
        assert vcpu.run_until_halt(Exits(), Ports()) is False
        assert ram[0x3000] == 0x2A


def test_a_guest_writes_to_ports_a_byte_a_word_or_a_string(kvm_here: None) -> None:
    code = "B8 34 12 E6 10 E7 11 BE 00 10 B9 05 00 BA E9 00 FC F3 6E"  # out 10h,al; out 11h,ax; 5 x outsb to E9h
    with Vm() as vm:
        vcpu, _ = guest(vm, code + HALT)
        ports = Ports()
        vcpu.run_until_halt(Exits(), ports)
    string = b"".join(write.data for write in ports if write.port == 0xE9)
    assert ports[:2] == [PortWrite(0x10, 1, b"\x34"), PortWrite(0x11, 2, b"\x34\x12")]
    assert string == bytes.fromhex(code)[:5]


def test_an_mmio_load_gets_what_the_handler_says(kvm_here: None) -> None:
    with Vm() as vm:
        vcpu, ram = guest(vm, "B8 00 D0 8E D8 A1 00 00 31 DB 8E DB A3 00 30" + HALT)  # mov ax,[D0000h]; mov [3000h],ax
        exits = Exits()
        vcpu.run_until_halt(exits, Ports())
        assert exits == [MmioExit.load(0xD0000, 2)]
        assert bytes(ram[0x3000:0x3002]) == b"\xee\xee"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("E4 60", "the guest reads port 0x60, where nothing is, at 0x0:0x100"),  # in al, 60h
        ("EA 00 00 00 D0", "the guest cannot go on: INTERNAL_ERROR .* at 0xd000:0x0"),  # jmp D000:0000, no memory
    ],
)
def test_a_guest_that_cannot_go_on_says_where(kvm_here: None, code: str, message: str) -> None:
    with Vm() as vm:
        vcpu, _ = guest(vm, code)
        with pytest.raises(KvmError, match=message):
            vcpu.run_until_halt(Exits(), Ports())


def test_a_handler_that_fails_fails_the_run_and_the_cpu_goes_on_later(kvm_here: None) -> None:
    def fail(_access: MmioExit) -> bytes:
        raise ZeroDivisionError

    with Vm() as vm:
        vcpu, _ = guest(vm, "B8 00 D0 8E D8 A2 00 00" + HALT)  # mov [D0000h], al
        with pytest.raises(ZeroDivisionError):
            vcpu.run_until_halt(fail, Ports())
        assert vcpu.run_until_halt(Exits(), Ports()) is False


@pytest.mark.usefixtures("kvm_here")
def test_a_cpu_of_32_bits_reaches_no_further_than_4_gib(exits: Exits) -> None:
    with KvmMachine(exits) as machine:
        assert machine.read(GuestAddr((1 << 32) - 0x2000), 1) == b"\xee"
        with pytest.raises(KvmError, match="cannot address 0x100000000"):
            machine.read(GuestAddr(1 << 32), 1)


@pytest.mark.usefixtures("kvm_here")
def test_a_machine_keeps_its_own_page_to_itself(exits: Exits) -> None:
    with KvmMachine(exits) as machine:
        assert machine.table == {}
        with pytest.raises(SlotError, match="overlaps slot 508"):
            machine.set(slot(0, (1 << 20) - 1, memory(1)))


def test_a_closed_machine_is_closed_and_says_so(kvm_here: None) -> None:
    vm = Vm()
    vcpu, _ = guest(vm, HALT)
    vm.close()
    vm.close()
    with pytest.raises(Exception, match="closed"):
        vcpu.run_until_halt(Exits(), Ports())


# --- eventfds ---


@pytest.mark.usefixtures("kvm_and_eventfds_here")
def test_a_doorbell_signals_its_eventfd_and_does_not_exit(vm: Vm) -> None:
    kick, consumer = event_pair(NotifierKind.EVENTFD)
    # mov dword [0050h], 0; mov dword [0050h], 1 (another queue); out F4h, al
    store = "66 C7 06 50 00 {} 00 00 00"
    vcpu, _ = guest(vm, f"B8 00 D0 8E D8 {store.format('00')} {store.format('01')} E6 F4" + HALT)
    exits = Exits()
    with kick, consumer:
        with kick.duplicate() as fd:
            vm.add_ioeventfd(0xD0050, fd, match=0)
        vcpu.run_until_halt(exits, lambda _write: vcpu.stop())
        assert consumer.drain()
        assert exits == [MmioExit.store(0xD0050, b"\x01\0\0\0")]


def test_what_is_no_eventfd_is_refused_both_ways(vm: Vm) -> None:
    with Fd(os.open(os.devnull, os.O_RDONLY)) as fd:
        with pytest.raises(KvmError, match="KVM refuses an ioeventfd at 0xd0050"):
            vm.add_ioeventfd(0xD0050, fd)
        with pytest.raises(KvmError, match="KVM refuses an irqfd for interrupt 5"):
            vm.add_irqfd(fd, 5)


# Interrupt 25h goes to 1080h; the PIC counts from 20h; sti; hlt; out F4h, al
WAIT_FOR_INTERRUPT_5 = (
    "C7 06 94 00 80 10 C7 06 96 00 00 00 B0 11 E6 20 B0 20 E6 21 B0 04 E6 21 B0 01 E6 21 B0 DF E6 21"
    "E6 E9 FB F4 E6 F4 F4"
)


@pytest.mark.usefixtures("kvm_and_eventfds_here")
async def test_a_call_wakes_a_guest_that_sleeps(vm: Vm) -> None:
    vcpu, ram = guest(vm, WAIT_FOR_INTERRUPT_5)
    ram[0x1080:0x1086] = bytes.fromhex("C6 06 00 30 01 CF")  # mov byte [3000h], 1; iret
    notifier, call = event_pair(NotifierKind.EVENTFD)
    awake = trio.Event()
    with notifier, call, call.duplicate() as fd:
        vm.add_irqfd(fd, 5)

        def on_port(write: PortWrite) -> None:
            if write.port == 0xE9:  # it is about to sleep
                trio.from_thread.run_sync(awake.set)
            else:
                vcpu.stop()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(vcpu.run_in_thread, Exits(), on_port)
            await awake.wait()
            assert ram[0x3000] == 0
            notifier.notify()
    assert ram[0x3000] == 1


# --- stopping ---


@pytest.mark.parametrize("code", [JUMP_TO_ITSELF, "FA" + HALT], ids=["busy", "asleep"])
async def test_a_guest_is_stopped_by_cancelling(vm: Vm, code: str) -> None:
    vcpu, _ = guest(vm, "E6 E9" + code)  # out E9h, al: it runs
    runs = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vcpu.run_in_thread, Exits(), lambda _write: trio.from_thread.run_sync(runs.set))
        await runs.wait()
        nursery.cancel_scope.cancel()
    assert signal.SIGRTMIN + 5 == KICK


async def test_a_guest_that_was_cancelled_before_it_began_does_not_begin(vm: Vm) -> None:
    vcpu, _ = guest(vm, JUMP_TO_ITSELF)
    with trio.CancelScope() as scope:
        scope.cancel()
        await vcpu.run_in_thread(Exits(), Ports())
    assert scope.cancelled_caught


def test_a_stop_from_another_thread_ends_the_loop(vm: Vm) -> None:
    vcpu, _ = guest(vm, "E6 E9" + JUMP_TO_ITSELF)
    threads = []

    def stop_soon(_write: PortWrite) -> None:
        threads.append(threading.Thread(target=vcpu.stop))
        threads[0].start()

    assert vcpu.run_until_halt(Exits(), stop_soon) is True
    threads[0].join()


def test_a_stop_before_the_loop_ends_it_at_once_and_only_once(kvm_here: None) -> None:
    with Vm() as vm:
        vcpu, ram = guest(vm, "C6 06 00 30 2A" + HALT)
        vcpu.stop()
        assert vcpu.run_until_halt(Exits(), Ports()) is True
        assert ram[0x3000] == 0
        assert vcpu.run_until_halt(Exits(), Ports()) is False
        assert ram[0x3000] == 0x2A


def test_a_thread_that_ran_a_guest_is_as_it_was(vm: Vm) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    vcpu, _ = guest(vm, "E6 E9" + JUMP_TO_ITSELF)

    def stop_twice(_write: PortWrite) -> None:
        vcpu.stop()
        signal.pthread_kill(threading.get_ident(), KICK)

    vcpu.run_until_halt(Exits(), stop_twice)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert KICK not in signal.sigpending()


async def test_a_cpu_can_run_in_a_thread_again(kvm_here: None) -> None:
    with Vm() as vm:
        vcpu, _ = guest(vm, HALT + HALT)
        assert [await vcpu.run_in_thread(Exits(), Ports()) for _ in range(2)] == [False, False]


def test_slots_of_a_machine_go_with_it(vm: Vm) -> None:
    guest(vm, HALT)
    assert vm.table[0].guest_addr == at(0)
    vm.close()
    assert vm.table == {}
