"""Settings: process-wide defaults set by ``configure``, and ``context`` blocks that replace them."""

from __future__ import annotations

import threading
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypedDict, Unpack, get_args

from dspynb.errors import ConfigurationError, of_dspy
from dspynb.keywords import configurable
from dspynb.options import Bool, Check, NonNegativeInt, PositiveInt
from dspynb.pricing.price_list import as_price_list
from dspynb.redact import redact
from dspynb.scope.call_context import UNSET, Settings
from dspynb.scope.core import Block, Layer, Scope, current_scope

__all__ = ["configure", "context", "model_name", "setting", "settings_in_force"]

Track: TypeAlias = Literal["otel"]
View: TypeAlias = Literal["auto", "widget", "html", "text", "off"]


def model_name(value: object, *, has_address: bool = False) -> str:
    """Check the name of a provider's model and return it. Raises ConfigurationError for anything else.

    ``has_address``: whether the address of the server is known, so that the name needs no provider.
    """
    if isinstance(value, str):
        is_server_name = has_address and bool(value.strip()) and not value.endswith("/")
        if is_server_name or all(value.partition("/")):
            return value
    advice = ""
    if isinstance(value, str) and value:
        advice = ". For a server of your own, give its address too: dn.LM('my-model', api_base='http://…/v1')"
    text = redact(repr(value))
    raise ConfigurationError(f"a model is named 'provider/model', as in 'openai/gpt-4.1-mini'; got {text}{advice}")


def _lm(value: object) -> Any:
    if isinstance(value, str):
        return model_name(value)
    if value is None or callable(getattr(value, "complete", None)):
        return value
    raise ConfigurationError(
        f"lm must be 'provider/model', dn.LocalLM() or an object with `async complete(request)`, "
        f"got {type(value).__name__}.{of_dspy(value)}"
    )


def _adapter(value: object) -> Any:
    if value is None or isinstance(value, str) or callable(getattr(value, "format", None)):
        return value
    raise ConfigurationError(f"adapter must be 'chat', 'json', 'prefill' or an adapter, got {type(value).__name__}")


def _folder(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str | Path):
        return str(value)
    raise ConfigurationError(f"runs_dir must be a path, or None to keep no files, got {type(value).__name__}")


def _track(value: object) -> str | None:
    if value is None:
        return None
    if value not in get_args(Track):
        known = " or ".join(map(repr, get_args(Track)))
        raise ConfigurationError(f"track must be {known}, or None to track no runs, got {redact(repr(value))}")
    if not _has_opentelemetry():
        raise ConfigurationError('track="otel" needs OpenTelemetry: pip install "dspynb[otel]"')
    return str(value)


def _has_opentelemetry() -> bool:
    """Whether OpenTelemetry's API is installed. Does not import it."""
    try:
        return find_spec("opentelemetry.trace") is not None
    except ImportError:
        return False


class SettingArguments(TypedDict, total=False):
    """The keyword arguments of ``configure`` and ``context``: the fields of ``Settings``, each optional."""

    lm: Annotated[Any, Check(_lm, "'provider/model', dn.LocalLM() or an object with `async complete(request)`")]
    """The model of predictors that have none."""
    adapter: Annotated[Any, Check(_adapter, "'chat', 'json', 'prefill' or an adapter")]
    """The adapter, which writes prompts and reads replies, where neither predictor nor model has one."""
    cache: Bool
    """Whether models look up replies in the cache and store theirs in it."""
    concurrency: PositiveInt
    """How many rows and rollouts run at the same time."""
    view: View
    """How runs are shown."""
    runs_dir: Annotated[str | Path | None, Check(_folder, "a path, or None")]
    """The folder of run files; None writes none."""
    history: NonNegativeInt
    """How many calls ``dn.history`` remembers."""
    track: Annotated[Track | None, Check(_track, "'otel', or None")]
    """The system that receives runs while they run; None for none."""
    prices: Annotated[Any, Check(as_price_list, "the path of a price file, a dict of prices, or None")]
    """Prices of models by their names, in place of those of litellm's map."""


_DEFAULTS = Settings(
    lm=None,
    adapter=None,
    cache=True,
    concurrency=32,
    view="auto",
    runs_dir=".dspynb/runs",
    history=1000,
    track=None,
    prices=None,
)
_process = _DEFAULTS
_lock = threading.Lock()


_OTHERWISE = f"Settings: {', '.join(Settings.__annotations__)}"


@configurable(passes_to=SettingArguments, otherwise=_OTHERWISE)
def configure(**settings: Unpack[SettingArguments]) -> None:
    """Set process-wide defaults: ``lm``, ``adapter``, ``cache``, ``concurrency``, ``view``, ``runs_dir``, ``history``,
    ``track``, ``prices``.

    ``view``: how runs are shown. ``widget``: live, in a notebook; ``html``: in a notebook, when the run has ended;
    ``text``: in a terminal one line that is updated and a table at the end, elsewhere plain lines on stderr; ``off``:
    not at all. ``auto``: the widget in a notebook, text in a terminal, plain lines if stderr is a file (for batches,
    evaluations and optimizers, not for single calls), nothing under pytest or where ``CI`` is set.

    ``track``: ``otel`` sends the spans of runs, and of direct calls of models, to OpenTelemetry while they run, through
    the process-wide tracer provider (see docs/opentelemetry.md). Prompts and replies are sent only if the environment
    variable ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is ``true``. Needs the extra ``otel``.

    ``prices``: the path of a JSON file with prices of models, or a dict of them. They replace those of litellm's map,
    for the models that it names (see docs/models.md). A file is read when the setting is made. None, the default, for
    the file whose path the environment variable ``DSPYNB_PRICES`` has, and ``{}`` for litellm's map alone.

    May be called from any thread, task or cell, any number of times. Settings that are not named stay as they are.
    Raises ConfigurationError, which names the nearest setting, and then changes nothing.

    >>> dn.configure(lm=dn.ScriptedLM(["answer: 4"]), concurrency=16)
    >>> dn.Predict("question -> answer").run_sync(question="2+2?").answer
    '4'
    """
    global _process  # noqa: PLW0603  # the one process-wide value, replaced as a whole
    with _lock:
        _process = replace(_process, **settings)


class context(Block):  # noqa: N801  # used as a verb: with dn.context(lm=...)
    """``with context(lm=..., ...)``: settings for the block, and for tasks that are awaited or started in it.

    Takes the settings of ``configure``. Raises ConfigurationError for a wrong name or value.

    >>> ask = dn.Predict("question -> answer")
    >>> with dn.context(lm=dn.ScriptedLM(["answer: 4"])):
    ...     ask.run_sync(question="2+2?").answer
    '4'
    """

    __slots__ = ("_settings",)

    @configurable(passes_to=SettingArguments, otherwise=_OTHERWISE)
    def __init__(self, **settings: Unpack[SettingArguments]) -> None:
        super().__init__()
        self._settings = settings

    def _layer(self) -> Layer:
        return Layer(None, settings=replace(current_scope().settings, **self._settings))


def setting(name: str, scope: Scope | None = None) -> Any:
    """The value of a setting in force: that of the innermost ``context`` block, else the process-wide one."""
    value = getattr((scope or current_scope()).settings, name)
    if value is UNSET:
        return getattr(_process, name)
    return value


def settings_in_force(scope: Scope) -> Settings:
    """All settings in force in a scope. None of the values is UNSET."""
    return Settings(**{declared.name: setting(declared.name, scope) for declared in fields(Settings)})
