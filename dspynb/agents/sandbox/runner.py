"""Starts the isolated process, enforces its limits, and reads its reply."""

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
"""The line that the process writes once it is isolated. Output before it is trusted; output after it is not."""
_START_TIMEOUT = 30.0
"""Seconds for starting the process. They do not count towards the time limit of the source."""
_MAX_START_ERROR = 10_000
"""Bytes of an error that the process may write before it is isolated."""
_CHILD = Path(__file__).with_name("child.py")
_isolated = False
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


CodeTimeout: TypeAlias = Annotated[float, Number(above=0, most=1e6, unit="seconds")]
Memory: TypeAlias = Annotated[int, Whole(64, 2**20)]
OutputLimit: TypeAlias = Annotated[int, Whole(1, 10**8)]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a run: time in seconds, address space in megabytes, and longest output in characters.

    Python itself takes 25 megabytes. The output limit applies to the printed text and to the value separately. Raises
    ConfigurationError for a limit that is out of range.
    """

    timeout: CodeTimeout = 5.0
    memory_mb: Memory = 256
    output: OutputLimit = 10_000

    @property
    def reply_bytes(self) -> int:
        """Bytes of the longest valid reply: two texts with at most six bytes for a character in JSON, and the rest."""
        return 12 * self.output + 100_000


Limits.__init__ = configurable()(Limits.__init__)  # type: ignore[method-assign]


class CodeFailure(BaseModel):
    """The failure of a run.

    Attributes:
        kind: The class of the exception, or ``TimeLimit``, ``OutputLimit`` or ``Crash``.
        message: The text of the exception.
        line: The line of the source, or None if unknown. It can be unknown after a MemoryError.
        where: The last lines of the traceback that belong to the source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str
    message: str
    line: int | None = None
    where: str = ""

    def __str__(self) -> str:
        text = f"{self.kind}: {self.message}"
        return f"{text}\n{self.where}" if self.where else text


class CodeResult(BaseModel):
    """The result of a run. The source can set all of it freely, so none of it is trusted.

    Attributes:
        printed: The printed text.
        value: The value passed to ``final_answer``, or that of the last expression, as JSON or else as its repr. None
            if there is none.
        failure: The failure, or None if the source succeeded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    printed: str = ""
    value: str | None = None
    failure: CodeFailure | None = None


async def run_code(
    code: str, inputs: Mapping[str, Any] | None = None, limits: Limits | None = None, *, preload: Sequence[str] = ()
) -> CodeResult:
    """Run Python source in an isolated process of its own.

    Cancelling the call kills the process at once. In each event loop, at most as many processes as processors run at
    the same time; waiting for one of them does not count towards the time limit.

    Args:
        code: The source.
        inputs: JSON-able values by name, which become variables of the source.
        limits: Limits of time, memory and output. None: the defaults of `Limits`.
        preload: Modules of the standard library that the source may import beside the usual ones.

    Raises:
        ConfigurationError: The kernel cannot isolate a process. Nothing is run then.
        InputError: The inputs are not JSON-able.
    """
    if limits is None:
        limits = Limits()
    request = _request(code, inputs or {}, limits, preload)
    async with _slot():
        process = _Process(request)
        try:
            return await process.result(limits)
        finally:
            process.end()


async def check_isolation() -> None:
    """Start an isolated process, which tries forbidden system calls. A success is remembered.

    Raises ConfigurationError if the process cannot be started, or if the kernel does not refuse a forbidden call.
    """
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
        "cpu": math.ceil(limits.timeout) + 2,  # in case this process, which watches the time, is suspended
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
    """One isolated process. Raises ConfigurationError if it cannot be started."""

    def __init__(self, request: bytes) -> None:
        if not sys.executable:
            raise ConfigurationError("generated code needs a Python interpreter, but sys.executable is not known here")
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
        """Wait for the result of the source, within its limits."""
        await self._until_isolated()
        try:
            async with asyncio.timeout(limits.timeout):
                await self._read_until(lambda: len(self.received) > limits.reply_bytes)
        except TimeoutError:
            return _failure("TimeLimit", f"the code did not end within {limits.timeout:g} s")
        if len(self.received) > limits.reply_bytes:
            return _failure("OutputLimit", f"the code's process wrote more than {limits.reply_bytes} bytes")
        return self._reply()

    def end(self) -> None:
        """Kill the process and its group if it still runs. Leaves no zombie and no open pipe."""
        if self.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        self.pipe.close()

    async def _until_isolated(self) -> None:
        """Wait until the process is isolated. Raises ConfigurationError with its output if it fails."""
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._read_until(self._has_started)
        except TimeoutError:
            problem = f"did not start within {_START_TIMEOUT:g} s"
            raise ConfigurationError(f"the process for generated code {problem}") from None
        if not self.received.startswith(_READY):
            self.end()
            output = shorten(self.received.decode(errors="replace"))
            reason = output or f"it ended with status {self.popen.returncode}"
            raise ConfigurationError(f"generated code cannot be isolated here, so none was run: {reason}")
        del self.received[: len(_READY)]

    def _has_started(self) -> bool:
        return self.received.startswith(_READY) or len(self.received) > _MAX_START_ERROR

    async def _read_until(self, is_enough: Callable[[], bool]) -> None:
        """Read the output of the process until ``is_enough()`` is true or the process ends."""
        while not is_enough():
            await _readable(self.pipe.fileno())
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(self.pipe.fileno(), 1 << 16)
                if not chunk:
                    return
                self.received += chunk

    def _reply(self) -> CodeResult:
        try:
            return CodeResult.model_validate_json(bytes(self.received))
        except ValidationError:
            status = self.popen.wait()  # does not block long: the pipe is closed, so the process is about to end
            ending = "ended without a readable result"
            if status < 0:
                ending = f"was ended by {_signal_name(-status)}"
            return _failure("Crash", f"the code's process {ending}")


def _failure(kind: str, message: str) -> CodeResult:
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
