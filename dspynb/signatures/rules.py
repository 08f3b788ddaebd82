"""Field validators of a signature class. They are read once, and then belong to the fields, like constraints."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator, WrapValidator
from pydantic_core import PydanticOmit, PydanticUseDefault

from dspynb.errors import SignatureError
from dspynb.exits import exit_text, is_exit

if TYPE_CHECKING:
    from dspynb.signatures.signature import Signature

__all__ = ["FieldValidator", "validators_of"]

_MODES = {"before": BeforeValidator, "after": AfterValidator, "plain": PlainValidator, "wrap": WrapValidator}


@dataclass(frozen=True)
class FieldValidator:
    """A user's validator. Any exception becomes a ValueError, so that it is reported like any other invalid value."""

    function: Callable[..., Any]

    @property
    def __wrapped__(self) -> Callable[..., Any]:  # pydantic counts the parameters of the function itself
        return self.function

    def __call__(self, *args: Any) -> Any:
        name = getattr(self.function, "__name__", "a validator")
        try:
            return self.function(*args)
        except (ValueError, AssertionError, PydanticOmit, PydanticUseDefault):
            raise
        except Exception as error:
            raise ValueError(f"{name} raised {type(error).__name__}: {error}") from error
        except BaseException as error:
            if not is_exit(error):
                raise
            raise ValueError(f"{name} {exit_text(error)}") from error


def validators_of(cls: type[Signature], kinds: dict[str, str]) -> dict[str, list[Any]]:
    """Return the validators of each field, in the order of their definition. ``kinds``: field name → input or output.

    Raises SignatureError for validators that need more than one field, since outputs are validated one by one.
    """
    decorators = cls.__pydantic_decorators__
    for unsupported in (decorators.model_validators, decorators.root_validators, decorators.validators):
        for name in unsupported:
            raise SignatureError(f"{cls.__name__}.{name}: a signature takes @field_validator only; check each field")
    validators: dict[str, list[Any]] = {name: [] for name in kinds}
    for decorator in decorators.field_validators.values():
        names = kinds if "*" in decorator.info.fields else decorator.info.fields
        for name in names:
            if name in validators:
                _check_parameters(cls, decorator, name, kinds[name])
                validators[name].append(_MODES[decorator.info.mode](FieldValidator(decorator.func)))
    return validators


def _check_parameters(cls: type[Signature], decorator: Any, field: str, kind: str) -> None:
    if kind != "output":
        return
    max_parameters = 2 if decorator.info.mode == "wrap" else 1
    if _count_positional(inspect.signature(decorator.func).parameters.values()) > max_parameters:
        raise SignatureError(
            f"{cls.__name__}.{decorator.cls_var_name}: {field!r} is an output, which is validated by itself; write the "
            "validator as (cls, value), without ValidationInfo"
        )


def _count_positional(parameters: Iterable[inspect.Parameter]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)
