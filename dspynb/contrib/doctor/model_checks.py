"""Checks of one model: whether each way of using it works. ``dspynb doctor --live`` and the tests of servers run them.

The tasks are so easy that a small model can do them. A check is about requests and replies, and not about how good the
answers are: a wrong answer passes, and one that cannot be read is reported as "reply not usable".
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import dspynb as dn
from dspynb.errors import BudgetExhausted, DspynbError, ModelAdaptedWarning, shorten
from dspynb.events import PredictorCalled
from dspynb.redact import error_text, redact

__all__ = ["MODEL_CHECKS", "REPORTED", "CheckResult", "ModelCheck", "run_check"]

Outcome = Literal["works", "reply not usable", "fails", "not run"]
"""``not run``: the check was not run, or not to its end; `run_check` never returns it."""
_ERRORS_OF_A_WEAK_MODEL = ("ParseError", "ReplyTruncated", "Refused", "ContentFiltered", "BudgetExhausted")
"""Errors that a weak model causes where requests and replies pass as they should."""
_ERRORS_OF_PROGRAMS = ("AllAttemptsFailed", "TooManyFailures", "OptimizerError")
"""Errors that follow from the errors of calls. If no call failed, they have another cause."""
_DETAIL_LENGTH = 200
"""How many letters of an error are shown."""
_ROWS = tuple({"question": f"What is {n} + {4 - n}?", "answer": "4"} for n in range(4))
_QUESTION = "What is the capital of France?"


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """A way of using a model. ``use``: run a program with the model of the settings. ``most_calls``: calls of the
    model at most."""

    name: str
    most_calls: int
    use: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check showed. ``detail``: the error that decides the outcome, and ``adapted``, without secrets.

    ``calls``, ``tokens``, ``usd``: what all calls of the check used, with retries and repairs; tokens and USD are None
    if one call did not report them. ``adapted``: the settings that were first adapted in this check. ``reported``: the
    fields of the record of a call that the provider fills, such as ``request_id``, in the order of ``REPORTED``.
    """

    name: str
    outcome: Outcome
    detail: str
    calls: int = 0
    tokens: int | None = None
    usd: float | None = None
    adapted: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()


REPORTED: Mapping[str, Callable[[PredictorCalled], object]] = {
    "finish": attrgetter("finish"),
    "request_id": attrgetter("request_id"),
    "response_id": attrgetter("response_id"),
    "response_model": attrgetter("response_model"),
    "reasoning": attrgetter("reasoning"),
    "reasoning_tokens": attrgetter("usage.reasoning_tokens"),
    "tool_calls": attrgetter("tool_calls"),
}
"""The fields of the record of a call that not every provider reports."""


async def run_check(check: ModelCheck, lm: Any, adapter: str | None = None) -> CheckResult:
    """Run one check on a model, without the reply cache. Errors of the model are in the result.

    ``adapter``: that of programs which name none, such as ``json`` for a small model that is held to JSON.
    """
    run_before = dn.last_run()
    errors: list[str] = []
    with (
        warnings.catch_warnings(record=True) as caught,
        dn.context(lm=lm, adapter=adapter, cache=False, view="off", runs_dir=None),
        dn.Budget(calls=check.most_calls) as meter,
    ):
        warnings.simplefilter("always", UserWarning)
        try:
            await check.use()
        except Exception as error:  # a check that crashes fails, and the next one runs
            errors.append(error_text(error, _DETAIL_LENGTH))
    run = dn.last_run()
    adapted = _adapted(caught)
    calls: Sequence[PredictorCalled] = ()
    if run is not None and run is not run_before:
        calls = run.record.calls
        errors_of_calls = [call.error for call in calls if call.error is not None]
        errors = _causes([*_errors_of_calls(errors_of_calls, adapted), *errors])
    spent = meter.spent
    tokens = spent["tokens"]
    return CheckResult(
        check.name,
        _outcome(errors),
        "; ".join([*_deciding_error(errors, calls), *adapted]),
        calls=int(spent["calls"] or 0),
        tokens=None if meter.estimated or tokens is None else int(tokens),
        usd=spent["usd"],
        adapted=adapted,
        reported=tuple(name for name, read in REPORTED.items() if any(map(read, calls))),
    )


def _errors_of_calls(errors: Iterable[str], adapted: Sequence[str]) -> list[str]:
    """The errors of a run's calls, without refusals of tools after which ReAct has repeated the step as text."""
    if not any("tools were refused" in text for text in adapted):
        return list(errors)
    return [error for error in errors if not error.startswith("UnsupportedParameter")]


def _adapted(caught: Sequence[warnings.WarningMessage]) -> tuple[str, ...]:
    """What the warnings say that was adapted, without the name of the model and the advice around it."""
    texts = []
    for warning in caught:
        if issubclass(warning.category, ModelAdaptedWarning):
            text = str(warning.message)
            _, _, changes = text.rpartition(" does not take these settings as requested: ")
            texts.append(redact(changes.partition(" (run.calls ")[0]))
    return tuple(texts)


def _causes(errors: Sequence[str]) -> list[str]:
    """The errors, without those of programs where an error of a call has caused them."""
    causes = [error for error in errors if not error.startswith(_ERRORS_OF_PROGRAMS)]
    return causes or list(errors)


def _outcome(errors: Sequence[str]) -> Outcome:
    if not errors:
        return "works"
    if all(error.startswith(_ERRORS_OF_A_WEAK_MODEL) for error in errors):
        return "reply not usable"
    return "fails"


def _deciding_error(errors: Sequence[str], calls: Sequence[PredictorCalled]) -> list[str]:
    """The error that decides the outcome, if there is one, with the id of its request."""
    deciding = [error for error in errors if not error.startswith(_ERRORS_OF_A_WEAK_MODEL)] or errors
    if not deciding:
        return []
    texts = [shorten(deciding[0], _DETAIL_LENGTH)]
    for call in calls:
        if call.error == deciding[0] and call.request_id is not None and call.request_id not in texts[0]:
            return [*texts, f"request {call.request_id}"]
    return texts


class UnexpectedResult(DspynbError):
    """A program ended without an error, and its result is not as it should be."""


def _expect(condition: object, problem: str) -> None:
    if not condition:
        raise UnexpectedResult(problem)


class Facts(dn.Signature):
    """Read the facts from the text."""

    text: str = dn.Input()
    city: str = dn.Output()
    inhabitants: int = dn.Output()
    continent: Literal["Africa", "America", "Asia", "Europe"] = dn.Output()
    is_capital: bool = dn.Output()


_TEXT = "Paris, the capital of France in Europe, has 2102650 inhabitants."


async def _predict() -> None:
    prediction = await dn.Predict("question -> answer")(question=_QUESTION)
    _expect(prediction.answer, "the answer is empty")


async def _typed_outputs() -> None:
    prediction = await dn.Predict(Facts)(text=_TEXT)
    _expect(isinstance(prediction.inhabitants, int), f"inhabitants is {prediction.inhabitants!r}")


async def _json_adapter() -> None:
    prediction = await dn.Predict(Facts, adapter="json")(text=_TEXT)
    _expect(isinstance(prediction.is_capital, bool), f"is_capital is {prediction.is_capital!r}")


async def _refine() -> None:
    """The reward wants a second attempt, so that one has a hint."""
    attempts = []

    def reward(_: Any, prediction: Any) -> dn.Score:
        attempts.append(prediction)
        return dn.Score(len(attempts) / 2, feedback="Answer with one word.")

    program = dn.Refine(dn.Predict("question -> answer"), reward, n=2, threshold=1.0)
    prediction = await program(question=_QUESTION)
    _expect(prediction.run.attempts.hint.tolist()[1:] == ["Answer with one word."], "the second attempt has no hint")


def population(city: str) -> int:
    """How many people live in a city."""
    return 709_037 if "oslo" in city.lower() else 0


async def _native_tools() -> None:
    agent = dn.ReAct("question -> answer", [population], max_iterations=3)
    prediction = await agent(question="How many people live in Oslo? Use the tool.")
    _expect(prediction.answer, "the answer is empty")


async def _stream() -> None:
    program = dn.Predict("question -> answer")
    parts: list[Any] = [part async for part in program.stream(question=_QUESTION)]
    prediction = parts.pop()
    _expect(parts, "no part of the answer arrived before its end")
    _expect(parts[-1].text == prediction.answer, f"the parts end as {parts[-1].text!r}")


def _metric(row: Any, prediction: Any) -> dn.Score:
    correct = prediction.answer.strip().rstrip(".") == row.answer
    return dn.Score(0.5 * correct, feedback="" if correct else "Answer with the number only.")


async def _optimize(optimizer: Any) -> None:
    program = dn.Predict("question -> answer")
    await optimizer.compile(program, list(_ROWS[:2]), val=list(_ROWS[2:]))


async def _gepa() -> None:
    await _optimize(dn.GEPA(_metric, max_steps=1, minibatch_size=1))


async def _copro() -> None:
    await _optimize(dn.COPRO(_metric, breadth=2, depth=1))


async def _mipro() -> None:
    await _optimize(dn.MIPROv2(_metric, auto=None, num_candidates=2, num_trials=1))


async def _budget() -> None:
    program = dn.Predict("question -> answer")
    with dn.Budget(calls=1) as meter:
        await program(question=_QUESTION)
        try:
            await program(question="What is the capital of Norway?")
        except BudgetExhausted:
            pass
        else:
            raise UnexpectedResult("a call above the budget was sent")
    _expect(meter.spent["calls"] == 1, f"{meter.spent['calls']} calls were counted")


MODEL_CHECKS: tuple[ModelCheck, ...] = (
    ModelCheck("Predict", 2, _predict),
    ModelCheck("typed outputs", 2, _typed_outputs),
    ModelCheck("JSONAdapter", 2, _json_adapter),
    ModelCheck("Refine", 6, _refine),
    ModelCheck("ReAct", 8, _native_tools),
    ModelCheck("stream", 2, _stream),
    ModelCheck("GEPA", 20, _gepa),
    ModelCheck("COPRO", 20, _copro),
    ModelCheck("MIPROv2", 40, _mipro),
    ModelCheck("Budget", 2, _budget),
)
