"""A pytest plugin that runs DSPy's own tests against dspynb: it puts a package ``dspy`` of dspynb's names in place.

Used by ``python -m tests.peer``, in a process of its own, whose working directory is a checkout of DSPy. Programs are
called synchronously, as DSPy's tests call them. A test that uses a name that is deliberately not in dspynb is skipped
with the reason of the table of names.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.machinery
import inspect
import itertools
import json
import sys
import types
from typing import Any

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.contrib.migration.dspy_names import DSPY_NAMES
from dspynb.lm.protocol import LMReply
from dspynb.modules import module as module_home
from dspynb.modules.module import Module

_running = False


# ── what is deliberately not there ────────────────────────────────────────────────────────────────────────────────────
class _Absent(type):
    """A class for a name without counterpart: using it in a test skips the test."""

    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> Any:
        _skip_by(name, bases)
        return super().__new__(mcs, name, bases, space)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        _skip(cls.__name__)
        return super().__call__()

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _skip(cls.__name__)
        return lambda *args, **kwargs: None


def _skip_by(name: str, bases: tuple[type, ...]) -> None:
    if bases:
        _skip(bases[0].__name__ if bases else name)


def _skip(name: str) -> None:
    if _running:
        reason = DSPY_NAMES.get(name, (None, "an internal name of DSPy"))[1]
        pytest.skip(f"deliberately not: {name}: {reason}")


def _absent(name: str) -> Any:
    def create(self: Any, *args: Any, **kwargs: Any) -> None:
        return None

    def use(self: Any, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        _skip(name)
        return lambda *args, **kwargs: None

    return _Absent(name, (), {"__init__": create, "__getattr__": use})


# ── calls without await ───────────────────────────────────────────────────────────────────────────────────────────────
_call = Module.__call__
_batch = Module.batch


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _call_now(self: Any, *args: Any, **inputs: Any) -> Any:
    if _in_loop():
        return _call(self, *args, **inputs)
    return dn.run_sync(lambda: _call(self, *args, **inputs))


def _batch_now(self: Any, examples: Any, num_threads: int | None = None, **_: Any) -> Any:
    if _in_loop():
        return _batch(self, examples, num_threads)
    return dn.run_sync(lambda: _batch(self, [example.inputs() for example in examples], num_threads))


def _subclass(cls: Any, **kwargs: Any) -> None:
    forward = cls.__dict__.get("forward") or cls.__dict__.get("aforward")
    if forward is None or not inspect.isfunction(forward):
        return
    if inspect.iscoroutinefunction(forward):
        cls.forward = forward
        return

    @functools.wraps(forward)
    async def in_thread(self: Any, *args: Any, **inputs: Any) -> Any:
        return await asyncio.to_thread(forward, self, *args, **inputs)

    cls.forward = in_thread


async def _acall(self: Any, *args: Any, **inputs: Any) -> Any:
    return await _call(self, *args, **inputs)


def _install_calls() -> None:
    Module.__call__ = _call_now  # type: ignore[method-assign]
    Module.batch = _batch_now  # type: ignore[assignment,method-assign]
    Module.__init_subclass__ = classmethod(_subclass)  # type: ignore[assignment]
    Module.acall = _acall  # type: ignore[attr-defined]
    Module.predictors = lambda self: [predictor for _, predictor in self.named_predictors()]  # type: ignore[attr-defined]
    Module.deepcopy = lambda self: __import__("copy").deepcopy(self)  # type: ignore[attr-defined]
    Module.set_lm = _set_lm  # type: ignore[attr-defined]
    Module.named_parameters = Module.named_predictors  # type: ignore[attr-defined]
    dn.Predict.config = property(lambda self: self.settings)  # type: ignore[attr-defined]
    module_home.check_forward = lambda cls: None  # type: ignore[assignment]


def _set_lm(self: Any, lm: Any) -> None:
    for _, predictor in self.named_predictors():
        predictor.lm = lm


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class BaseLM:
    """A model of DSPy's tests. ``__call__(messages=…)`` returns a list of texts or dicts, as in DSPy."""

    supports_function_calling = supports_reasoning = supports_response_schema = False
    supported_params: frozenset[str] = frozenset()

    def __init__(
        self, model: str = "m", model_type: str = "chat", *args: Any, cache: bool = True, **kwargs: Any
    ) -> None:
        self.model = self.name = model
        self.model_type = model_type
        self.cache = cache
        self.kwargs = kwargs
        self.settings = kwargs
        self.history: list[dict[str, Any]] = []

    def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return self._outputs(self.forward(prompt, messages, **kwargs))

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def acall(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return self(prompt, messages, **kwargs)

    async def complete(self, request: Any) -> LMReply:
        settings = {name: value for name, value in dict(request.settings).items() if name != "rollout"}
        outputs = self(messages=[dict(message) for message in request.messages], **settings)
        self.history.append({"messages": request.messages, "kwargs": settings, "outputs": outputs})
        texts = [output if isinstance(output, str) else (output or {}).get("text") or "" for output in outputs]
        return LMReply(texts[0], completions=tuple(texts) if len(texts) > 1 else ())

    def copy(self, **kwargs: Any) -> Any:
        new = __import__("copy").copy(self)
        new.kwargs = new.settings = {**self.kwargs, **kwargs}
        return new

    @staticmethod
    def _outputs(response: Any) -> list[Any]:
        if isinstance(response, list):
            return response
        return [choice.message.content for choice in response.choices]


class LM(BaseLM):
    """Calls ``litellm.completion`` or ``litellm.acompletion``, which DSPy's tests replace by mocks."""

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        import litellm

        messages = messages or [{"role": "user", "content": prompt}]
        return litellm.completion(model=self.model, messages=messages, **self.kwargs, **kwargs)

    async def complete(self, request: Any) -> LMReply:
        from unittest.mock import Mock

        import litellm

        if not isinstance(litellm.acompletion, Mock):
            return await super().complete(request)
        response = await litellm.acompletion(
            model=self.model, messages=list(request.messages), **dict(request.settings)
        )
        return LMReply(self._outputs(response)[0])


class DummyLM(BaseLM):
    """Answers with the fields of dicts, in the format of the adapter."""

    def __init__(
        self, answers: Any, follow_examples: bool = False, reasoning: bool = False, adapter: Any = None
    ) -> None:
        super().__init__("dummy")
        self.answers = iter(answers) if isinstance(answers, list) else answers
        self.follow_examples = follow_examples
        self.adapter = adapter

    def _text(self, fields: Any) -> str:
        if isinstance(self.adapter, dn.JSONAdapter):
            return json.dumps(fields, default=str)
        parts = [
            f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else _json(value)}" for name, value in fields.items()
        ]
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        last = str(messages[-1]["content"]) if messages else str(prompt)
        outputs = []
        for _ in range(kwargs.get("n") or 1):
            if self.follow_examples:
                outputs.append(self._example(messages, last))
            elif isinstance(self.answers, dict):
                outputs.append(next((self._text(v) for k, v in self.answers.items() if k in last), "No more responses"))
            else:
                fields = next(self.answers, None)
                outputs.append("No more responses" if fields is None else self._text(fields))
        return outputs

    @staticmethod
    def _example(messages: Any, last: str) -> str:
        question = last.split("\n\n", maxsplit=1)[0]
        for before, after in itertools.pairwise(messages):
            if question in before["content"] and after["role"] == "assistant":
                return str(after["content"])
        return "No more responses"

    def get_convo(self, index: int) -> Any:
        return self.history[index]["messages"], self.history[index]["outputs"]


def _json(value: Any) -> str:
    from pydantic_core import to_json

    return to_json(value, fallback=str).decode()


# ── adapters ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class _Adapting:
    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        return dn.run_sync(lambda: self.acall(lm, lm_kwargs, signature, demos, inputs))

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        predict = dn.Predict(signature, lm=lm, adapter=self, demos=demos, **lm_kwargs)
        prediction = await _call(predict, **inputs)
        return [dict(prediction)]

    def format(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) + len(kwargs) == 3:  # DSPy's arguments
            signature, demos, inputs = _bound(("signature", "demos", "inputs"), args, kwargs)
            return super().format(signature, inputs, demos=demos)  # type: ignore[misc]
        return super().format(*args, **kwargs)  # type: ignore[misc]


def _bound(names: tuple[str, ...], args: Any, kwargs: Any) -> list[Any]:
    return [*args, *(kwargs[name] for name in names[len(args) :])]


class ChatAdapter(_Adapting, dn.ChatAdapter):
    """dn.ChatAdapter with DSPy's arguments."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def format_system_message(self, signature: Any) -> str:
        return self.format_system(signature, signature.instruction)


class JSONAdapter(_Adapting, dn.JSONAdapter):
    """dn.JSONAdapter with DSPy's arguments."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def format_system_message(self, signature: Any) -> str:
        return self.format_system(signature, signature.instruction)


# ── functions with other arguments ────────────────────────────────────────────────────────────────────────────────────
_SETTINGS = ("lm", "adapter")


def configure(**values: Any) -> None:
    for name in ("callbacks", "max_trace_size", "disable_history", "max_history_size", "trace", "stream_listeners"):
        if values.get(name) not in (None, []):
            pytest.skip(f"deliberately not: the setting {name}: runs are recorded, with events and limits of their own")
    dn.configure(**{name: value for name, value in values.items() if name in _SETTINGS})


class context(dn.context):  # noqa: N801  # DSPy's name
    def __init__(self, **values: Any) -> None:
        if values.get("callbacks") or "trace" in values:
            pytest.skip("deliberately not: callbacks and trace: use run.events() and dn.trace()")
        super().__init__(**{name: value for name, value in values.items() if name in _SETTINGS})


class _Settings(types.SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        if name in dn.settings:
            return dn.settings[name]
        return None

    configure = staticmethod(configure)
    context = staticmethod(context)
    experimental = False


class EvaluationResult:
    """DSPy's form of an Evaluation."""

    def __init__(self, score: float, results: Any) -> None:
        self.score = score
        self.results = results

    def __repr__(self) -> str:
        return f"EvaluationResult(score={self.score}, results=<list of {len(self.results)} results>)"


class Evaluate:
    """dn.evaluate with DSPy's arguments, and its score times 100."""

    def __init__(
        self,
        *,
        devset: Any,
        metric: Any = None,
        num_threads: Any = None,
        display_progress: Any = False,
        display_table: Any = False,
        max_errors: Any = None,
        failure_score: float = 0.0,
        **_: Any,
    ) -> None:
        self.devset, self.metric, self.num_threads = devset, metric, num_threads
        self.display_progress, self.display_table = display_progress, display_table

    def __call__(self, program: Any, metric: Any = None, devset: Any = None, **_: Any) -> Any:
        rows, fn = devset or self.devset, metric or self.metric
        evaluation = dn.run_sync(lambda: dn.evaluate(program, rows, fn, concurrency=self.num_threads))
        results = (
            [*zip(rows, evaluation.predictions, evaluation.scores, strict=False)]
            if hasattr(evaluation, "scores")
            else []
        )
        return EvaluationResult(round(100 * float(evaluation), 2), results)


def answer_exact_match(example: Any, pred: Any, trace: Any = None, frac: float = 1.0) -> bool:
    return bool(dn.metrics.exact_match("answer", normalize=dn.metrics.squad_text)(example, pred))


def _field(declare: Any) -> Any:
    def field(*args: Any, **kwargs: Any) -> Any:
        if "prefix" in kwargs:
            kwargs["alias"] = kwargs.pop("prefix").rstrip(":")
        return declare(*args, **kwargs)

    return field


def _react(signature: Any, tools: Any, max_iters: int = 20) -> Any:
    return dn.ReAct(signature, tools, max_iterations=max_iters)


def _search(cls: Any) -> Any:
    def make(module: Any, N: int, reward_fn: Any, threshold: float, fail_count: int | None = None) -> Any:  # noqa: N803
        failures = None if fail_count is None else fail_count
        return cls(module, reward_fn, N, threshold, max_failures=failures)

    return make


def _compare(signature: Any, M: int = 3, temperature: float = 0.7) -> Any:  # noqa: N803  # DSPy's name
    return dn.MultiChainComparison(signature, m=M, temperature=temperature)


def _program_of_thought(signature: Any, max_iters: int = 3, interpreter: Any = None) -> Any:
    if interpreter is not None:
        _skip("PythonInterpreter")
    return dn.ProgramOfThought(signature, run_code=True, max_iterations=max_iters)


def make_signature(signature: Any, instructions: str | None = None, signature_name: str = "Signature") -> Any:
    return dn.Signature(signature, instructions) if instructions else dn.Signature(signature)


def _names() -> dict[str, Any]:
    ours: dict[str, Any] = {}
    for name, (path, _) in DSPY_NAMES.items():
        ours[name] = _absent(name) if path is None else functools.reduce(getattr, path.split("."), dn)
    ours.update(
        {
            "BaseLM": BaseLM, "LM": LM, "DummyLM": DummyLM, "ChatAdapter": ChatAdapter, "JSONAdapter": JSONAdapter,
            "configure": configure, "context": context, "settings": _Settings(), "Evaluate": Evaluate,
            "EvaluationResult": EvaluationResult, "answer_exact_match": answer_exact_match,
            "InputField": _field(dn.Input), "OutputField": _field(dn.Output), "ReAct": _react,
            "Refine": _search(dn.Refine), "BestOfN": _search(dn.BestOfN), "make_signature": make_signature,
            "Completions": _absent("Completions"), "MultiChainComparison": _compare,
            "ProgramOfThought": _program_of_thought,
            "cache": types.SimpleNamespace(disk_cache=None), "configure_cache": lambda **_: None,
            "DEFAULT_CONFIG": {"lm": None, "adapter": None}, "normalize_text": dn.metrics.squad_text, "errors": errors,
            "load": _absent("load"), "majority": dn.majority,
        }
    )  # fmt: skip
    return ours


class _Module(types.ModuleType):
    """``dspy`` and all modules below it: each has all names."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in NAMES and not (
            self.__name__ == "dspy" and f"dspy.{name}" in sys.modules and name not in ("settings",)
        ):
            return NAMES[name]
        if f"{self.__name__}.{name}" in sys.modules:
            return sys.modules[f"{self.__name__}.{name}"]
        if name.islower() and name in (
            "utils",
            "predict",
            "adapters",
            "primitives",
            "clients",
            "evaluate",
            "signatures",
            "streaming",
            "teleprompt",
            "retrievers",
            "dsp",
        ):
            return __import__("importlib").import_module(f"{self.__name__}.{name}")
        NAMES[name] = _absent(name)
        return NAMES[name]


class _Finder:
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] == "dspy":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> Any:
        return _Module(spec.name)

    def exec_module(self, module: Any) -> None:
        return None


NAMES = _names()
_install_calls()
sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: Any) -> Any:
    global _running  # noqa: PLW0603
    _running = True
    dn.configure(lm=None, adapter=None, cache=False, view="off", runs_dir=None)
    outcome = yield
    _running = False
    error = outcome.excinfo[1] if outcome.excinfo else None
    if type(error).__name__ == "ConnectionError":
        outcome.force_exception(pytest.skip.Exception("deliberately not: needs a network"))


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> Any:
    """Run async tests, for which DSPy uses a plugin."""
    function = pyfuncitem.obj
    if inspect.iscoroutinefunction(function):
        pyfuncitem.obj = functools.wraps(function)(lambda **kwargs: asyncio.run(function(**kwargs)))
    yield
