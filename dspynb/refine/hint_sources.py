"""The sources of hints: the reward's feedback, an advisor model, the user's function, or a person."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from dspynb.data import Example
from dspynb.errors import AdvisorFailedWarning, DspynbError, Halted, HintError, ParseError
from dspynb.events import Hint, HintFailed, PredictorCalled, Steered
from dspynb.lm.direct_call import DIRECT
from dspynb.media.describe import content_text
from dspynb.modules.excerpts import labelled
from dspynb.modules.predict import Predict
from dspynb.modules.predictor_call import refuse_truncated
from dspynb.modules.scorer import Scorer, source_of
from dspynb.modules.shortening import call_shortened
from dspynb.redact import error_text
from dspynb.refine.attempt import AttemptResult
from dspynb.running.control import Request
from dspynb.running.run import Run
from dspynb.running.user_code import reraise_as
from dspynb.scope.call_context import Settings
from dspynb.scope.core import HintAs, HintLayer, Layer, RunPort, current_scope, warn_user
from dspynb.scope.hints import address, mask
from dspynb.scope.settings import setting
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

if TYPE_CHECKING:
    from dspynb.modules.module import Module

__all__ = ["Advise", "Advisor", "as_layer", "call_hints_function", "feedback_of", "suggested_hint"]


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
    """The feedback of the last wave's attempts, without duplicates. The problem of a reply that could not be parsed
    counts as feedback. None where there is none."""
    if not attempts:
        return None
    texts: dict[str, None] = {}
    for attempt in _last_wave(attempts):
        text = attempt.feedback or _reply_problem(attempt.error)
        if text:
            texts[text] = None
    return "\n".join(texts) or None


def _last_wave(attempts: Sequence[AttemptResult]) -> Sequence[AttemptResult]:
    """The attempts of the last wave, which are at the end. Takes time proportional to their number."""
    start = len(attempts)
    while start > 0 and attempts[start - 1].wave == attempts[-1].wave:
        start -= 1
    return attempts[start:]


def _reply_problem(error: Exception | None) -> str | None:
    if not isinstance(error, ParseError):
        return None
    where = f" in the field {error.field}" if error.field else ""
    return f"The last reply could not be read{where}: {error.problem}."


class Advisor:
    """Asks a predictor for advice on the program's predictors."""

    def __init__(self, predict: Predict, reward: Scorer) -> None:
        self.predict = predict
        self.reward = reward

    async def __call__(self, attempts: Sequence[AttemptResult], program: Module, inputs: Mapping[str, Any]) -> Hint:
        """Advice by predictor path, for paths that the program has; None when there is none.

        Runs with hints masked. A candidate's part for the advisor applies, since an optimizer may try instructions for
        the advisor as for other predictors.
        """
        paths = {path for path, _ in program.named_predictors()}
        uid = self.predict.uid
        part = current_scope().read(uid).candidate
        program_text = _program_text(program)  # before the mask below hides the candidate's instructions
        candidate = None if part is None else {uid: part}
        with mask("advisor"), Layer("the advisor's candidate", candidate=candidate, settings=self._settings(program)):
            advisor_inputs = {
                "program": program_text,
                "reward": self.reward.describe(),
                "inputs": _fields_text(inputs),
                "attempts": "\n\n".join(_attempt_text(attempt, program) for attempt in attempts),
            }
            answer = await call_shortened(self.predict, advisor_inputs)
        refuse_truncated(answer)
        advice = {path: text for path, text in answer.advice.items() if path in paths and text.strip()}
        return advice or None

    def _settings(self, program: Module) -> Settings | None:
        """Settings with the program's model if the advisor has no model and none is configured, else None."""
        if self.predict.lm is not None or setting("lm") is not None:
            return None
        for _, predictor in program.named_predictors():
            if predictor.lm is not None:
                return replace(current_scope().settings, lm=predictor.lm)
        return None

    async def advice_or_none(
        self, attempts: Sequence[AttemptResult], program: Module, inputs: Mapping[str, Any], wave: int
    ) -> Hint:
        """Advice by predictor path; None if the advisor fails, which is recorded, and warned of once in a run."""
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


_warned_runs: WeakSet[Any] = WeakSet()


def _warn_of_failure(run: RunPort | None, program: Module, wave: int, error: str) -> None:
    if run in _warned_runs:
        return
    _warned_runs.add(run)
    warn_user(
        f"wave {wave} of Refine({program._title()}) had no new hint: its advisor failed ({error}). Pass "
        "another model as advisor_lm=, or return dn.Score(value, feedback=...) from the reward",
        AdvisorFailedWarning,
    )


def suggested_hint(program: Module, wave: int) -> Any:
    """The hint that a person suggested for a wave of a Refine of this program: a text, or texts by predictor. None
    where there is none.

    A hint from a pending request is recorded as an event. A resumed run returns the hints that its file has recorded.
    """
    scope = current_scope()
    run = scope.open_run
    if not isinstance(run, Run) or not (run.steering.pending or run.steering.applied):
        return None
    predictors = {predictor.uid: predictor for _, predictor in program.named_predictors()}
    by_path = {path: predictors[uid] for uid, path in run.paths.items() if uid in predictors}
    if predictors and not by_path:
        return None  # the Refine is part of a metric and not of the run's program
    place = _row_values(scope.open_row)

    def fits(hint: Any) -> bool:
        return isinstance(hint, str) or all(path in by_path for path in hint)

    def was_applied_here(event: Steered) -> bool:
        if event.action != "hint" or event.step != wave:
            return False
        same_place = {**event.values, "hint": ""} == {"hint": "", **place}
        return same_place and fits(event.values["hint"])

    def is_for_here(request: Request) -> bool:
        if request.action != "hint":
            return False
        same_row = request.values.get("row") in (None, place.get("row"))
        return same_row and fits(request.values["hint"])

    if recorded := run.steering.take_applied(was_applied_here):
        hint = recorded[0].values["hint"]
    elif requests := run.steering.take_pending(is_for_here):
        hint = requests[-1].values["hint"]
        run.record_intervention("hint", step=wave, values={"hint": hint, **place})
    else:
        return None
    if isinstance(hint, str):
        return hint
    return {by_path[path]: text for path, text in hint.items()}


def _row_values(row: tuple[int, int] | None) -> dict[str, int]:
    """The row and repeat of an event as its values; a repeat of 0 is left out."""
    if row is None:
        return {}
    number, repeat = row
    return {"row": number, "repeat": repeat} if repeat else {"row": number}


async def call_hints_function(
    fn: Callable[..., Any], attempts: Sequence[AttemptResult], program: Module, inputs: Mapping[str, Any]
) -> Any:
    """The hint of a user's function ``fn(attempts, program, inputs)``. Raises HintError from the function's error."""
    name = getattr(fn, "__name__", type(fn).__name__)
    with mask("advisor"):
        try:
            hint = fn(list(attempts), program, Example(inputs))
            return await hint if inspect.isawaitable(hint) else hint
        except DspynbError:
            raise
        except BaseException as error:
            reraise_as(HintError, error, f"the hints function {name}")


def as_layer(hint: object, program: Module, hint_as: HintAs) -> tuple[HintLayer | None, Hint]:
    """A hint as a layer addressed to the program's predictors, and as tables show it. Raises HintError."""
    if hint is None or (isinstance(hint, str | Mapping) and not hint):
        return None, None
    predictors = program.named_predictors()
    if isinstance(hint, str):
        if not predictors:  # the program creates its predictors in each call, so they cannot be addressed
            return HintLayer(text=hint, hint_as=hint_as), hint
        return HintLayer(by_uid={p.uid: hint for _, p in predictors}, hint_as=hint_as), hint
    by_uid = address(hint, of=program)
    layer = HintLayer(by_uid=by_uid, hint_as=hint_as)
    by_path = {path: by_uid[p.uid] for path, p in predictors if p.uid in by_uid}
    texts = set(by_path.values())
    if len(texts) == 1 and len(by_path) == len(predictors):
        return layer, texts.pop()
    return layer, by_path


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
        hint = attempt.hint if isinstance(attempt.hint, str) else _fields_text(attempt.hint)
        lines.append(f"hint given: {hint}")
    paths = [path for path, _ in program.named_predictors()]
    # Sorted by predictor and text, since it is chance which of several concurrent calls ends first.
    calls = sorted((_position(paths, call.predictor), _call_text(call)) for call in attempt.calls)
    lines += [text for _, text in calls]
    if attempt.score is not None:
        lines.append(f"score: {attempt.score.value:g}")
    if attempt.feedback:
        lines.append(f"feedback: {attempt.feedback}")
    if attempt.error is not None:
        lines.append(labelled("error", attempt.error, 400))
    return "\n".join(lines)


def _position(paths: Sequence[str], path: str) -> int:
    return paths.index(path) if path in paths else len(paths)


def _call_text(call: PredictorCalled) -> str:
    outcome = _fields_text(call.outputs) if call.outputs is not None else f"error: {call.error}"
    inputs = call.inputs
    if call.predictor == DIRECT:
        inputs = {"prompt": content_text(call.messages[-1].get("content"))}
    return f"{call.predictor} got {_fields_text(inputs)}\n{call.predictor} gave {outcome}"


def _fields_text(values: Mapping[str, Any]) -> str:
    """Names and values on one line. If a value has several lines, each value begins a line of its own, so that none
    reads as part of another."""
    texts = [labelled(name, value, 600, " =") for name, value in values.items()]
    separator = "\n" if any("\n" in text for text in texts) else "; "
    return separator.join(texts)
