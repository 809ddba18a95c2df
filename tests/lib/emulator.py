# SPDX-License-Identifier: Apache-2.0
"""What an emulated processor does wrong to guests, and how tests know. Seen with QEMU 7.2:

- An interrupt that KVM has injected is delivered once more, at any later instruction and whatever
  the guest's interrupt flag says, when another thread's request to look at interrupts comes late:
  VMRUN leaves the vector behind as if it were an exception under way. The guest hangs (seen in
  KVM's trace: the timer's interrupt while the clock was updated), and most likely that is also
  what makes it panic once in some hundred boots on a busy machine (a double fault at
  entry_SYSCALL_64, which has no stack yet). The trace tells: such an exit has an exception's type
  with a vector that no exception has.
- The shadow of STI is forgotten over an exit: between STI and HLT an interrupt is taken that wakes
  a task, and the guest halts all the same, until its next interrupt. Seen once in a trace of 1,400
  halts. With a tick that never stops the next one is near; without, a second processor may wait
  for ever.
"""
EVENT = "/sys/kernel/debug/tracing/events/kvm/kvm_exit"
TRACE = "/sys/kernel/debug/tracing/trace"
TWICE = "(intr_info & 0x100) && (intr_info & 0x200) && (intr_info & 0xe0)"


def here():
    with open("/proc/cpuinfo") as f:
        return "QEMU TCG" in f.read()


def cmdline(text=""):
    """--cmdline for guests that answer within a time of somebody else's."""
    text = " ".join(["nohz=off"] * here() + [text] * bool(text))
    return ["--cmdline", text] if text else []


def watch():
    """Before the first guest, since it patches KVM's code. True: from now on faults() knows."""
    if not here():
        return False
    try:
        for name, text in (("filter", TWICE), ("enable", "1")):
            with open(f"{EVENT}/{name}", "w") as f:
                f.write(text)
    except OSError as e:
        print(f"# the emulated processor's faults are not seen: {e}", flush=True)
        return False
    return True


def faults():
    """How many interrupts came twice since watch()."""
    with open(TRACE) as f:
        return sum("kvm_exit:" in line for line in f)
