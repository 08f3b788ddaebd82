"""Builds the seccomp filter: the list of system calls that the isolated process may use.

The filter is a classic BPF program over ``struct seccomp_data`` (seccomp(2)). Another architecture or the x32 ABI kills
the process, a listed call is allowed, and every other call fails with EPERM before the kernel runs any of its code.
"""

from __future__ import annotations

import platform
import struct
import sys
from dataclasses import dataclass

from dspynb.errors import ConfigurationError

__all__ = ["Machine", "filter_program", "this_machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The system calls of one architecture by number.

    ``forbidden`` are calls that have no effect when all their arguments are zero. They are tried when the filter is in
    force, to check that it is.
    """

    audit_arch: int
    allowed: dict[str, int]
    forbidden: dict[str, int]


_X86_64 = Machine(
    audit_arch=0xC000003E,
    allowed={
        "write": 1,
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "brk": 12,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "rt_sigreturn": 15,
        "sched_yield": 24,
        "mremap": 25,
        "madvise": 28,
        "nanosleep": 35,
        "getpid": 39,
        "exit": 60,
        "gettimeofday": 96,
        "sigaltstack": 131,
        "time": 201,
        "futex": 202,
        "restart_syscall": 219,
        "clock_gettime": 228,
        "clock_getres": 229,
        "clock_nanosleep": 230,
        "exit_group": 231,
        "getrandom": 318,
    },
    forbidden={
        "socket": 41,
        "execve": 59,
        "kill": 62,
        "ptrace": 101,
        "openat": 257,
        "io_uring_setup": 425,
        "clone3": 435,
    },
)
_AARCH64 = Machine(
    audit_arch=0xC00000B7,
    allowed={
        "write": 64,
        "exit": 93,
        "exit_group": 94,
        "futex": 98,
        "nanosleep": 101,
        "clock_gettime": 113,
        "clock_getres": 114,
        "clock_nanosleep": 115,
        "sched_yield": 124,
        "restart_syscall": 128,
        "sigaltstack": 132,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "rt_sigreturn": 139,
        "gettimeofday": 169,
        "getpid": 172,
        "brk": 214,
        "munmap": 215,
        "mremap": 216,
        "mmap": 222,
        "mprotect": 226,
        "madvise": 233,
        "getrandom": 278,
    },
    forbidden={
        "openat": 56,
        "ptrace": 117,
        "kill": 129,
        "socket": 198,
        "execve": 221,
        "io_uring_setup": 425,
        "clone3": 435,
    },
)
_MACHINES = {"x86_64": _X86_64, "amd64": _X86_64, "aarch64": _AARCH64, "arm64": _AARCH64}

# instructions of BPF
_LOAD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_AT_LEAST = 0x35
_RETURN = 0x06
# offsets in struct seccomp_data
_NUMBER_OFFSET = 0
_ARCH_OFFSET = 4
# results of the filter
_KILL_PROCESS = 0x80000000
_FAIL_WITH_EPERM = 0x00050001
_ALLOW = 0x7FFF0000
_X32 = 0x40000000  # marks calls of the x32 ABI, which has the architecture number of x86_64


def this_machine() -> Machine:
    """Return the machine of this process. Raises ConfigurationError if there is no filter for it."""
    machine = _MACHINES.get(platform.machine().lower())
    if sys.platform != "linux" or machine is None or sys.maxsize < 2**32:
        here = f"{sys.platform} on {platform.machine() or 'an unknown machine'}"
        raise ConfigurationError(
            "generated code runs only where the kernel can isolate it, on 64-bit Linux on x86_64 or aarch64; "
            f"this is {here}, so none was run"
        )
    return machine


def filter_program(machine: Machine) -> bytes:
    """Return the filter as an array of ``struct sock_filter``."""
    allowed = sorted(machine.allowed.values())
    # Each step: (instruction, steps to skip if true, steps to skip if false, operand).
    steps = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, machine.audit_arch),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL_PROCESS),
        *((_JUMP_EQUAL, len(allowed) - i, 0, number) for i, number in enumerate(allowed)),
        (_RETURN, 0, 0, _FAIL_WITH_EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
