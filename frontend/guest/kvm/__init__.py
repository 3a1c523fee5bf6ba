"""Memory slots, doorbells and interrupts on real KVM: Linux on x86-64 with /dev/kvm, without any further dependency.

`why_no_kvm` says whether it can be used.  `KvmMachine` executes single accesses, as `SoftwareSlots` pretends to; `Vm`
and `Vcpu` run a guest, for instance the one in ``program.py``.
"""

from frontend.guest.kvm.machine import KvmMachine, real_mode
from frontend.guest.kvm.system import KvmError, why_no_kvm
from frontend.guest.kvm.vcpu import PortWrite, Vcpu
from frontend.guest.kvm.vm import Vm

__all__ = ["KvmError", "KvmMachine", "PortWrite", "Vcpu", "Vm", "real_mode", "why_no_kvm"]
