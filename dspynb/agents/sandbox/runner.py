"""Starting the isolated process, holding it to its limits, and reading its reply."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, ValidationError

from dspynb.agents.sandbox.seccomp import filter_program, this_machine
from dspynb.errors import ConfigurationError, InputError, shorten
from dspynb.keywords import configurable
from dspynb.options import Number, Whole

__all__ = ["CodeFailure", "CodeResult", "Limits", "check_isolation", "isolation_available", "run_code"]

_READY = b"isolated\n"
"""Written by the process when it has shut itself in: what comes before is trusted code's, what comes after is not."""
_START = 30.0
"""Seconds that the process may take to start, beside the time limit of the source."""
_LONGEST_EXCUSE = 10_000
_CHILD = Path(__file__).with_name("child.py")
_isolated = False
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


CodeTimeout: TypeAlias = Annotated[float, Number(above=0, most=1e6, unit="seconds")]
Memory: TypeAlias = Annotated[int, Whole(64, 2**20)]
OutputLimit: TypeAlias = Annotated[int, Whole(1, 10**8)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the source may use: seconds, megabytes of address space (Python's own 25 included), characters of printed
    text and of the value, each. Raises ConfigurationError for what is out of range."""

    timeout: CodeTimeout = 5.0
    memory_mb: Memory = 256
    output: OutputLimit = 10_000

    @property
    def reply_bytes(self) -> int:
        """The longest honest reply: two texts of characters that JSON writes with six bytes each, and the rest."""
        return 12 * self.output + 100_000


Limits.__init__ = configurable()(Limits.__init__)  # type: ignore[method-assign]


class CodeFailure(BaseModel):
    """What went wrong. ``kind``: the exception's class, or ``TimeLimit``, ``OutputLimit``, ``Crash``; ``line`` of the
    source, None where it is not known (with a full memory Python may fail to note it); ``where``: the last lines of the
    traceback that are the source's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str
    message: str
    line: int | None = None
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" + (f"\n{self.where}" if self.where else "")


class CodeResult(BaseModel):
    """What came of the source: the ``printed`` text; the ``value`` given to ``final_answer``, else that of the last
    expression, as JSON or else as its repr (None if there is none); the ``failure``, if it failed. All of it is
    whatever the source wants it to be."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    printed: str = ""
    value: str | None = None
    failure: CodeFailure | None = None


async def run_code(
    code: str, inputs: Mapping[str, Any] | None = None, limits: Limits | None = None, *, preload: Sequence[str] = ()
) -> CodeResult:
    """Run Python source in a process of its own that can compute and reply, and nothing else.

    ``inputs``: JSON-able values, each a variable of the source; ``preload``: standard modules to have besides the
    usual. Cancelling the call kills the process at once. At most one process a processor runs for each event loop;
    waiting for a turn does not count as time of the source. Raises ConfigurationError where the kernel does not
    isolate, in which case nothing is run, and InputError for inputs that are not JSON-able.
    """
    limits = limits or Limits()
    request = _request(code, inputs or {}, limits, preload)
    async with _slot():
        process = _Process(request)
        try:
            return await process.result(limits)
        finally:
            process.end()


async def check_isolation() -> None:
    """Start an isolated process, which tries forbidden system calls. Raises ConfigurationError if one goes through, or
    if there is no such process to be had. A success is remembered."""
    global _isolated  # noqa: PLW0603  # a fact about the machine
    if not _isolated:
        await run_code("")
        _isolated = True


async def isolation_available() -> bool:
    """Whether ``check_isolation`` passes."""
    try:
        await check_isolation()
    except ConfigurationError:
        return False
    return True


def _request(code: str, inputs: Mapping[str, Any], limits: Limits, preload: Sequence[str]) -> bytes:
    machine = this_machine()
    request = {
        "code": code,
        "inputs": inputs,
        "memory": limits.memory_mb << 20,
        "cpu": math.ceil(limits.timeout) + 2,  # the wall clock ends it before, unless this process is stopped
        "output": limits.output,
        "preload": list(preload),
        "filter": filter_program(machine).hex(),
        "forbidden": machine.forbidden,
        "parent": os.getpid(),
        "ready": _READY.decode(),
    }
    try:
        return json.dumps(request).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the inputs of the code are not JSON-able: {error}") from None


def _slot() -> asyncio.Semaphore:
    return _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(os.cpu_count() or 1))


class _Process:
    """One isolated process. Raises ConfigurationError where it cannot be started."""

    def __init__(self, request: bytes) -> None:
        if not sys.executable:
            raise ConfigurationError("generated code needs a Python to run it, and sys.executable is not known here")
        command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-W", "ignore", str(_CHILD)]
        try:
            with os.fdopen(os.memfd_create("request"), "wb+") as file:
                file.write(request)
                file.seek(0)
                self.popen = subprocess.Popen(
                    command,
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,  # closed before the source runs
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            raise ConfigurationError(f"the process for generated code could not be started: {error}") from error
        assert self.popen.stdout is not None  # noqa: S101  # it is a pipe
        self.pipe = self.popen.stdout
        os.set_blocking(self.pipe.fileno(), False)
        self.received = bytearray()

    async def result(self, limits: Limits) -> CodeResult:
        """What came of the source."""
        await self._until_isolated()
        try:
            async with asyncio.timeout(limits.timeout):
                await self._read_until(lambda: len(self.received) > limits.reply_bytes)
        except TimeoutError:
            return _failed("TimeLimit", f"the code did not end within {limits.timeout:g} s")
        if len(self.received) > limits.reply_bytes:
            return _failed("OutputLimit", f"the code's process wrote more than {limits.reply_bytes} bytes")
        return self._reply()

    def end(self) -> None:
        """Kill the process, if it still runs, and whatever is in its group; leave no zombie and no open pipe."""
        if self.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        self.pipe.close()

    async def _until_isolated(self) -> None:
        """Wait until the process has shut itself in. Raises ConfigurationError with what it said instead."""
        try:
            async with asyncio.timeout(_START):
                await self._read_until(lambda: self.received.startswith(_READY) or len(self.received) > _LONGEST_EXCUSE)
        except TimeoutError:
            raise ConfigurationError(f"the process for generated code did not start within {_START:g} s") from None
        if not self.received.startswith(_READY):
            self.end()
            said = shorten(self.received.decode(errors="replace")) or f"it ended with status {self.popen.returncode}"
            raise ConfigurationError(f"generated code cannot be isolated here, so none was run: {said}")
        del self.received[: len(_READY)]

    async def _read_until(self, enough: Callable[[], bool]) -> None:
        """Take in what the process writes until that is enough, or until it has ended."""
        while not enough():
            await _readable(self.pipe.fileno())
            with contextlib.suppress(BlockingIOError):
                part = os.read(self.pipe.fileno(), 1 << 16)
                if not part:
                    return
                self.received += part

    def _reply(self) -> CodeResult:
        try:
            return CodeResult.model_validate_json(bytes(self.received))
        except ValidationError:
            status = self.popen.wait()  # its pipe is closed, which is the last thing before its end
            ended = f"was ended by {_signal_name(-status)}" if status < 0 else "ended without a readable result"
            return _failed("Crash", f"the code's process {ended}")


def _failed(kind: str, message: str) -> CodeResult:
    return CodeResult(failure=CodeFailure(kind=kind, message=message))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
