"""Pickling of jobs and replies with cloudpickle. Secrets are refused, and errors name the object that is the cause."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

from dspynb.data import Prediction
from dspynb.errors import DspynbError, ExecutorError, shorten
from dspynb.events import Event, from_json, plain, to_json
from dspynb.redact import error_text, holds_known
from dspynb.running.reader import RunReader
from dspynb.signatures.signature import Signature, rebuild

if TYPE_CHECKING:
    from dspynb.scope.core import RunPort

__all__ = ["digest", "pack", "pack_reply", "unpack", "unpack_reply"]

_SEARCH_DEPTH = 12
"""How many levels of an object are searched for the part that cannot be pickled."""


@cache
def _pickler() -> type[Any]:
    """The class of the pickler. It is made at the first use, since cloudpickle is installed with Dask only."""
    from cloudpickle import Pickler

    class JobPickler(Pickler):  # type: ignore[misc]
        """Pickles signatures too, and refuses objects that must stay in this process."""

        def reducer_override(self, obj: object) -> Any:
            reason_to_stay = getattr(type(obj), "stays_here", None)  # the text of the error, if it cannot be sent
            if isinstance(reason_to_stay, str):
                raise ExecutorError(reason_to_stay)
            if isinstance(obj, type) and issubclass(obj, Signature):
                if obj.__pydantic_generic_metadata__["origin"] is not None:
                    return NotImplemented  # pickle goes on with copyreg, which knows a parametrised class by its origin
                reduced = super().reducer_override(obj)
                if isinstance(reduced, tuple):  # by value: the worker calls rebuild in place of reduced[0]
                    return rebuild, (reduced[0], reduced[1]), *reduced[2:]
                return reduced
            return super().reducer_override(obj)

    return JobPickler


def pack(value: object, description: str) -> bytes:
    """Pickle a value. ``description``: what it is, for errors.

    Raises ExecutorError, and names the object, if an object in it cannot be pickled or contains a known secret.
    """
    data = _dump(value)
    if isinstance(data, Exception):
        path, cause, error = _find_cause(value, description, data)
        reason = f"{type(error).__name__}: {shorten(error, 300)}"
        if isinstance(error, ExecutorError):
            reason = str(error)
        raise ExecutorError(f"{path} ({_kind(cause)}) cannot travel to another process: {reason}") from None
    if holds_known(data):
        path, _, _ = _find_cause(value, description, None)
        raise ExecutorError(
            f"{path} holds a key that this process knows, and keys are not sent to workers: set it in the worker's own "
            "environment and read it from os.environ where it is used, or pass it to dn.LM, which does not send it"
        )
    return data


def digest(data: bytes) -> str:
    """A hash of bytes, as 32 hex digits."""
    return hashlib.sha256(data).hexdigest()[:32]


def unpack(data: bytes) -> Any:
    """Unpickle a value."""
    return pickle.loads(data)  # noqa: S301  # from the coordinator or a worker of the same cluster, which Dask trusts


def _dump(value: object) -> bytes | Exception:
    """The pickled value, or the error of pickling it."""
    stream = io.BytesIO()
    try:
        _pickler()(stream, protocol=5).dump(value)
    except Exception as error:
        return error
    return stream.getvalue()


# ── the cause of a failure ────────────────────────────────────────────────────────────────────────────────────────────
def _find_cause(
    value: object, path: str, error: Exception | None, depth: int = _SEARCH_DEPTH
) -> tuple[str, Any, Exception | None]:
    """The innermost part of ``value`` that cannot be pickled. If ``error`` is None, the one that contains a secret.

    Returns the path to the part, the part, and its error.
    """
    if depth == 0 or _must_stay(value):
        return path, value, error
    for step, part in _parts_of(value):
        data = _dump(part)
        if isinstance(data, Exception):
            if error is not None:
                return _find_cause(part, path + step, data, depth - 1)
        elif error is None and holds_known(data):
            return _find_cause(part, path + step, None, depth - 1)
    return path, value, error


def _parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value, each with its name as an extension of the path to the value."""
    if isinstance(value, str | bytes | int | float | None | type):
        return
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield f"[{key!r}]", part
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name, None)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif getattr(value, "__code__", None):
        yield from _variables_of(value)
    elif getattr(value, "__self__", None) is not None and callable(value):
        yield ".__self__", value.__self__
    else:
        for name, part in _attributes_of(value).items():
            yield f".{name}", part


def _attributes_of(value: object) -> Mapping[str, Any]:
    """The attributes that pickle sends: those of ``__getstate__`` if it returns a dict."""
    if hasattr(value, "__getstate__"):
        state = value.__getstate__()
        if isinstance(state, dict):
            return state
    attributes: dict[str, Any] = getattr(value, "__dict__", {})
    return attributes


def _variables_of(function: Any) -> Iterator[tuple[str, Any]]:
    """The values that a function takes from outside: closure variables and globals."""
    code = function.__code__
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(code.co_freevars, cells, strict=False):
        yield f"'s variable {name!r}", cell.cell_contents
    global_values = getattr(function, "__globals__", {})
    for name in code.co_names:
        if name in global_values:
            yield f"'s global {name!r}", global_values[name]


def _must_stay(value: object) -> bool:
    return isinstance(getattr(type(value), "stays_here", None), str)


def _kind(value: object) -> str:
    """The type of a value and, of functions and classes, the name."""
    kind = type(value)
    name = getattr(value, "__qualname__", None)
    if name:
        return f"{kind.__name__} {name}"
    return f"{kind.__module__}.{kind.__qualname__}"


# ── replies ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@cache
def _reply_pickler() -> type[Any]:
    class ReplyPickler(_pickler()):  # type: ignore[misc]
        """Pickles predictions with their metadata, events by their index in the reply, and runs by their search.

        ``convert``: whether values of predictions that cannot be pickled are converted as for a run file.
        """

        def __init__(self, stream: BinaryIO, indices: Mapping[int, int], *, convert: bool) -> None:
            super().__init__(stream, protocol=5)
            self._indices = indices
            self._convert = convert

        def persistent_id(self, obj: object) -> tuple[str, int] | None:
            if isinstance(obj, Event):
                index = self._indices.get(id(obj))
                return None if index is None else ("event", index)
            if isinstance(obj, RunReader):
                return "run", obj._search
            return None

        def reducer_override(self, obj: object) -> Any:
            if isinstance(obj, Prediction):
                values = obj.to_dict()
                if self._convert:
                    values = {name: _picklable(value) for name, value in obj.items()}
                return _prediction, (type(obj), values, {name: getattr(obj.meta, name) for name in _META})
            if isinstance(obj, BaseException):
                return _reduce_error(obj)
            return super().reducer_override(obj)

    return ReplyPickler


_META = ("score", "usage", "calls", "run", "logprobs", "truncated", "further_completions")


def _prediction(kind: type[Prediction], values: dict[str, Any], meta: dict[str, Any]) -> Prediction:
    return kind(values).with_meta(**meta)


def _picklable(value: object) -> Any:
    """The value, or if it cannot be pickled, the value as a run file has it."""
    if isinstance(_dump(value), Exception):
        return plain(value)
    return value


def _reduce_error(error: BaseException) -> Any:
    """How to make an error again: an equal one, or if that is impossible, a DspynbError with its text."""
    data = _dump(error)
    try:
        if not isinstance(data, Exception) and type(unpack(data)) is type(error):
            return unpack, (data,)
    except Exception:
        return DspynbError, (error_text(error),)
    return DspynbError, (error_text(error),)


def pack_reply(events: Sequence[Event], result: object) -> bytes:
    """Pickle the events of a job and its result, which may refer to them.

    Raises ExecutorError if the result cannot be pickled.
    """
    events_data = _dump(list(events))
    if isinstance(events_data, Exception):  # then as a run file has them
        events_data = pickle.dumps([to_json(event) for event in events])
    indices = {id(event): index for index, event in enumerate(events)}
    error: Exception | None = None
    for convert in (False, True):
        stream = io.BytesIO()
        try:
            _reply_pickler()(stream, indices, convert=convert).dump(result)
        except Exception as dump_error:
            error = dump_error
        else:
            return pickle.dumps((events_data, stream.getvalue()))
    raise ExecutorError(f"the result cannot be sent back from the worker: {error_text(error) if error else ''}")


class _ReplyUnpickler(pickle.Unpickler):
    """Puts the events and the run of this process in the place of their references."""

    def __init__(
        self, stream: BinaryIO, events: Sequence[Event], run: RunPort | None, translate: Callable[[int], int]
    ) -> None:
        super().__init__(stream)
        self._events = events
        self._run = run
        self._translate = translate

    def persistent_load(self, pid: tuple[str, int]) -> Any:
        kind, number = pid
        if kind == "event":
            return self._events[number]
        if not number or not isinstance(self._run, RunReader):
            return self._run
        return self._run.part(self._translate(number))


def unpack_reply(
    data: bytes, run: RunPort | None, translate: Callable[[int], int], renumber: Callable[[Event], Event]
) -> tuple[list[Event], Any]:
    """Unpickle the events of a job and its result.

    ``run``: the run of this process. ``translate`` returns the number of a span in this process, and ``renumber`` an
    event with such numbers.
    """
    events_data, result_data = unpack(data)
    events = []
    for item in unpack(events_data):
        event = from_json(item) if isinstance(item, dict) else item
        if event is not None:
            events.append(renumber(event))
    return events, _ReplyUnpickler(io.BytesIO(result_data), events, run, translate).load()
