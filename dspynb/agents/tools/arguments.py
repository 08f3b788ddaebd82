"""The arguments of a function: their JSON schema, and values checked before the function is called."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from dspynb.errors import SignatureError, nearest, shorten

__all__ = ["Arguments", "ArgumentsError"]

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY,)
_GATHERING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ArgumentsError(ValueError):
    """Arguments do not fit; the text says which, and what is expected."""


class _Schema(GenerateJsonSchema):
    """Without titles, which repeat the names, and silent about defaults that JSON cannot write."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # as pydantic declares it

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


class Arguments:
    """The parameters of ``fn`` that a model may give. ``schema`` is their JSON schema.

    A parameter without annotation takes any JSON value. Those that a ``functools.partial`` has filled in, and
    ``*args``, are not offered; with ``**kwargs``, further names are accepted. Raises SignatureError for a parameter
    whose type JSON cannot give.
    """

    def __init__(self, fn: Callable[..., Any], who: str, told: Mapping[str, str]) -> None:
        self._parameters = [p for p in _parameters(fn, who) if p.kind not in _GATHERING]
        gathers = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in _parameters(fn, who))
        hints = _hints(fn, who)
        # Fields are numbered and named by alias: a parameter may bear a name that pydantic keeps for itself.
        fields: dict[str, Any] = {
            f"p{i}": _field(p, hints.get(p.name, Any), told.get(p.name)) for i, p in enumerate(self._parameters)
        }
        config = ConfigDict(
            extra="allow" if gathers else "forbid", arbitrary_types_allowed=True, validate_default=False
        )
        try:
            self._model: type[BaseModel] = create_model("Arguments", __config__=config, **fields)
            schema = self._model.model_json_schema(schema_generator=_Schema)
        except PydanticInvalidForJsonSchema as error:
            raise SignatureError(f"{who}: a parameter has a type that JSON cannot give ({error.message})") from None
        except Exception as error:
            said = shorten(f"{type(error).__name__}: {error}")
            raise SignatureError(f"{who}: its parameters cannot be described ({said})") from error
        self.schema: dict[str, Any] = {k: v for k, v in schema.items() if k != "title"}

    def check(self, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for the function, validated, defaults filled in. Raises ArgumentsError."""
        try:
            model = self._model.model_validate(dict(values))
        except ValidationError as error:
            raise ArgumentsError(self._problems(error)) from None
        args, kwargs = [], dict(model.model_extra or {})
        for i, parameter in enumerate(self._parameters):
            value = getattr(model, f"p{i}")
            if parameter.kind in _BY_POSITION:
                args.append(value)
            else:
                kwargs[parameter.name] = value
        return args, kwargs

    def _problems(self, error: ValidationError) -> str:
        known = [p.name for p in self._parameters]
        problems = []
        for item in error.errors(include_url=False, include_context=False):
            name = ".".join(map(str, item["loc"]))
            if item["type"] == "missing":
                problems.append(f"{name!r} is missing")
            elif item["type"] == "extra_forbidden":
                problems.append(f"there is no argument {name!r}{nearest(name, known)}".rstrip("."))
            else:
                problems.append(f"{name!r}: {item['msg']}, got {shorten(repr(item['input']), 80)}")
        return "; ".join(problems[:10])


def _parameters(fn: Callable[..., Any], who: str) -> list[inspect.Parameter]:
    try:
        found = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        raise SignatureError(f"{who}: Python does not know its parameters; wrap it in a function of your own") from None
    filled = set(fn.keywords) if isinstance(fn, functools.partial) else set()
    return [p for p in found if p.name not in filled]


def _hints(fn: Callable[..., Any], who: str) -> dict[str, Any]:
    """Parameter name → annotation, resolved. What the function returns does not matter here."""
    target: Any = fn.func if isinstance(fn, functools.partial) else fn
    if not inspect.isroutine(target):
        target = type(target).__call__
    target = inspect.unwrap(getattr(target, "__func__", target))

    def holder() -> None: ...

    annotations = getattr(target, "__annotations__", None) or {}
    holder.__annotations__ = {name: value for name, value in annotations.items() if name != "return"}
    try:
        return typing.get_type_hints(holder, getattr(target, "__globals__", None), include_extras=True)
    except NameError as error:
        raise SignatureError(f"{who}: an annotation cannot be resolved ({error})") from None


def _field(parameter: inspect.Parameter, annotation: Any, told: str | None) -> Any:
    default = ... if parameter.default is inspect.Parameter.empty else parameter.default
    if annotation is Any:
        told = f"{told} (any JSON value)" if told else "any JSON value"
    # Annotated by the user, a description of theirs stands; the docstring's does not replace it.
    described = Field(alias=parameter.name, description=told) if told else Field(alias=parameter.name)
    if told and any(getattr(extra, "description", None) for extra in getattr(annotation, "__metadata__", ())):
        described = Field(alias=parameter.name)
    return Annotated[annotation, described], default
