"""Running source in the sandbox, with raw system calls where a test needs them."""

from __future__ import annotations

import asyncio
import json
import platform
import sys

import pytest

from dspynb.agents.sandbox.runner import Limits, run_code

linux = pytest.mark.skipif(sys.platform != "linux", reason="the isolation is Linux's")
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")

CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    '''The errno of a raw system call, 0 if it went through.'''
    values = [a if isinstance(a, bytes) else ctypes.c_long(a) for a in (*arguments, *(0,) * 6)[:6]]
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *values) == -1 else 0
"""


def run(code, inputs=None, *, preload=(), **limits):
    """What comes of the source."""
    return asyncio.run(run_code(code, inputs, Limits(**limits), preload=preload))


def raw(code, inputs=None):
    """The JSON value of source that has ``call(number, *arguments)``."""
    result = run(CALL + code, inputs, preload=["ctypes"], timeout=30.0, output=10**6)
    assert result.failure is None, result.failure
    return json.loads(result.value)
