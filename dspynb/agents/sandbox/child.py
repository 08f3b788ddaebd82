"""The program of the isolated process. It stands alone: its Python sees the standard library and nothing else.

It reads one JSON request from descriptor 0, shuts itself in, writes a line that says so to descriptor 1, runs the
source, and writes one JSON reply. What it writes before that line comes from trusted code; all after it is hostile.
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
""".split()  # noqa: SIM905  # a list of 40 lines is no better
"""What the source may import: loaded beforehand, since no file can be opened later."""

_PARENT_DEATH_SIGNAL, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 4, 22, 38  # prctl(2)
_FILTER_MODE, _EPERM = 2, 1
_LINES, _RESERVE = 5, 4 << 20


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


class _Text(io.TextIOBase):
    """Printed text, kept up to a number of characters."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self.left, self.dropped = limit, 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept = text[: self.left]
        if kept:
            self.parts.append(kept)
        self.left -= len(kept)
        self.dropped += len(text) - len(kept)
        return len(text)

    def __str__(self) -> str:
        return "".join(self.parts) + (f" … [{self.dropped} more characters]" if self.dropped else "")


class _OnlyLoaded:
    """The last finder: says what can be imported, where Python would say that there is no such module."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004  # the protocol's
        known = ", ".join(module for module in MODULES if "." not in module and not module.startswith("_"))
        raise ModuleNotFoundError(f"{name!r} cannot be imported here; these can: {known}", name=name)


def main() -> None:
    """Read the request, shut the process in, run the source, reply."""
    try:
        request = _read_request()
        _limit(request["memory"], request["cpu"])
        _shut_in(bytes.fromhex(request["filter"]), request["forbidden"], request["parent"])
    except BaseException as error:
        _write(f"{type(error).__name__}: {error}".encode(errors="replace"))
        os._exit(1)
    _write(request["ready"].encode())
    dumps = json.dumps  # the source may change the module
    reply = _run(request["code"], request["inputs"], request["output"])
    _write(dumps(reply, ensure_ascii=False).encode("utf-8", "replace"))
    os._exit(0)


def _read_request() -> Any:
    """The request, with everything loaded that must come from a file."""
    with open(0, "rb") as file:
        request = json.loads(file.read())
    for name in (*MODULES, *request["preload"]):
        importlib.import_module(name)
    time.tzset()  # reads the time zone's file
    if "ctypes" not in request["preload"]:  # not the wall, but nothing to leave lying about either
        for name in ("ctypes", "ctypes._endian", "_ctypes"):
            sys.modules.pop(name, None)
    sys.path.clear()
    sys.meta_path[:] = [*sys.meta_path[:2], _OnlyLoaded]  # built-in and frozen modules need no file
    return request


def _limit(memory: int, cpu: int) -> None:
    """Memory in bytes of address space, processor time in seconds; no files, no processes, no core dump."""
    limits = {"AS": memory, "CPU": cpu, "FSIZE": 0, "NOFILE": 0, "NPROC": 0, "CORE": 0}
    for name, wanted in limits.items():
        limit = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(limit)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (most, most))


def _shut_in(program: bytes, forbidden: Mapping[str, int], parent: int) -> None:
    """Give up files, network and other processes for good. Raises OSError where the kernel does not enforce that."""
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before
        os._exit(1)
    _prctl(libc, _DUMPABLE, 0)
    os.environ.clear()
    os.closerange(2, 1 << 16)  # 0 is closed: nothing but the reply's pipe stays open
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
    """Run the source and say what came of it."""
    printed = _Text(limit)
    answers: list[Any] = []

    def final_answer(*values: Any, **named: Any) -> None:
        """Give the result; the last call counts."""
        answers[:] = [named or (values[0] if len(values) == 1 else values)]

    sys.argv, sys.stdin, sys.stdout, sys.stderr = [CODE], io.StringIO(), printed, printed
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", None)
    space = {"__name__": "__main__", "__builtins__": builtins, **inputs, "final_answer": final_answer}
    reserve = bytearray(_RESERVE)
    failure, value = None, None
    try:
        last = _execute(code, space)
        answers = answers or ([] if last is None else [last])
        value = _shown(answers[0], limit) if answers else None
    except BaseException as error:
        del reserve
        if isinstance(error, MemoryError):
            space.clear()
            answers.clear()
        failure = _failure(error, code)
        error.__traceback__ = None
    return {"printed": str(printed), "value": value, "failure": failure}


def _execute(code: str, space: dict[str, Any]) -> Any:
    """Run the source; the value of its last statement, if that is an expression. ``sys.exit()`` is an end like any."""
    tree = ast.parse(code, CODE)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    try:
        exec(compile(tree, CODE, "exec"), space)  # noqa: S102  # what this process is for
        if isinstance(last, ast.Expr):
            return eval(compile(ast.Expression(last.value), CODE, "eval"), space)  # noqa: S307
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    return None


def _shown(value: Any, limit: int) -> str:
    """A value as text: a text as it is, all else as JSON (with the text of what JSON does not know), or its repr."""
    if isinstance(value, str):
        text = str(value)
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit} more characters]"


def _failure(error: BaseException, code: str) -> dict[str, Any]:
    lines = code.splitlines()
    at: Sequence[tuple[int, str]] = [
        (number, frame.f_code.co_name)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == CODE
    ]
    if isinstance(error, SyntaxError) and error.filename == CODE and error.lineno:
        at = [*at, (error.lineno, "<module>")]
    where = [f"line {number}, in {name}: {_line(lines, number)}" for number, name in at[-_LINES:]]
    message = error.msg if isinstance(error, SyntaxError) else _message(error)
    return {
        "kind": type(error).__name__[:200],
        "message": message[:2000],
        "line": at[-1][0] if at else None,
        "where": "\n".join(where),
    }


def _line(lines: Sequence[str], number: int) -> str:
    return lines[number - 1].strip()[:200] if 0 < number <= len(lines) else ""


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as second:  # the source's own class
        return f"its text could not be made ({type(second).__name__})"


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
