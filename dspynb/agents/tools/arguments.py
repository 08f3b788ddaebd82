"""The arguments of a tool: their JSON schema, and the check of their values before the function is called."""

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
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ArgumentsError(ValueError):
    """Arguments do not fit the schema. The text says which ones, and what is expected."""


class _Schema(GenerateJsonSchema):
    """Leaves out titles, which repeat the names, and defaults that JSON cannot represent, without a warning."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # as pydantic declares it

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        return False


class Arguments:
    """The parameters of ``fn`` that a model may fill in. ``schema`` is their JSON schema.

    A parameter without annotation takes any JSON value. Parameters that a ``functools.partial`` has filled in, and
    ``*args``, are left out. With ``**kwargs``, additional names are accepted.

    Args:
        fn: The function.
        who: The name of the tool, for error texts.
        descriptions: The descriptions of parameters by name.

    Raises:
        SignatureError: The type of a parameter has no JSON schema.
    """

    def __init__(self, fn: Callable[..., Any], who: str, descriptions: Mapping[str, str]) -> None:
        parameters = _parameters(fn, who)
        self._parameters = [p for p in parameters if p.kind not in _VARIADIC]
        has_kwargs = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        hints = _hints(fn, who)
        # Fields are numbered and named by alias, since pydantic reserves some names that a parameter may have.
        fields: dict[str, Any] = {}
        for i, parameter in enumerate(self._parameters):
            name = parameter.name
            fields[f"p{i}"] = _field(parameter, hints.get(name, Any), descriptions.get(name))
        config = ConfigDict(
            extra="allow" if has_kwargs else "forbid", arbitrary_types_allowed=True, validate_default=False
        )
        try:
            self._model: type[BaseModel] = create_model("Arguments", __config__=config, **fields)
            schema = self._model.model_json_schema(schema_generator=_Schema)
        except PydanticInvalidForJsonSchema as error:
            raise SignatureError(f"{who}: a parameter has a type without a JSON schema ({error.message})") from None
        except Exception as error:
            problem = shorten(f"{type(error).__name__}: {error}")
            raise SignatureError(f"{who}: its parameters cannot be described ({problem})") from error
        self.schema: dict[str, Any] = {key: value for key, value in schema.items() if key != "title"}

    def check(self, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Validate the values and add defaults. Return positional and keyword arguments. Raises ArgumentsError."""
        try:
            model = self._model.model_validate(dict(values))
        except ValidationError as error:
            raise ArgumentsError(self._problems(error)) from None
        args = []
        kwargs = dict(model.model_extra or {})
        for i, parameter in enumerate(self._parameters):
            value = getattr(model, f"p{i}")
            if parameter.kind in _BY_POSITION:
                args.append(value)
            else:
                kwargs[parameter.name] = value
        return args, kwargs

    def _problems(self, error: ValidationError) -> str:
        names = [parameter.name for parameter in self._parameters]
        problems = []
        for item in error.errors(include_url=False, include_context=False):
            name = ".".join(map(str, item["loc"]))
            if item["type"] == "missing":
                problems.append(f"{name!r} is missing")
            elif item["type"] == "extra_forbidden":
                problems.append(f"there is no argument {name!r}{nearest(name, names)}".rstrip("."))
            else:
                problems.append(f"{name!r}: {item['msg']}, got {shorten(repr(item['input']), 80)}")
        return "; ".join(problems[:10])


def _parameters(fn: Callable[..., Any], who: str) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        raise SignatureError(f"{who}: its parameters are unknown to Python; wrap it in your own function") from None
    if not isinstance(fn, functools.partial):
        return list(parameters)
    return [parameter for parameter in parameters if parameter.name not in fn.keywords]


def _hints(fn: Callable[..., Any], who: str) -> dict[str, Any]:
    """Return the resolved annotations of the parameters by name. The annotation of the return value is ignored."""
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


def _field(parameter: inspect.Parameter, annotation: object, description: str | None) -> Any:
    """Return the (annotation, default) of a parameter for ``create_model``."""
    default = ... if parameter.default is inspect.Parameter.empty else parameter.default
    if annotation is Any:
        description = f"{description} (any JSON value)" if description else "any JSON value"
    # A description in the annotation takes precedence over that of the docstring.
    metadata = getattr(annotation, "__metadata__", ())
    if description and not any(getattr(item, "description", None) for item in metadata):
        field = Field(alias=parameter.name, description=description)
    else:
        field = Field(alias=parameter.name)
    return Annotated[annotation, field], default
