"""Where hints come from: the reward's feedback, an advisor model, or the user's function."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from dspynb.data import Example
from dspynb.errors import AdvisorFailedWarning, DspynbError, Halted, HintError, ParseError
from dspynb.events import Hint, HintFailed, PredictorCalled, Steered
from dspynb.modules.excerpts import labelled
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import Scorer, source_of
from dspynb.redact import error_text
from dspynb.refine.attempt import AttemptResult
from dspynb.running.control import Ask
from dspynb.running.run import Run
from dspynb.running.user_code import reraise_as
from dspynb.scope.call_context import Settings
from dspynb.scope.core import HintAs, HintLayer, Layer, current_scope, users_line
from dspynb.scope.hints import address, mask
from dspynb.scope.settings import setting
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

if TYPE_CHECKING:
    from dspynb.modules.module import Module

__all__ = ["Advise", "Advisor", "as_layer", "ask_callable", "feedback_of", "suggested"]


class Advise(Signature):
    """Give each predictor of a program advice for its next attempt at the same inputs.

    The program was run on the inputs and its result was scored. Study every earlier attempt: what each predictor
    received and produced, the hint it had, the score and the feedback. Say concretely what each predictor should do
    differently to score higher, and do not repeat advice that did not help. Leave out predictors that did well.
    """

    program: str = Input(desc="the predictors: path, fields and instruction; and the program's code where known")
    reward: str = Input(desc="how the result is scored")
    inputs: str = Input(desc="the program's inputs")
    attempts: str = Input(desc="every earlier attempt, in order")
    advice: dict[str, str] = Output(desc="predictor path to its advice")


def feedback_of(attempts: Sequence[AttemptResult]) -> str | None:
    """The feedback of the last wave's attempts, each text once; a reply that could not be read counts as feedback."""
    if not attempts:
        return None
    wave = list(itertools.takewhile(lambda a: a.wave == attempts[-1].wave, reversed(attempts)))
    texts = [text for a in reversed(wave) if (text := a.feedback or _reply_problem(a.error))]
    return "\n".join(dict.fromkeys(texts)) or None


def _reply_problem(error: Exception | None) -> str | None:
    if not isinstance(error, ParseError):
        return None
    where = f" in the field {error.field}" if error.field else ""
    return f"The last reply could not be read{where}: {error.problem}."


class Advisor:
    """Asks a predictor for advice on the program's predictors."""

    def __init__(self, predict: Predict, reward: Scorer) -> None:
        self.predict, self.reward = predict, reward

    async def __call__(self, attempts: Sequence[AttemptResult], program: Module, inputs: Mapping[str, Any]) -> Hint:
        """Path → advice, for paths that the program has; None when there is none.

        Runs with hints masked; but a candidate's part for the advisor holds, since it is a predictor of the program as
        others are: what an optimizer tries is what it will have.
        """
        paths = {path for path, _ in program.named_predictors()}
        uid = self.predict.uid
        own = current_scope().read(uid).candidate
        described = _program_text(program)  # here, where a candidate's instructions hold: below they are masked
        candidate = None if own is None else {uid: own}
        with mask(), Layer("the advisor's candidate", candidate=candidate, settings=self._settings(program)):
            answer = await self.predict(
                program=described,
                reward=self.reward.describe(),
                inputs=_fields_text(inputs),
                attempts="\n\n".join(_attempt_text(attempt, program) for attempt in attempts),
            )
        advice = {path: text for path, text in answer.advice.items() if path in paths and text.strip()}
        return advice or None

    def _settings(self, program: Module) -> Settings | None:
        """Where the advisor has no model and none is configured: settings with the program's own."""
        if self.predict.lm is not None or setting("lm") is not None:
            return None
        models = [predictor.lm for _, predictor in program.named_predictors() if predictor.lm is not None]
        if not models:
            return None
        return replace(current_scope().settings, lm=models[0])

    async def or_nothing(
        self, attempts: Sequence[AttemptResult], program: Module, inputs: Mapping[str, Any], wave: int
    ) -> Hint:
        """The same, but an advisor that fails is recorded, warned of once a run, and costs no more than the hint."""
        try:
            return await self(attempts, program, inputs)
        except Halted:
            raise
        except Exception as error:
            scope = current_scope()
            text = error_text(error, 500)
            scope.emit(HintFailed(span=scope.open_span, wave=wave, error=text))
            _warn_of_failure(scope.open_run, program, wave, text)
            return None


_warned: WeakSet[Any] = WeakSet()  # runs


def _warn_of_failure(run: Any, program: Module, wave: int, error: str) -> None:
    if run in _warned:
        return
    _warned.add(run)
    warnings.warn_explicit(
        f"wave {wave} of Refine({program._title()}) had no new hint: its advisor failed ({error}). Pass "
        "another model as advisor_lm=, or return dn.Score(value, feedback=...) from the reward",
        AdvisorFailedWarning,
        *users_line(),
    )


def suggested(program: Module, wave: int) -> Any:
    """The hint that a person suggested for the next wave of a Refine of this program: text, or predictor → text. None
    where there is none. It is told of as an event, unless the run is gone on with and has told of it."""
    scope = current_scope()
    run, at = scope.open_run, scope.open_row
    if not isinstance(run, Run) or not (run.steering.asked or run.steering.kept):
        return None
    inside = {predictor.uid: predictor for _, predictor in program.named_predictors()}
    known = {path: inside[uid] for uid, path in run.paths.items() if uid in inside}
    if inside and not known:
        return None  # it is a metric's
    where = {} if at is None else {"row": at[0]} if not at[1] else {"row": at[0], "repeat": at[1]}

    def fits(hint: Any) -> bool:
        return isinstance(hint, str) or all(path in known for path in hint)

    def then(event: Steered) -> bool:
        same = event.action == "hint" and event.step == wave
        return same and {**event.values, "hint": ""} == {"hint": "", **where} and fits(event.values["hint"])

    def now(ask: Ask) -> bool:
        return ask.action == "hint" and ask.values.get("row") in (None, where.get("row")) and fits(ask.values["hint"])

    if found := run.steering.replay(then):
        hint = found[0].values["hint"]
    elif asked := run.steering.take(now):
        hint = asked[-1].values["hint"]
        run.tell("hint", step=wave, values={"hint": hint, **where})
    else:
        return None
    return hint if isinstance(hint, str) else {known[path]: text for path, text in hint.items()}


async def ask_callable(
    fn: Callable[..., Any], attempts: Sequence[AttemptResult], program: Module, inputs: Mapping[str, Any]
) -> Any:
    """The hint of a user's function ``fn(attempts, program, inputs)``. Raises HintError from what it raises."""
    name = getattr(fn, "__name__", type(fn).__name__)
    with mask():
        try:
            hint = fn(list(attempts), program, Example(inputs))
            return await hint if inspect.isawaitable(hint) else hint
        except DspynbError:
            raise
        except BaseException as error:
            reraise_as(HintError, error, f"the hints function {name}")


def as_layer(hint: Any, program: Module, hint_as: HintAs) -> tuple[HintLayer | None, Hint]:
    """A hint as a layer addressed to the program's predictors, and as tables show it. Raises HintError."""
    if hint is None or (isinstance(hint, str | Mapping) and not hint):
        return None, None
    predictors = program.named_predictors()
    if isinstance(hint, str):
        if not predictors:  # they are made per call, so nothing can be addressed
            return HintLayer(text=hint, hint_as=hint_as), hint
        return HintLayer(by_uid={p.uid: hint for _, p in predictors}, hint_as=hint_as), hint
    by_uid = address(hint, of=program)
    shown = {path: by_uid[p.uid] for path, p in predictors if p.uid in by_uid}
    texts = set(shown.values())
    same = len(shown) == len(predictors) and len(texts) == 1
    return HintLayer(by_uid=by_uid, hint_as=hint_as), texts.pop() if same else shown


def _program_text(program: Module) -> str:
    lines = []
    for path, predictor in program.named_predictors():
        instruction = predictor.instruction_under(current_scope().read(predictor.uid).candidate)
        lines.append(f"{path}: {predictor.signature.describe()}\n  instruction: {instruction}")
    if not isinstance(program, Predict) and (source := source_of(type(program).forward)):
        lines.append(f"code:\n{source}")
    return "\n".join(lines)


def _attempt_text(attempt: AttemptResult, program: Module) -> str:
    lines = [f"Attempt {attempt.number}"]
    if attempt.hint:
        given = attempt.hint if isinstance(attempt.hint, str) else _fields_text(attempt.hint)
        lines.append(f"hint given: {given}")
    paths = [path for path, _ in program.named_predictors()]
    # By predictor and text: of calls side by side it is chance which ends first.
    lines += [text for _, text in sorted((_place(paths, call.predictor), _call_text(call)) for call in attempt.calls)]
    if attempt.score is not None:
        lines.append(f"score: {attempt.score.value:g}")
    if attempt.feedback:
        lines.append(f"feedback: {attempt.feedback}")
    if attempt.error is not None:
        lines.append(labelled("error", attempt.error, 400))
    return "\n".join(lines)


def _place(paths: Sequence[str], path: str) -> int:
    return paths.index(path) if path in paths else len(paths)


def _call_text(call: PredictorCalled) -> str:
    outcome = _fields_text(call.outputs) if call.outputs is not None else f"error: {call.error}"
    return f"{call.predictor} got {_fields_text(call.inputs)}\n{call.predictor} gave {outcome}"


def _fields_text(values: Mapping[str, Any]) -> str:
    """On one line if each value is, else each begins a line, so that none is taken for the end of another."""
    texts = [labelled(name, value, 600, " =") for name, value in values.items()]
    return ("\n" if any("\n" in text for text in texts) else "; ").join(texts)
