"""Tool: a function that a model may call. Whatever goes wrong in it is something the model is told."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dspynb.adapters.lenient_json import read_json
from dspynb.agents.tools.arguments import Arguments, ArgumentsError
from dspynb.agents.tools.callables import checked_function, described, is_async, module_of, name_of
from dspynb.errors import ConfigurationError, is_control_flow, nearest, shorten
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.exits import is_exit
from dspynb.modules.copying import copy_value
from dspynb.redact import redact_known, redact_values
from dspynb.running.aio.threads import in_thread
from dspynb.scope.core import Layer, current_scope

__all__ = ["Observation", "Tool", "ToolFailed", "named_tools"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LIMIT = 10_000

Caller = Callable[[Mapping[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a tool call came to: ``text`` for the model, whether it went well, the result itself, and seconds taken."""

    text: str
    ok: bool = True
    value: Any = None
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.text


class ToolFailed(Exception):
    """A tool says in its own words that it failed."""


class Tool:
    """A function as a tool: ``observation = await Tool(search)({"query": "…"})``.

    ``fn``: a plain or async function, bound method, ``functools.partial``, callable object or Module. Its type hints
    are the schema of the arguments, its docstring the description, the docstring's parameter section (Google, NumPy or
    reST) theirs. A parameter without annotation takes any JSON value; ``*args`` and what a partial has filled in are
    not offered. ``name`` and ``description`` replace what the function says of itself. ``limit``: characters of a
    result that a model gets to see.

    Plain functions run in a thread of their own, which sees the caller's scope. A call raises only what ends the
    work (a stop, a cancellation): wrong arguments and exceptions become observations.

    Attributes: ``name``, ``description``, ``schema`` (JSON schema of the arguments). Raises ConfigurationError for a
    name that providers refuse, SignatureError for parameters that JSON cannot give.

    >>> def population(city: str) -> int:
    ...     '''How many people live in a city.'''
    ...     return {"Oslo": 700_000}[city]
    >>> tool = dn.Tool(population)
    >>> dn.run_sync(lambda: tool({"city": "Oslo"})).text
    '700000'
    >>> dn.run_sync(lambda: tool({"town": "Oslo"})).ok  # what went wrong is in .text, for the model
    False
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        limit: int = _LIMIT,
    ) -> None:
        checked_function(fn)
        body, told, parameters = described(fn)
        self.fn = fn
        self._options: dict[str, Any] = {"name": name, "description": description, "limit": limit}
        self.name = _checked_name(name_of(fn) if name is None else name)
        self.description = told if description is None else description
        self.limit = limit
        self._arguments: Arguments | None = Arguments(body, f"tool {self.name!r}", parameters)
        self.schema = self._arguments.schema
        self._call: Caller = self._call_function

    @classmethod
    def remote(
        cls, name: str, description: str, schema: Mapping[str, Any], call: Caller, *, limit: int = _LIMIT
    ) -> Tool:
        """A tool that is somewhere else: ``await call(arguments)`` gives its result, and checks the arguments."""
        tool = cls.__new__(cls)
        tool.fn, tool._options, tool._arguments, tool._call = call, {}, None, call
        tool.name, tool.description, tool.limit = _checked_name(name), description, limit
        tool.schema = {"type": "object", "properties": {}, **schema}
        return tool

    def spec(self) -> dict[str, Any]:
        """The tool as providers take it (OpenAI's form)."""
        told = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": told}

    def __str__(self) -> str:
        about = f": {self.description}" if self.description else ""
        return f"{self.name}{about}\n  arguments: {json.dumps(self.schema, ensure_ascii=False)}"

    def __repr__(self) -> str:
        return f"Tool({self.name})"

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """The Module that the tool is, or is a method of: its predictors are the program's too."""
        if (owner := module_of(self.fn)) is not None:
            yield "", owner

    def __deepcopy__(self, memo: dict[int, Any]) -> Tool:
        # A tool is not changed by calls, so it is shared; but a copied program calls its own modules.
        return self if module_of(self.fn) is None else Tool(copy_value(self.fn, memo), **self._options)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._arguments is None:
            raise TypeError(f"{self!r} belongs to a connection and cannot be pickled")
        return _tool, (self.fn, self._options)

    async def __call__(self, arguments: Mapping[str, Any] | str, *, timeout: float | None = None) -> Observation:  # noqa: ASYNC109  # it makes an observation of the time that ran out
        """Call the tool with arguments as a model gives them: a mapping, or its JSON text.

        ``timeout``: seconds it may take; a plain function that takes longer is left behind in its thread.
        """
        scope, span, began = current_scope(), new_span(), time.perf_counter()
        scope.admit(0)  # a stopped run starts nothing
        shown = arguments if isinstance(arguments, Mapping) else {"arguments": arguments}
        scope.emit(
            SpanStarted(span=span, parent=scope.open_span, kind="tool", name=self.name, inputs=redact_values(shown))
        )
        with Layer(f"the call of the tool {self.name}", span=span):
            text, ok, value = await self._observed(arguments, timeout)
        seen = Observation(clipped(redact_known(text), self.limit), ok, value, time.perf_counter() - began)
        ended = {"outputs": {"observation": seen.text}} if ok else {"error": seen.text}
        scope.emit(SpanEnded(span=span, parent=scope.open_span, **ended))
        return seen

    async def _observed(self, arguments: Mapping[str, Any] | str, timeout: float | None) -> tuple[str, bool, Any]:  # noqa: ASYNC109
        """(text, whether it went well, the result)."""
        clock = asyncio.timeout(timeout)
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            async with clock:
                value = await current_scope().in_flight(self._call(_as_mapping(arguments)))
            return as_text(value), True, value
        except ArgumentsError as error:
            return self._wrong_arguments(error), False, None
        except ToolFailed as error:
            return str(error), False, None
        except asyncio.CancelledError:
            current_scope().admit(0)  # RunStopped where it was a stop
            if task is None or task.cancelling() > before:
                raise
            return f"{self.name} failed: something it waited for was cancelled", False, None
        except BaseException as error:
            if is_control_flow(error) or not (isinstance(error, Exception) or is_exit(error)):
                raise
            if clock.expired():
                return f"{self.name} was given up: it took longer than {timeout:g} s", False, None
            return f"{self.name} failed: {_told(error)}", False, None

    def _wrong_arguments(self, error: ArgumentsError) -> str:
        return f"{self.name} was not called: {error}. Its arguments are: {json.dumps(self.schema, ensure_ascii=False)}"

    async def _call_function(self, arguments: Mapping[str, Any]) -> Any:
        assert self._arguments is not None  # noqa: S101  # only a remote tool has none, and another _call
        # A copy: what the tool does to its arguments must not reach the record of the call.
        args, kwargs = self._arguments.check(copy.deepcopy(dict(arguments)))
        if is_async(self.fn):
            return await self.fn(*args, **kwargs)
        result = await in_thread(functools.partial(self.fn, *args, **kwargs), f"dspynb tool {self.name}")
        return await result if inspect.isawaitable(result) else result


def _tool(fn: Callable[..., Any], options: dict[str, Any]) -> Tool:
    return Tool(fn, **options)


def named_tools(tools: Iterable[Any], reserved: Iterable[str] = ()) -> dict[str, Tool]:
    """Name → Tool, from Tools and functions. Raises ConfigurationError for a name that is there twice or reserved."""
    if isinstance(tools, str | Mapping) or not isinstance(tools, Iterable):
        raise ConfigurationError(f"tools must be a list of functions or dn.Tool, got {type(tools).__name__}")
    named: dict[str, Tool] = {}
    for item in tools:
        tool = item if isinstance(item, Tool) else Tool(item)
        if tool.name in named:
            raise ConfigurationError(f"two tools are named {tool.name!r}; give one another: dn.Tool(fn, name='…')")
        if tool.name in reserved:
            raise ConfigurationError(f"the name {tool.name!r} is taken; give the tool another: dn.Tool(fn, name='…')")
        named[tool.name] = tool
    return named


def unknown_tool(name: str, known: Iterable[str]) -> Observation:
    """What a model is told that called a tool which does not exist."""
    return Observation(
        f"There is no tool {shorten(name, 80)!r}.{nearest(name, known)} Tools: {', '.join(known)}", False
    )


def as_text(value: Any) -> str:
    """A result as a model reads it: text as it is, what JSON can say as JSON, all else as its ``repr``."""
    from pydantic_core import to_json

    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):  # a Prediction is one
        value = dict(value)
    if hasattr(value, "__next__"):  # to write an iterator out would use it up, or never end
        return _told(value)
    fallback = _told if isinstance(value, Mapping | list | tuple | set | frozenset) else None
    try:
        return to_json(value, fallback=fallback, inf_nan_mode="constants").decode()
    except Exception:  # of a type that JSON does not know, circular, too deep
        return _told(value)


def clipped(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… [{len(text) - 2 * half} characters left out] …\n{text[len(text) - half :]}"


def _told(value: Any) -> str:
    """An error as ``Type: text``, anything else as its repr; never raises."""
    kind = type(value).__name__
    try:
        return f"{kind}: {value}" if isinstance(value, BaseException) else repr(value)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        return f"<{kind} that cannot be shown>"


def _as_mapping(arguments: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments) if arguments.strip() else {}
        except ValueError as error:
            raise ArgumentsError(f"the arguments are not JSON ({shorten(error, 120)})") from None
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise ArgumentsError(f"the arguments must be a JSON object, got {type(arguments).__name__}")
    return {str(name): value for name, value in arguments.items()}


def _checked_name(name: Any) -> str:
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise ConfigurationError(
        f"a tool cannot be named {name!r}: providers take 1 to 64 letters, digits, _ and -; use dn.Tool(fn, name='…')"
    )
