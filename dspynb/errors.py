"""Every error dspynb raises, in one tree.

::

    DspynbError
    ├── ConfigurationError          a setting, a model or a file is missing or unusable
    │   ├── NoModelError            no language model is configured
    │   └── DownloadError           the embedded model could not be fetched or did not match its checksum
    ├── SignatureError              a signature is malformed
    ├── InputError                  a call got missing, extra or mistyped inputs
    ├── ParseError                  a reply could not be read into the output fields
    ├── CodeError                   the code that a model wrote failed each time
    ├── UserCodeExit                user code called sys.exit(), or raised KeyboardInterrupt or the like
    ├── RewardError                 a reward or metric raised, or returned something that is not a score
    ├── HintError                   a hint has the wrong type or names a predictor the program lacks
    ├── ScopeError                  a scope was carried, entered or left in a way that cannot work
    ├── SteeringError               a run takes no such intervention, or takes none any more
    ├── ModelError                  a model call failed
    │   ├── AuthenticationError     the key is missing or wrong
    │   ├── BadRequestError         the provider refused the request as it is
    │   │   └── ContextTooLong      it is longer than the model's context
    │   ├── ContentFiltered         the provider's content filter stopped it
    │   ├── RateLimited             too many requests or tokens (retryable)
    │   ├── ServerError             the provider failed (retryable)
    │   ├── ModelTimeout            no reply within the time allowed (retryable)
    │   ├── ConnectionFailed        not reached, or broken within the reply (retryable)
    │   ├── MalformedReply          what came is no reply (retryable)
    │   ├── ReplyTruncated          the reply was cut at the limit of tokens
    │   ├── Refused                 the model refused to answer
    │   ├── ScriptExhausted         a ScriptedLM was asked for more replies than it has
    │   └── RecordingMiss           a strict recording has no reply for a request
    ├── AttemptsFailed              (also an ExceptionGroup) attempts of one call failed
    │   ├── AllAttemptsFailed       … all of them
    │   └── TooManyFailures         … more than ``max_failures`` of them
    ├── OptimizerError              an optimizer cannot go on: no proposal can be read, or every row fails
    ├── ExecutorError               rollouts cannot run where they were to run
    │   └── WorkerLost              a rollout took the workers down that ran it
    ├── JournalError                a run file cannot be read
    │   └── RunInUse                another run writes it
    ├── StateError                  a saved program cannot be read, or is of another program
    └── Halted                      control flow: no further call may start; never a failed row or attempt
        ├── RunStopped              the run was stopped before it had a result
        │   └── ReplayDiverged      … because a replay asked for what was not recorded
        └── BudgetExhausted         the budget is spent

    RunInterrupted                  a CancelledError: the kernel's stop button or Ctrl-C ended the cell
    DamagedFileWarning              lines of a run file are damaged and were left out
    DataOverlapWarning              rows that are to judge a program are among those it learns from
    NoFeedbackWarning               a metric gives scores only, where feedback in words would help
    ScoreRangeWarning               a metric gives scores that an optimizer's settings do not reckon with
    AdvisorFailedWarning            the advisor of a Refine failed, so attempts had no new hint
    UsageUnknownWarning             a token budget counts an estimate, since a reply did not report its tokens
    HiddenPredictorWarning          a program called a predictor that is not among its attributes
    ScopeClosedWarning              code outlived the attempt (or ``with`` block) whose scope it still holds
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, ClassVar

__all__ = [
    "AdvisorFailedWarning",
    "AllAttemptsFailed",
    "AttemptsFailed",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExhausted",
    "CodeError",
    "ConfigurationError",
    "ConnectionFailed",
    "ContentFiltered",
    "ContextTooLong",
    "DamagedFileWarning",
    "DataOverlapWarning",
    "DownloadError",
    "DspynbError",
    "ExecutorError",
    "Halted",
    "HiddenPredictorWarning",
    "HintError",
    "InputError",
    "JournalError",
    "MalformedReply",
    "ModelError",
    "ModelTimeout",
    "NoFeedbackWarning",
    "NoModelError",
    "OptimizerError",
    "ParseError",
    "RateLimited",
    "RecordingMiss",
    "Refused",
    "ReplayDiverged",
    "ReplyTruncated",
    "RewardError",
    "RunInUse",
    "RunInterrupted",
    "RunStopped",
    "ScopeClosedWarning",
    "ScopeError",
    "ScoreRangeWarning",
    "ScriptExhausted",
    "ServerError",
    "SignatureError",
    "StateError",
    "SteeringError",
    "TooManyFailures",
    "UsageUnknownWarning",
    "UserCodeExit",
    "WorkerLost",
    "is_control_flow",
    "nearest",
    "of_dspy",
    "shorten",
]


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'lm'?"`` when a known name is close to ``name``, else an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def of_dspy(value: object) -> str:
    """``" It is DSPy's: …"`` for an object or class of DSPy's, which often bears the name of what was wanted."""
    kind = value if isinstance(value, type) else type(value)
    theirs = any(base.__module__.partition(".")[0] == "dspy" for base in kind.__mro__)
    return " It is DSPy's: dn.from_dspy(…) makes it dspynb's." if theirs else ""


def shorten(value: object, limit: int = 300) -> str:
    """``str(value)`` on one line; of more than about ``limit`` characters the middle is left out, if that saves any."""
    text = " ".join(str(value).split())
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2].rstrip(), text[-(limit // 2) :].lstrip()
    cut = f"{head} … [{len(text) - len(head) - len(tail)} characters] … {tail}"
    return cut if len(cut) < len(text) else text


class DspynbError(Exception):
    """Base of all errors raised by dspynb.

    >>> try:
    ...     dn.Predict("question -> answer", lm=dn.ScriptedLM(["nonsense", "nonsense"])).run_sync(question="2+2?")
    ... except dn.DspynbError as error:  # here a ParseError: it names the predictor and the field, and has the reply
    ...     print(type(error).__name__, error.field, error.raw)
    ParseError answer nonsense
    """


class ConfigurationError(DspynbError, ValueError):
    """A setting, model or file is missing or unusable."""


class NoModelError(ConfigurationError):
    """No language model is configured."""

    def __init__(self) -> None:
        super().__init__(
            "no language model is configured. Use dn.configure(lm=dn.LocalLM()) for the embedded model "
            '(no key, pip install "dspynb[local]"), or dn.configure(lm="provider/model") for a provider.'
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return NoModelError, ()


class DownloadError(ConfigurationError):
    """The embedded model could not be fetched, or what came does not match its checksum."""


class SignatureError(DspynbError, TypeError):
    """A signature is malformed: no output field, an unknown type, a bad string form."""


class InputError(DspynbError, ValueError):
    """A call got missing, extra or mistyped inputs; or an argument is out of range."""


class ParseError(DspynbError):
    """A model's reply could not be read into the output fields.

    Attributes: ``predictor`` (path or name), ``field`` (name or None), ``stage`` (``"locate"``, ``"decode"`` or
    ``"validate"``), ``raw`` (the whole reply), ``problem`` (what was wrong, one line).
    """

    def __init__(self, problem: str, *, raw: str, stage: str, field: str | None = None, predictor: str = "") -> None:
        self.problem, self.raw, self.stage, self.field, self.predictor = problem, raw, stage, field, predictor
        where = f"{predictor}: " if predictor else ""
        at = f" (field {field!r}, {stage})" if field else f" ({stage})"
        super().__init__(f"{where}{problem}{at}. The reply was: {shorten(raw)!r}")
        self.add_note(
            "Say in the instruction what the reply should look like, or try another adapter=, such as 'json'."
        )

    def by(self, predictor: str) -> ParseError:
        """The same error, naming the predictor whose reply it was."""
        return ParseError(self.problem, raw=self.raw, stage=self.stage, field=self.field, predictor=predictor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _parse_error, (self.problem, self.raw, self.stage, self.field, self.predictor)


def _parse_error(problem: str, raw: str, stage: str, field: str | None, predictor: str) -> ParseError:
    return ParseError(problem, raw=raw, stage=stage, field=field, predictor=predictor)


class CodeError(DspynbError):
    """The code that a model wrote failed each time it was run.

    Attributes: ``code`` (the last source), ``problem`` (its error, as the model was told), ``iterations`` (how many
    were run), ``module`` (whose).
    """

    def __init__(self, module: str, *, code: str, problem: str, iterations: int) -> None:
        self.module, self.code, self.problem, self.iterations = module, code, problem, iterations
        super().__init__(
            f"{module}: the generated code failed in {iterations} of {iterations} iterations; raise max_iterations=, "
            f"or use another model. The last error: {shorten(problem, 600)}. The last code: {shorten(code, 600)!r}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _code_error, (self.module, self.code, self.problem, self.iterations)


def _code_error(module: str, code: str, problem: str, iterations: int) -> CodeError:
    return CodeError(module, code=code, problem=problem, iterations=iterations)


class UserCodeExit(DspynbError):
    """User code raised what is no Exception: SystemExit (``sys.exit()``), KeyboardInterrupt without a key press, or
    another BaseException; or a CancelledError although nobody had cancelled it.

    It costs the row or attempt that it happened in. What was raised is the error's ``__cause__``. A metric that does so
    is a RewardError, a hint function a HintError, a model a ModelError; a tool's is shown to the model.

    >>> import sys
    >>> class Answer(dn.Module):
    ...     async def forward(self, question):
    ...         sys.exit("no licence")
    >>> dn.run_sync(lambda: Answer().batch([{"question": "2+2?"}]))
    [UserCodeExit("Answer.forward called sys.exit('no licence'); raise an Exception in its place")]
    """


class RewardError(DspynbError):
    """A reward or metric raised, or returned something that is not a float, bool or Score."""


class HintError(DspynbError, TypeError):
    """A hint has the wrong type, or is addressed to a predictor that the program does not have."""


class ScopeError(DspynbError, RuntimeError):
    """A scope was carried, entered or left in a way that cannot work."""


class SteeringError(DspynbError, RuntimeError):
    """A run takes no such intervention, or takes none any more."""


class ModelError(DspynbError):
    """A call to a language model failed.

    Attributes: ``model`` (``provider/model``, or empty), ``status`` (HTTP status or None), ``request_id`` (the
    provider's, or None), ``retry_after`` (seconds the provider asked to wait, or None), ``advice`` (what to do: the
    end of the message, or empty), ``retryable`` (whether the same request may succeed later), ``retries`` (how often it
    was tried again), ``usage`` (a Usage: what the call cost, or None where the provider did not say), ``cached``
    (whether an equal request was paid for instead). Never holds a key. Of the class: ``remedy``, the advice that
    ``dn.LM`` gives.

    >>> error = dn.errors.RateLimited("slow down", model="openai/m", status=429, advice="come back tomorrow")
    >>> print(error)
    openai/m: slow down (status 429); come back tomorrow
    """

    retryable = False
    remedy: ClassVar[str] = ""
    retries = 0
    usage: Any = None
    cached = False

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        advice: str = "",
    ) -> None:
        self.problem, self.model, self.status = message, model, status
        self.request_id, self.retry_after, self.advice = request_id, retry_after, advice
        facts = []
        if status:
            facts.append(f"status {status}")
        if request_id:
            facts.append(f"request {request_id}")
        if retry_after:
            facts.append(f"retry after {retry_after:g} s")
        text = f"{model}: {message}" if model else message
        if facts:
            text += f" ({', '.join(facts)})"
        if advice:
            text += f"; {advice}"
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {n: getattr(self, n) for n in ("model", "status", "request_id", "retry_after", "advice")}
        state = {n: value for n, value in vars(self).items() if n in ("retries", "usage", "cached", "text")}
        return _model_error, (type(self), self.problem, facts), state


def _model_error(kind: type[ModelError], problem: str, facts: dict[str, Any]) -> ModelError:
    return kind(problem, **facts)


class AuthenticationError(ModelError):
    """The key is missing, wrong, or not allowed to use the model."""

    remedy = "check api_key= or the key in the environment, what it may use, and its quota"


class BadRequestError(ModelError):
    """The provider refused the request as it is: an unknown model, a wrong setting."""

    remedy = "check the name of the model and the settings"


class ContextTooLong(BadRequestError):
    """The request is longer than the model's context."""

    remedy = "shorten the inputs, demos or history, or use a model with a longer context"


class ContentFiltered(ModelError):
    """The provider's content filter stopped the request or the reply."""

    remedy = "reword the prompt, or use another model"


class RateLimited(ModelError):
    """Too many requests or tokens at once; ``retry_after`` says when to come back, if the provider did."""

    retryable = True
    remedy = "lower rpm=, tpm= or concurrency= of dn.LM, or raise retries="


class ServerError(ModelError):
    """The provider failed (5xx)."""

    retryable = True
    remedy = "try again later, or raise retries= of dn.LM"


class ModelTimeout(ModelError):
    """No reply within the time allowed."""

    retryable = True
    remedy = "raise timeout= of dn.LM, or ask for a shorter reply"


class ConnectionFailed(ModelError):
    """The provider could not be reached, or the connection broke within the reply."""

    retryable = True
    remedy = "check api_base= and that the server runs and can be reached"


class MalformedReply(ModelError):
    """The provider answered with something that is no reply: no JSON, no choices, nothing in it."""

    retryable = True
    remedy = "check that api_base= is the address of an OpenAI-compatible server"


class ReplyTruncated(ModelError):
    """The reply was cut at the limit of tokens, so that it is no answer; ``text`` is what there is of it.

    It is not cached, repaired or tried again: the same request would be cut again. Raise the limit that the message
    names.

    >>> lm = dn.FunctionLM(lambda request: dn.LMReply("The capital of France is Par", finish="length"))
    >>> ask = dn.Predict("question -> answer", lm=lm, max_tokens=8)
    >>> try:
    ...     ask.run_sync(question="What is the capital of France?")
    ... except dn.ReplyTruncated as error:
    ...     print(error)
    ...     print(error.text)
    function: the reply was cut at max_tokens=8 (raise it); it begins: 'The capital of France is Par'
    The capital of France is Par
    """

    text = ""


class Refused(ModelError):
    """The model refused to answer; ``text`` is what it said instead. The same request is not tried again.

    >>> lm = dn.FunctionLM(lambda request: dn.LMReply("I cannot help with that.", finish="refusal"))
    >>> try:
    ...     dn.Predict("question -> answer", lm=lm).run_sync(question="…")
    ... except dn.Refused as error:
    ...     print(error)
    function: the model refused to answer: 'I cannot help with that.'; reword the prompt, or use another model
    """

    remedy = "reword the prompt, or use another model"
    text = ""


class ScriptExhausted(ModelError):
    """A ScriptedLM was asked for more replies than it was given."""


class RecordingMiss(ModelError):
    """A recording in strict mode holds no reply for a request."""


class AttemptsFailed(DspynbError, ExceptionGroup[Exception]):
    """Attempts of one Refine or BestOfN call failed; ``exceptions`` holds each attempt's error, in order."""

    def __new__(cls, message: str, errors: Sequence[Exception]) -> AttemptsFailed:
        return super().__new__(cls, message, errors)

    def __init__(self, message: str, errors: Sequence[Exception]) -> None:
        super().__init__(message, errors)

    def derive(self, errors: Sequence[Any], /) -> AttemptsFailed:  # type: ignore[override]  # stays an AttemptsFailed
        return type(self)(self.message, errors)


class AllAttemptsFailed(AttemptsFailed):
    """No attempt gave a scored prediction.

    >>> program = dn.Predict("question -> answer", lm=dn.ScriptedLM([]))
    >>> refine = dn.Refine(program, lambda row, prediction: 1.0, n=2, hints="feedback")
    >>> try:
    ...     refine.run_sync(question="2+2?")
    ... except dn.AllAttemptsFailed as error:
    ...     print([type(one).__name__ for one in error.exceptions])
    ['ScriptExhausted', 'ScriptExhausted']
    """


class TooManyFailures(AttemptsFailed):
    """More attempts failed than ``max_failures`` allows, although some succeeded."""


class OptimizerError(DspynbError):
    """An optimizer cannot go on: no proposal of its model can be read, or every row fails with the same program.

    >>> program = dn.Predict("question -> answer", lm=dn.ScriptedLM([]))
    >>> opt = dn.BootstrapFewShot(dn.metrics.exact_match())
    >>> opt.compile_sync(program, [{"question": "2+2?", "answer": "4"}])
    Traceback (most recent call last):
        ...
    dspynb.errors.OptimizerError: the teacher failed on all 1 rows, so no demo was made. The first error: ...
    """


class ExecutorError(DspynbError):
    """Rollouts cannot run where they were to run: no scheduler or worker, another version, something that does not
    travel, a cluster that has gone. What had finished is kept.

    >>> executor = dn.DaskExecutor("tcp://127.0.0.1:1", timeout=0.1)  # where no scheduler is
    >>> dn.Evaluate(dn.metrics.exact_match(), executor=executor).run_sync(dn.Predict("n -> answer"), [{"n": "1"}])
    Traceback (most recent call last):
        ...
    dspynb.errors.ExecutorError: no Dask scheduler answers at tcp://127.0.0.1:1 within 0.1 s ...
    """


class WorkerLost(ExecutorError):
    """A rollout took down each worker that ran it."""


class JournalError(DspynbError):
    """A run file cannot be read: not a journal, or of a newer format."""


class RunInUse(JournalError):
    """A run cannot be resumed, since another run writes its file: two would make the same calls twice.

    ``path``: the run file. ``pid``, ``host``, ``since`` (unix seconds): of the process that writes it, None where that
    is not known. ``lock_file``: the file to delete if that process has ended and this machine cannot see that; None
    where it was seen alive.

    >>> from dspynb.errors import RunInUse
    >>> dn.configure(runs_dir="runs")
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}]
    >>> evaluate = dn.Evaluate(dn.metrics.exact_match())
    >>> import asyncio
    >>> async def main():
    ...     run = evaluate.start(program, rows)
    ...     while not run.path:
    ...         await asyncio.sleep(0)
    ...     evaluate.resume(run.path, program, rows)
    >>> try:
    ...     dn.run_sync(main)
    ... except RunInUse as error:
    ...     print(error)
    cannot resume ...: this process (...) writes it since ...; stop that run, or wait until it has ended
    """

    def __init__(
        self,
        path: str,
        *,
        pid: int | None = None,
        host: str | None = None,
        since: float | None = None,
        here: bool = False,
        delete: str | None = None,
    ) -> None:
        self.path, self.pid, self.host, self.since, self.here, self.lock_file = path, pid, host, since, here, delete
        who = f"this process ({pid})" if here else f"process {pid or '(unknown)'} on host {host or '(unknown)'}"
        began = "" if since is None else f" since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))}"
        out = "" if delete is None else f"; if that process is no longer there, delete {delete} and resume again"
        super().__init__(
            f"cannot resume {path}: {who} writes it{began}; stop that run, or wait until it has ended{out}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        named: dict[str, Any] = {"pid": self.pid, "host": self.host, "since": self.since}
        named |= {"here": self.here, "delete": self.lock_file}
        return partial(RunInUse, **named), (self.path,)


class StateError(DspynbError, ValueError):
    """A saved program cannot be read, is of another version, or differs from the program it is to be loaded into.

    ``differences``: one line for each thing that differs, beginning with its path; empty for an unreadable file.

    >>> saved = dn.Predict("question -> answer").dump_state()
    >>> try:
    ...     dn.Predict("question -> answer: int").load_state(saved)
    ... except dn.StateError as error:
    ...     print(error.differences)
    ("self: type of field 'answer' was str, is int",)
    """

    def __init__(self, message: str, differences: Sequence[str] = ()) -> None:
        self.message, self.differences = message, tuple(differences)
        super().__init__("\n- ".join([message, *self.differences]))

    def __reduce__(self) -> tuple[Any, ...]:
        return StateError, (self.message, self.differences)


class Halted(DspynbError):
    """No further call may start. Control flow: it passes through rows and attempts, and the outermost run ends with
    the best so far. ``run`` is its handle, with what was done."""

    status = "stopped"

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class RunStopped(Halted):
    """The run was stopped before it had a result.

    >>> async def main():
    ...     run = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4")).start(question="2+2?")
    ...     run.stop()
    ...     try:
    ...         await run
    ...     except dn.RunStopped as error:
    ...         return error.run.status
    >>> dn.run_sync(main)
    'stopped'
    """

    def __init__(
        self, message: str = "the run was stopped before it had a result; error.run has what was done", run: Any = None
    ) -> None:
        super().__init__(message, run)


class BudgetExhausted(Halted):
    """A budget is spent; the message says which. ``run`` has what was done for it.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> with dn.Budget(calls=1):
    ...     first = ask.run_sync(question="2+2?")
    ...     try:
    ...         ask.run_sync(question="2+3?")
    ...     except dn.BudgetExhausted as error:
    ...         print(error)
    the budget of 1 calls is spent; give a larger dn.Budget(calls=…) to go on
    """

    status = "exhausted"


class ReplayDiverged(RunStopped):
    """A replay came to a call that was not recorded, or not with this prompt. ``divergence`` shows the difference.

    A RunStopped, so that it passes through attempts and rows and ends them all.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> with dn.trace() as recorded:
    ...     first = ask.run_sync(question="2+2?")
    >>> ask.instruction = "Be brief."
    >>> try:
    ...     dn.run_sync(lambda: dn.replay(recorded, ask))
    ... except dn.ReplayDiverged as error:
    ...     print(error.divergence.describe())
    self: message 1 of the prompt is not the recorded one
    """

    def __init__(self, message: str, divergence: Any = None, run: Any = None) -> None:
        super().__init__(message, run)
        self.divergence = divergence


def is_control_flow(error: BaseException) -> bool:
    """Whether an error, or one in a group, is to end the work and must not be taken for a failure."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_control_flow, error.exceptions))
    return isinstance(error, asyncio.CancelledError | Halted)


class RunInterrupted(asyncio.CancelledError):
    """The kernel's stop button or Ctrl-C ended the cell. ``run`` is the handle, with what was done.

    Not a DspynbError: like every CancelledError it must pass through ``except Exception``, so that a loop of runs
    ends too.

    >>> issubclass(dn.RunInterrupted, Exception)  # so that ``except Exception`` lets it pass
    False
    """

    def __init__(self, run: Any = None) -> None:
        super().__init__("the stop button or Ctrl-C interrupted this run; dn.last_run() has what was done")
        self.run = run


class ScopeClosedWarning(UserWarning):
    """Code that outlived an attempt or a ``with`` block made a call: that scope's hints no longer apply to it.

    >>> import asyncio, warnings
    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> async def main():
    ...     with dn.hints("Be brief."):
    ...         late = asyncio.create_task(ask(question="2+2?"))  # await it here, where the hint holds
    ...     await late
    >>> with warnings.catch_warnings(action="error", category=dn.ScopeClosedWarning):
    ...     dn.run_sync(main)
    Traceback (most recent call last):
        ...
    dspynb.errors.ScopeClosedWarning: the task ... outlived a hints(...) block (opened at ...) and made a call; ...
    """


class HiddenPredictorWarning(UserWarning):
    """A program called a predictor that it does not hold in an attribute, so that nothing can be addressed to it.

    >>> import warnings
    >>> dn.configure(lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> class Answer(dn.Module):
    ...     async def forward(self, question):  # to be made in __init__, as self.predict
    ...         return await dn.Predict("question -> answer")(question=question)
    >>> with warnings.catch_warnings(action="error", category=dn.HiddenPredictorWarning):
    ...     Answer().run_sync(question="2+2?")
    Traceback (most recent call last):
        ...
    dspynb.errors.HiddenPredictorWarning: Answer called Predict(...), which is not among its parts: it is made per ...
    """


class AdvisorFailedWarning(UserWarning):
    """The advisor of a Refine failed, so that attempts had no new hint. Once a run; ``run.attempts`` has each error.

    >>> import warnings
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 5"))
    >>> advisor = dn.ScriptedLM([dn.errors.ServerError("it is down")])
    >>> refine = dn.Refine(program, lambda row, prediction: 0.0, n=2, advisor_lm=advisor)
    >>> with warnings.catch_warnings(action="error", category=dn.AdvisorFailedWarning):
    ...     refine.run_sync(question="2+2?")
    Traceback (most recent call last):
        ...
    dspynb.errors.AdvisorFailedWarning: wave 2 of Refine(...) had no new hint: its advisor failed (ServerError: ...
    """


class DamagedFileWarning(UserWarning):
    """Lines of a run file or trace are damaged: they were left out, the rest was read. See ``RunReader.damaged``.

    >>> from pathlib import Path
    >>> import warnings
    >>> from dspynb.errors import DamagedFileWarning
    >>> text = '{"dspynb":1,"id":"x"}\\nno event\\n{"type":"RunEnded","span":1,"status":"stopped"}\\n'
    >>> size = Path("x.jsonl").write_text(text)
    >>> with warnings.catch_warnings(action="ignore", category=DamagedFileWarning):
    ...     run = dn.open_run("x.jsonl")
    >>> run.status, list(run.damaged)
    ('stopped', [2])
    """


class DataOverlapWarning(UserWarning):
    """Rows that are to judge a program are among those that it learns from, so that its score may be too high.

    >>> import warnings
    >>> opt, rows = dn.BootstrapFewShot(dn.metrics.exact_match()), [{"question": "2+2?", "answer": "4"}]
    >>> with warnings.catch_warnings(action="error", category=dn.DataOverlapWarning):
    ...     opt.compile_sync(dn.Predict("question -> answer"), rows, val=rows)
    Traceback (most recent call last):
        ...
    dspynb.errors.DataOverlapWarning: 1 of the val rows are among the train rows: scores on them may be too ...
    """


class NoFeedbackWarning(UserWarning):
    """A metric gives scores only, and what uses it could learn from feedback in words.

    >>> import warnings
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 5"))
    >>> opt = dn.GEPA(lambda row, prediction: prediction.answer == row.answer, max_steps=1)  # no dn.Score(…, feedback)
    >>> with warnings.catch_warnings(action="error", category=dn.NoFeedbackWarning):
    ...     opt.compile_sync(program, [{"question": "2+2?", "answer": "4"}])
    Traceback (most recent call last):
        ...
    dspynb.errors.NoFeedbackWarning: the metric <lambda> gives scores without feedback, so that a model has to guess ...
    """


class ScoreRangeWarning(UserWarning):
    """A metric gives scores below ``failure_score``, so that failing is worth more, or above ``perfect_score``.

    >>> import warnings
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 5"))
    >>> opt = dn.COPRO(lambda row, prediction: -abs(int(prediction.answer) - 4))  # failure_score=-10 would do
    >>> with warnings.catch_warnings(action="error", category=dn.ScoreRangeWarning):
    ...     opt.compile_sync(program, [{"question": "2+2?"}])
    Traceback (most recent call last):
        ...
    dspynb.errors.ScoreRangeWarning: the metric <lambda> gives scores below failure_score=0: a row that fails counts ...
    """


class UsageUnknownWarning(UserWarning):
    """A reply did not report its tokens, so that a budget of tokens counts an estimate: 4 characters a token.

    >>> import warnings
    >>> lm = dn.FunctionLM(lambda request: dn.LMReply("answer: 4", usage=dn.Usage(calls=1, prompt_tokens=None)))
    >>> ask = dn.Predict("question -> answer", lm=lm)
    >>> with warnings.catch_warnings(action="error", category=dn.UsageUnknownWarning), dn.Budget(tokens=5_000):
    ...     ask.run_sync(question="2+2?")
    Traceback (most recent call last):
        ...
    dspynb.errors.UsageUnknownWarning: a reply did not report its tokens, so the budget of 5000 tokens counts ...
    """
