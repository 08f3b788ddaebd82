"""The program of the isolated process. It imports nothing but the standard library.

It reads one JSON request from descriptor 0, isolates itself, writes a line that confirms this to descriptor 1, runs the
source, and writes one JSON reply. Its output before that line comes from trusted code; all output after it does not.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import importlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

CODE = "<code>"
MODULES = """
    abc array base64 bisect calendar cmath collections.abc contextlib copy csv dataclasses datetime decimal difflib
    encodings.ascii encodings.latin_1 encodings.utf_16 enum fractions functools heapq io itertools json math numbers
    operator pprint random re statistics string struct textwrap time types typing unicodedata _strptime
""".split()  # noqa: SIM905  # a list would take 40 lines
"""Modules that the source may import. They are loaded beforehand, since no file can be opened later."""

# options of prctl(2)
_PARENT_DEATH_SIGNAL = 1
_DUMPABLE = 4
_SECCOMP = 22
_NO_NEW_PRIVILEGES = 38
_FILTER_MODE = 2
_EPERM = 1
_MAX_TRACEBACK_LINES = 5
_RESERVED_BYTES = 4 << 20  # freed when the source has used up the memory, so that the failure can be reported


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


class _Text(io.TextIOBase):
    """A text stream that stores at most ``limit`` characters and counts those that it drops."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self.remaining = limit
        self.dropped = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        stored = text[: self.remaining]
        if stored:
            self.parts.append(stored)
        self.remaining -= len(stored)
        self.dropped += len(text) - len(stored)
        return len(text)

    def __str__(self) -> str:
        text = "".join(self.parts)
        if self.dropped:
            text += f" … [{self.dropped} more characters]"
        return text


class _OnlyLoaded:
    """The last finder of modules. Its error names the modules that can be imported."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004  # required by the protocol
        available = ", ".join(module for module in MODULES if "." not in module and not module.startswith("_"))
        raise ModuleNotFoundError(f"{name!r} cannot be imported here; these can: {available}", name=name)


def main() -> None:
    """Read the request, isolate the process, run the source, and write the reply."""
    try:
        request = _read_request()
        _limit(request["memory"], request["cpu"])
        _isolate(bytes.fromhex(request["filter"]), request["forbidden"], request["parent"])
    except BaseException as error:
        _write(f"{type(error).__name__}: {error}".encode(errors="replace"))
        os._exit(1)
    _write(request["ready"].encode())
    dumps = json.dumps  # the source may change the module
    reply = _run(request["code"], request["inputs"], request["output"])
    _write(dumps(reply, ensure_ascii=False).encode("utf-8", "replace"))
    os._exit(0)


def _read_request() -> Any:
    """Read the request and load everything that must be read from a file."""
    with open(0, "rb") as file:
        request = json.loads(file.read())
    for name in (*MODULES, *request["preload"]):
        importlib.import_module(name)
    time.tzset()  # reads the time zone's file
    if "ctypes" not in request["preload"]:  # the isolation does not depend on this; the source just has no use for it
        for name in ("ctypes", "ctypes._endian", "_ctypes"):
            sys.modules.pop(name, None)
    sys.path.clear()
    sys.meta_path[:] = [*sys.meta_path[:2], _OnlyLoaded]  # built-in and frozen modules need no file
    return request


def _limit(memory: int, cpu: int) -> None:
    """Limit the address space (bytes) and processor time (seconds). Allow no files, processes or core dumps."""
    limits = {"AS": memory, "CPU": cpu, "FSIZE": 0, "NOFILE": 0, "NPROC": 0, "CORE": 0}
    for name, requested in limits.items():
        limit = getattr(resource, f"RLIMIT_{name}")
        _, hard_limit = resource.getrlimit(limit)
        allowed = requested
        if hard_limit != resource.RLIM_INFINITY:
            allowed = min(requested, hard_limit)
        resource.setrlimit(limit, (allowed, allowed))


def _isolate(program: bytes, forbidden: Mapping[str, int], parent: int) -> None:
    """Give up files, network and other processes permanently. Raises OSError if the kernel does not enforce it."""
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the signal was set
        os._exit(1)
    _prctl(libc, _DUMPABLE, 0)
    os.environ.clear()
    os.closerange(2, 1 << 16)  # 0 is closed already, so only the pipe of the reply stays open
    _prctl(libc, _NO_NEW_PRIVILEGES, 1)
    steps = _Filter(len(program) // 8, program)
    _prctl(libc, _SECCOMP, _FILTER_MODE, ctypes.addressof(steps))
    zeros = [ctypes.c_long(0)] * 6
    for name, number in forbidden.items():
        ctypes.set_errno(0)
        if libc.syscall(ctypes.c_long(number), *zeros) != -1 or ctypes.get_errno() != _EPERM:
            raise OSError(f"the kernel took a seccomp filter and does not enforce it: {name} went through")


def _prctl(libc: ctypes.CDLL, option: int, *values: int) -> None:
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}) failed: {os.strerror(code)}")


def _run(code: str, inputs: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Run the source and return the reply."""
    printed = _Text(limit)
    answers: list[Any] = []

    def final_answer(*values: Any, **named: Any) -> None:
        """Set the result. The last call counts."""
        answer: Any = named
        if not named:
            answer = values[0] if len(values) == 1 else values
        answers[:] = [answer]

    sys.argv = [CODE]
    sys.stdin = io.StringIO()
    sys.stdout = printed
    sys.stderr = printed
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", None)
    space = {"__name__": "__main__", "__builtins__": builtins, **inputs, "final_answer": final_answer}
    reserved = bytearray(_RESERVED_BYTES)
    failure = None
    value = None
    try:
        last = _execute(code, space)
        if not answers and last is not None:
            answers.append(last)
        if answers:
            value = _value_text(answers[0], limit)
    except BaseException as error:
        del reserved
        if isinstance(error, MemoryError):
            space.clear()
            answers.clear()
        failure = _failure(error, code)
        error.__traceback__ = None
    return {"printed": str(printed), "value": value, "failure": failure}


def _execute(code: str, space: dict[str, Any]) -> Any:
    """Run the source and return the value of its last expression. ``sys.exit()`` without an error ends it normally."""
    tree = ast.parse(code, CODE)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body.pop()
    try:
        exec(compile(tree, CODE, "exec"), space)  # noqa: S102  # the purpose of this process
        if isinstance(last, ast.Expr):
            return eval(compile(ast.Expression(last.value), CODE, "eval"), space)  # noqa: S307
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    return None


def _value_text(value: object, limit: int) -> str:
    """Return a value as text: a text unchanged, everything else as JSON, or its repr if that fails."""
    if isinstance(value, str):
        text = str(value)
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            text = repr(value)
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … [{len(text) - limit} more characters]"


def _failure(error: BaseException, code: str) -> dict[str, Any]:
    lines = code.splitlines()
    locations: list[tuple[int, str]] = []
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == CODE:
            locations.append((number, frame.f_code.co_name))
    if isinstance(error, SyntaxError) and error.filename == CODE and error.lineno:
        locations.append((error.lineno, "<module>"))
    last_locations = locations[-_MAX_TRACEBACK_LINES:]
    where = [f"line {number}, in {name}: {_line(lines, number)}" for number, name in last_locations]
    message = error.msg if isinstance(error, SyntaxError) else _message(error)
    return {
        "kind": type(error).__name__[:200],
        "message": message[:2000],
        "line": locations[-1][0] if locations else None,
        "where": "\n".join(where),
    }


def _line(lines: Sequence[str], number: int) -> str:
    if not 0 < number <= len(lines):
        return ""
    return lines[number - 1].strip()[:200]


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as second:  # from a class in the source
        return f"its text could not be made ({type(second).__name__})"


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
