"""Tool: a function that a model may call. Errors become observations for the model."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import json
import re
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dspynb.adapters.lenient_json import read_json
from dspynb.agents.tools.arguments import Arguments, ArgumentsError
from dspynb.agents.tools.callables import check_callable, describe_callable, is_async, module_of, name_of
from dspynb.errors import ConfigurationError, is_control_flow, nearest, shorten
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.exits import is_exit
from dspynb.media.values import Medium
from dspynb.modules.copying import copy_value
from dspynb.redact import redact_known, redact_values
from dspynb.running.aio.threads import in_thread
from dspynb.scope.core import Layer, current_scope
from dspynb.whole_text import whole_text

__all__ = ["Observation", "Tool", "ToolFailed", "named_tools", "unknown_tool"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LIMIT = 10_000

Caller = Callable[[Mapping[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Observation:
    """The outcome of a tool call: the text for the model, whether it succeeded, the result, and its time in seconds."""

    text: str
    ok: bool = True
    value: Any = None
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.text


class ToolFailed(Exception):
    """A tool failed. The text is the observation."""


class Tool:
    """A function that a model may call: ``observation = await Tool(search)({"query": "…"})``.

    Plain functions run in a thread of their own, which sees the caller's scope. A call raises only what ends the work
    (a stop, a cancellation); wrong arguments and other exceptions become observations.

    Args:
        fn: A plain or async function, bound method, ``functools.partial``, callable object or Module. The schema of the
            arguments is made of its type hints, and the descriptions of its docstring (Google, NumPy or reST style). A
            parameter without annotation takes any JSON value. ``*args``, and what a partial has filled in, are left
            out.
        name: Replaces the name of the function.
        description: Replaces the description in the docstring.
        limit: Longest observation, in characters. The middle of a longer result is left out.

    Attributes: ``name``, ``description``, ``schema`` (JSON schema of the arguments).

    Raises:
        ConfigurationError: ``fn`` cannot be a tool, or providers do not accept the name.
        SignatureError: The type of a parameter has no JSON schema.

    >>> def population(city: str) -> int:
    ...     '''How many people live in a city.'''
    ...     return {"Oslo": 700_000}[city]
    >>> tool = dn.Tool(population)
    >>> dn.run_sync(lambda: tool({"city": "Oslo"})).text
    '700000'
    >>> dn.run_sync(lambda: tool({"town": "Oslo"})).ok  # the error for the model is in .text
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
        check_callable(fn)
        function, docstring, parameters = describe_callable(fn)
        self.fn = fn
        self._options: dict[str, Any] = {"name": name, "description": description, "limit": limit}
        self.name = _checked_name(name_of(fn) if name is None else name)
        self.description = docstring if description is None else description
        self.limit = limit
        self._arguments: Arguments | None = Arguments(function, f"tool {self.name!r}", parameters)
        self.schema = self._arguments.schema
        self._call: Caller = self._call_function
        self._warned_of_media = False

    @classmethod
    def remote(
        cls, name: str, description: str, schema: Mapping[str, Any], call: Caller, *, limit: int = _LIMIT
    ) -> Tool:
        """Create a tool that runs elsewhere. ``await call(arguments)`` checks the arguments and returns the result."""
        tool = cls.__new__(cls)
        tool.fn = call
        tool._options = {}
        tool._arguments = None
        tool._call = call
        tool.name = _checked_name(name)
        tool.description = description
        tool.limit = limit
        tool._warned_of_media = False
        tool.schema = {"type": "object", "properties": {}, **schema}
        return tool

    def spec(self) -> dict[str, Any]:
        """Return the description of the tool in OpenAI's format."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}

    def __str__(self) -> str:
        heading = f"{self.name}: {self.description}" if self.description else self.name
        return f"{heading}\n  arguments: {json.dumps(self.schema, ensure_ascii=False)}"

    def __repr__(self) -> str:
        return f"Tool({self.name})"

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """Yield the Module that the tool is or belongs to: its predictors are part of the program."""
        module = module_of(self.fn)
        if module is not None:
            yield "", module

    def __deepcopy__(self, memo: dict[int, Any]) -> Tool:
        if module_of(self.fn) is None:
            return self  # calls do not change a tool, so copies share it
        return Tool(copy_value(self.fn, memo), **self._options)  # a copied program calls its own modules

    def __reduce__(self) -> tuple[Any, ...]:
        if self._arguments is None:
            raise TypeError(f"{self!r} belongs to a connection and cannot be pickled")
        return _unpickle, (self.fn, self._options)

    async def __call__(self, arguments: Mapping[str, Any] | str, *, timeout: float | None = None) -> Observation:  # noqa: ASYNC109  # a timeout becomes an observation
        """Call the tool with arguments from a model: a mapping, or its JSON text.

        ``timeout``: most seconds of the call. A plain function that takes longer is abandoned in its thread.
        """
        scope = current_scope()
        span = new_span()
        start = time.perf_counter()
        scope.admit(0)  # a stopped run starts nothing
        inputs = arguments if isinstance(arguments, Mapping) else {"arguments": arguments}
        scope.emit(
            SpanStarted(span=span, parent=scope.open_span, kind="tool", name=self.name, inputs=redact_values(inputs))
        )
        with Layer(f"the call of the tool {self.name}", span=span):
            text, ok, value = await self._outcome(arguments, timeout)
        text = clipped(redact_known(text), self.limit)
        observation = Observation(text, ok, value, time.perf_counter() - start)
        outcome = {"outputs": {"observation": text}} if ok else {"error": text}
        scope.emit(SpanEnded(span=span, parent=scope.open_span, **outcome))
        return observation

    async def _outcome(self, arguments: Mapping[str, Any] | str, timeout: float | None) -> tuple[str, bool, Any]:  # noqa: ASYNC109
        """Call the function. Return (text, whether it succeeded, the result)."""
        clock = asyncio.timeout(timeout)
        task = asyncio.current_task()
        cancellations_before = task.cancelling() if task else 0
        try:
            async with clock:
                value = await current_scope().in_flight(self._call(_as_mapping(arguments)))
            self._warn_of_media(value)
            return as_text(value), True, value
        except ArgumentsError as error:
            return self._wrong_arguments(error), False, None
        except ToolFailed as error:
            return str(error), False, None
        except asyncio.CancelledError:
            current_scope().admit(0)  # raises RunStopped if the run was stopped
            if task is None or task.cancelling() > cancellations_before:
                raise
            return f"{self.name} failed: something it waited for was cancelled", False, None
        except BaseException as error:
            is_observable = isinstance(error, Exception) or is_exit(error)
            if is_control_flow(error) or not is_observable:
                raise
            if clock.expired():
                return f"{self.name} was given up: it took longer than {timeout:g} s", False, None
            return f"{self.name} failed: {_safe_text(error)}", False, None

    def _warn_of_media(self, value: object) -> None:
        """Warn once of a tool that returns an Image or File, which an observation cannot hold."""
        if isinstance(value, Medium) and not self._warned_of_media:
            self._warned_of_media = True
            warnings.warn(
                f"the tool {self.name} returned {type(value).__name__}: the model sees its description only, since an "
                "observation is text. Return what is to be known of it as text",
                stacklevel=2,
            )

    def _wrong_arguments(self, error: ArgumentsError) -> str:
        return f"{self.name} was not called: {error}. Its arguments are: {json.dumps(self.schema, ensure_ascii=False)}"

    async def _call_function(self, arguments: Mapping[str, Any]) -> Any:
        assert self._arguments is not None  # noqa: S101  # only a remote tool has none, and it has another _call
        # A copy, so that a tool that changes its arguments does not change the record of the call.
        args, kwargs = self._arguments.check(copy.deepcopy(dict(arguments)))
        if is_async(self.fn):
            return await self.fn(*args, **kwargs)
        result = await in_thread(functools.partial(self.fn, *args, **kwargs), f"dspynb tool {self.name}")
        return await result if inspect.isawaitable(result) else result


def _unpickle(fn: Callable[..., Any], options: dict[str, Any]) -> Tool:
    return Tool(fn, **options)


def named_tools(tools: Iterable[Any], reserved: Iterable[str] = ()) -> dict[str, Tool]:
    """Return the tools by name. Raises ConfigurationError for a name that is used twice or reserved."""
    if isinstance(tools, str | Mapping) or not isinstance(tools, Iterable):
        raise ConfigurationError(f"tools must be a list of functions or dn.Tool, got {type(tools).__name__}")
    tools_by_name: dict[str, Tool] = {}
    for item in tools:
        tool = item if isinstance(item, Tool) else Tool(item)
        if tool.name in tools_by_name:
            raise ConfigurationError(f"two tools are named {tool.name!r}; rename one: dn.Tool(fn, name='…')")
        if tool.name in reserved:
            raise ConfigurationError(f"the name {tool.name!r} is reserved; rename the tool: dn.Tool(fn, name='…')")
        tools_by_name[tool.name] = tool
    return tools_by_name


def unknown_tool(name: str, known: Iterable[str]) -> Observation:
    """Return the observation for a call of a tool that does not exist."""
    text = f"There is no tool {shorten(name, 80)!r}.{nearest(name, known)} Tools: {', '.join(known)}"
    return Observation(text, ok=False)


def as_text(value: object) -> str:
    """Return a result as the model sees it: text unchanged, JSON where possible, everything else as its ``repr``."""
    from pydantic_core import to_json

    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):  # such as a Prediction
        value = dict(value)
    if hasattr(value, "__next__"):  # an iterator would be used up, or never end
        return _safe_text(value)
    fallback = _safe_text if isinstance(value, Mapping | list | tuple | set | frozenset) else None
    try:
        return to_json(value, fallback=fallback, inf_nan_mode="constants").decode()
    except Exception:  # a type that JSON does not know, a cycle, or too deep
        return _safe_text(value)


def clipped(text: str, limit: int) -> str:
    """Leave out the middle of a text that is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… [{len(text) - 2 * half} characters left out] …\n{text[len(text) - half :]}"


def _safe_text(value: object) -> str:
    """Return an error as ``Type: text`` and other values as their repr, without raising their errors."""
    kind = type(value).__name__
    try:
        return f"{kind}: {value}" if isinstance(value, BaseException) else _whole_repr(value)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        return f"<{kind} that cannot be shown>"


def _whole_repr(value: object) -> str:
    """``repr(value)``; of tables and arrays, whose repr leaves out the middle, the whole text."""
    is_table_or_array = getattr(value, "ndim", None) or hasattr(value, "write_csv")
    return whole_text(value) if is_table_or_array else repr(value)


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


def _checked_name(name: object) -> str:
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise ConfigurationError(
        f"a tool cannot be named {name!r}: providers take 1 to 64 letters, digits, _ and -; use dn.Tool(fn, name='…')"
    )
