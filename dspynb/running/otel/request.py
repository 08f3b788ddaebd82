"""The settings of a request as attributes of a span."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["output_type", "request_attributes"]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _integer(value: Any) -> int | None:
    number = _number(value)
    if number is None or abs(number) >= 2**63 or not number.is_integer():  # the protocol has integers of 64 bits
        return None
    return int(value)


def _texts(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(text, str) for text in value):
        return tuple(value)
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _several(value: Any) -> int | None:
    """A number of choices; None for 1, which the conventions leave out."""
    count = _integer(value)
    return None if count == 1 else count


_Conversion = Callable[[Any], Any]
_ATTRIBUTES: Mapping[str, tuple[tuple[str, ...], _Conversion]] = {
    "gen_ai.request.temperature": (("temperature",), _number),
    "gen_ai.request.top_p": (("top_p",), _number),
    "gen_ai.request.top_k": (("top_k",), _integer),
    "gen_ai.request.max_tokens": (
        ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict"),
        _integer,
    ),
    "gen_ai.request.seed": (("seed",), _integer),
    "gen_ai.request.stop_sequences": (("stop", "stop_sequences"), _texts),
    "gen_ai.request.choice.count": (("n",), _several),
    "gen_ai.request.frequency_penalty": (("frequency_penalty",), _number),
    "gen_ai.request.presence_penalty": (("presence_penalty",), _number),
    "gen_ai.request.reasoning.level": (("effort", "reasoning_effort"), _text),
}
"""Attribute → the settings that hold its value, and the conversion to its type."""
_BY_SETTING = {
    setting: (name, conversion) for name, (settings, conversion) in _ATTRIBUTES.items() for setting in settings
}


def request_attributes(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a request's settings. Settings of another type than the attribute are left out."""
    for setting, value in settings.items():
        if value is None or setting not in _BY_SETTING:
            continue
        name, conversion = _BY_SETTING[setting]
        converted = conversion(value)
        if converted is not None:
            yield name, converted


def output_type(settings: Mapping[str, Any], response_format: object) -> str | None:
    """The kind of output that a request asks for: ``json``, ``text``, ``speech`` or ``image``. None if it names
    none."""
    modalities = settings.get("modalities")
    if isinstance(modalities, list | tuple):
        if "audio" in modalities:
            return "speech"
        if "image" in modalities:
            return "image"
    if response_format is not None:
        return "json"
    setting = settings.get("response_format")
    if isinstance(setting, Mapping):
        return "text" if setting.get("type") == "text" else "json"
    return None
