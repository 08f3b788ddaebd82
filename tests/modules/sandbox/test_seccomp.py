"""The filter says the same for both architectures: listed calls pass, nothing else does."""

from __future__ import annotations

import struct
from pathlib import Path
from re import findall

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspynb.agents.sandbox import seccomp
from dspynb.agents.sandbox.seccomp import _AARCH64, _X86_64, filter_program, this_machine
from dspynb.errors import ConfigurationError

machines = pytest.mark.parametrize("machine", [_X86_64, _AARCH64], ids=["x86_64", "aarch64"])
KILL, EPERM, ALLOW = 0x80000000, 0x00050001, 0x7FFF0000
HEADERS = {"x86_64-linux-gnu/asm/unistd_64.h": _X86_64, "asm-generic/unistd.h": _AARCH64}


def decide(program, number, arch):
    """What a filter says of a call, read as the kernel reads it."""
    data = struct.pack("=II", number, arch)
    steps, at, held = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        code, if_true, if_false, k = steps[at]
        at += 1
        match code:
            case 0x20:
                (held,) = struct.unpack_from("=I", data, k)
            case 0x15:
                at += if_true if held == k else if_false
            case 0x35:
                at += if_true if held >= k else if_false
            case 0x06:
                return k


@machines
@given(number=st.integers(0, 1000) | st.integers(0, 2**32 - 1))
def test_a_call_passes_if_it_is_listed_fails_if_not_and_ends_the_process_in_the_x32_range(machine, number):
    expected = ALLOW if number in machine.allowed.values() else EPERM
    if number >= 0x40000000:
        expected = KILL
    assert decide(filter_program(machine), number, machine.audit_arch) == expected


@machines
@given(number=st.integers(0, 1000), arch=st.integers(0, 2**32 - 1))
def test_a_call_of_another_architecture_ends_the_process(machine, number, arch):
    if arch != machine.audit_arch:
        assert decide(filter_program(machine), number, arch) == KILL


@machines
def test_all_listed_calls_pass(machine):
    verdicts = {decide(filter_program(machine), n, machine.audit_arch) for n in machine.allowed.values()}
    assert verdicts == {ALLOW}
    assert not set(machine.allowed.values()) & set(machine.forbidden.values())


@pytest.mark.parametrize("header", HEADERS)
def test_the_numbers_are_the_kernel_s(header):
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip("the kernel's headers are not installed")
    known = {name: int(n) for name, n in findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())}
    machine = HEADERS[header]
    used = {**machine.allowed, **machine.forbidden}
    assert {name: known[name] for name in used} == used


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "riscv64")])
def test_a_machine_without_a_filter_is_a_configuration_error(monkeypatch, system, machine):
    monkeypatch.setattr(seccomp.sys, "platform", system)
    monkeypatch.setattr(seccomp.platform, "machine", lambda: machine)
    with pytest.raises(ConfigurationError, match=f"64-bit Linux on x86_64 or aarch64; this is {system} on {machine}"):
        this_machine()
