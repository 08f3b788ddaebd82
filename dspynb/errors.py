"""All errors and warnings of dspynb, in one tree.

::

    DspynbError
    ├── ConfigurationError          a setting, a model or a file is missing or unusable
    │   ├── NoModelError            no language model is configured
    │   └── DownloadError           the embedded model could not be fetched or did not match its checksum
    ├── SignatureError              a signature is malformed
    ├── InputError                  a call got missing, extra or mistyped inputs
    ├── ParseError                  the output fields could not be parsed from a reply
    ├── CodeError                   the code that a model wrote failed in every iteration
    ├── UserCodeExit                user code called sys.exit(), or raised KeyboardInterrupt or the like
    ├── RewardError                 a reward or metric raised, or returned something that is not a score
    ├── HintError                   a hint has the wrong type or names a predictor that the program does not have
    ├── ScopeError                  a scope was carried, entered or left in a way that cannot work
    ├── SteeringError               a run does not accept an intervention, or no longer accepts it
    ├── ModelError                  a model call failed
    │   ├── AuthenticationError     the key is missing or wrong
    │   │   └── QuotaExceeded       the account has no credits or quota left
    │   ├── BadRequestError         the provider refused the request as it is
    │   │   ├── ContextTooLong      the request is longer than the model's context
    │   │   ├── ModelNotFound       the provider or server has no model of this name
    │   │   └── UnsupportedParameter the model does not accept a parameter, or its value
    │   ├── ContentFiltered         the provider's content filter stopped the request or the reply
    │   ├── RateLimited             too many requests or tokens (retryable)
    │   ├── ServerError             the provider failed (retryable)
    │   ├── ModelTimeout            no reply within the time limit (retryable)
    │   ├── ConnectionFailed        the provider could not be reached, or the connection broke (retryable)
    │   ├── MalformedReply          the provider's answer is not a reply (retryable)
    │   ├── ReplyTruncated          the reply was cut at the limit of tokens
    │   ├── Refused                 the model refused to answer
    │   ├── ScriptExhausted         a ScriptedLM has no reply left
    │   └── RecordingMiss           a strict recording has no reply for a request
    ├── AttemptsFailed              (also an ExceptionGroup) attempts of one call failed
    │   ├── AllAttemptsFailed       all attempts failed
    │   └── TooManyFailures         more than ``max_failures`` attempts failed
    ├── OptimizerError              an optimizer cannot continue: no proposal can be parsed, or every row fails
    ├── ExecutorError               rollouts cannot run on the executor
    │   └── WorkerLost              a rollout crashed the workers that ran it
    ├── JournalError                a run file cannot be read
    │   └── RunInUse                another run writes the run file
    ├── StateError                  a saved program cannot be read, or does not fit the program
    └── Halted                      control flow: no further call may start; never a failed row or attempt
        ├── RunStopped              the run was stopped before it had a result
        │   └── ReplayDiverged      a replay came to a call that was not recorded
        └── BudgetExhausted         the budget is spent

    RunInterrupted                  a CancelledError: the kernel's stop button or Ctrl-C ended the cell
    DamagedFileWarning              lines of a run file are damaged and were skipped
    DataOverlapWarning              validation or test rows are among the training rows
    NoFeedbackWarning               a metric returns scores only, where textual feedback would help
    ScoreRangeWarning               a metric returns scores outside the range that an optimizer's settings assume
    AdvisorFailedWarning            the advisor of a Refine failed, so attempts had no new hint
    TruncatedReplyWarning           a reply was cut at the limit of tokens and is used (``truncated="accept"``)
    TrackingWarning                 runs are tracked (``track="otel"``), and nothing receives their spans
    UsageUnknownWarning             a token budget counts an estimate, since a reply did not report its tokens
    NoReasoningWarning              a model returned no reasoning of its own, which was to be an output
    ModelAdaptedWarning             a setting was changed or left out, since the model does not take it as requested
    HiddenPredictorWarning          a program called a predictor that is not among its attributes
    ScopeClosedWarning              code outlived the attempt (or ``with`` block) whose scope it still uses
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, ClassVar

from dspynb.notebook_traceback import notebook_traceback, shorten_groups

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
    "ModelAdaptedWarning",
    "ModelError",
    "ModelNotFound",
    "ModelTimeout",
    "NoFeedbackWarning",
    "NoModelError",
    "NoReasoningWarning",
    "OptimizerError",
    "ParseError",
    "QuotaExceeded",
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
    "TrackingWarning",
    "TruncatedReplyWarning",
    "UnsupportedParameter",
    "UsageUnknownWarning",
    "UserCodeExit",
    "WorkerLost",
    "is_control_flow",
    "nearest",
    "of_dspy",
    "shorten",
]


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'lm'?"`` if a known name is close to ``name``, else an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def of_dspy(value: object) -> str:
    """A sentence for an object or class of DSPy, which often has the same name as dspynb's; empty for other values."""
    kind = value if isinstance(value, type) else type(value)
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] == "dspy":
            return " It is DSPy's: dn.from_dspy(…) makes it dspynb's."
    return ""


def shorten(value: object, limit: int = 300) -> str:
    """``str(value)`` on one line. The middle of a text of more than about ``limit`` characters is left out, if that
    makes it shorter."""
    text = " ".join(str(value).split())
    if len(text) <= limit:
        return text
    head = text[: limit // 2].rstrip()
    tail = text[-(limit // 2) :].lstrip()
    shortened = f"{head} … [{len(text) - len(head) - len(tail)} characters] … {tail}"
    return shortened if len(shortened) < len(text) else text


class DspynbError(Exception):
    """Base of all errors raised by dspynb.

    >>> try:
    ...     dn.Predict("question -> answer", lm=dn.ScriptedLM(["nonsense", "nonsense"])).run_sync(question="2+2?")
    ... except dn.DspynbError as error:  # here a ParseError, which has the field and the reply
    ...     print(type(error).__name__, error.field, error.raw)
    ParseError answer nonsense
    """

    def _render_traceback_(self) -> list[str]:
        """The traceback that IPython shows: short, with the user's own lines. ``%tb Verbose`` shows the full one."""
        return notebook_traceback(self)


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
    """The embedded model could not be downloaded, or the file does not match its checksum."""


class SignatureError(DspynbError, TypeError):
    """A signature is malformed: no output field, an unknown type, a bad string form."""


class InputError(DspynbError, ValueError):
    """A call got missing, extra or mistyped inputs; or an argument is out of range."""


class ParseError(DspynbError):
    """The output fields could not be parsed from a model's reply.

    Attributes: ``predictor`` (path or name), ``field`` (name or None), ``stage`` (``"locate"``, ``"decode"`` or
    ``"validate"``), ``raw`` (the whole reply), ``problem`` (what was wrong, one line), ``advice`` (what to do with this
    model; or empty).
    """

    def __init__(
        self,
        problem: str,
        *,
        raw: str,
        stage: str,
        field: str | None = None,
        predictor: str = "",
        advice: str = "",
    ) -> None:
        self.problem = problem
        self.raw = raw
        self.stage = stage
        self.field = field
        self.predictor = predictor
        self.advice = advice
        owner = f"{predictor}: " if predictor else ""
        place = f"field {field!r}, {stage}" if field else stage
        what_to_do = f"; {advice}" if advice else ""
        super().__init__(f"{owner}{problem} ({place}){what_to_do}. The reply was: {shorten(raw)!r}")
        self.add_note(
            "Say in the instruction what the reply should look like, or try another adapter=, such as 'json'."
        )

    def by(self, predictor: str, advice: str = "") -> ParseError:
        """A copy of the error with the name of the predictor whose reply it was, and what to do with its model."""
        return ParseError(
            self.problem, raw=self.raw, stage=self.stage, field=self.field, predictor=predictor, advice=advice
        )

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("raw", "stage", "field", "predictor", "advice")
        keywords = {name: getattr(self, name) for name in names}
        return partial(type(self), self.problem, **keywords), ()


class CodeError(DspynbError):
    """The code that a model wrote failed in every iteration.

    Attributes: ``code`` (the last source), ``problem`` (its error, as the model saw it), ``iterations`` (how many were
    run), ``module`` (the name of the module that ran them).
    """

    def __init__(self, module: str, *, code: str, problem: str, iterations: int) -> None:
        self.module = module
        self.code = code
        self.problem = problem
        self.iterations = iterations
        super().__init__(
            f"{module}: the generated code failed in {iterations} of {iterations} iterations; raise max_iterations=, "
            f"or use another model. The last error: {shorten(problem, 600)}. The last code: {shorten(code, 600)!r}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _code_error, (self.module, self.code, self.problem, self.iterations)


def _code_error(module: str, code: str, problem: str, iterations: int) -> CodeError:
    return CodeError(module, code=code, problem=problem, iterations=iterations)


class UserCodeExit(DspynbError):
    """User code raised something other than an Exception: SystemExit (``sys.exit()``), KeyboardInterrupt without a key
    press, another BaseException, or a CancelledError without a cancellation.

    Only the row or attempt in which it happened fails. ``__cause__`` is what was raised. For a metric, a RewardError is
    raised instead, for a hint function a HintError, for a model a ModelError; that of a tool is shown to the model.

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
    """A run does not accept an intervention, or no longer accepts it."""


class ModelError(DspynbError):
    """A call to a language model failed.

    Attributes: ``model`` (``provider/model``, or empty), ``status`` (HTTP status or None), ``request_id`` (the
    provider's, or None), ``retry_after`` (seconds that the provider asked to wait, or None), ``advice`` (what to do,
    the end of the message; or empty), ``retryable`` (whether the same request may succeed later), ``retries`` (how
    often the call was retried), ``usage`` (the Usage of the call, or None if the provider did not report it),
    ``cached`` (whether the call shared the request of an equal one, which was paid for), ``sent`` (the settings as they
    were sent, if the model does not take them as requested; else None), ``waited`` (the seconds in which the request
    waited for a slot, a rate limit or a retry), ``first_token`` (the seconds from sending to the first piece of a
    streamed reply, or None). If a reply arrived that is no answer: ``finish`` (its finish reason), ``reasoning`` (the
    text of its reasoning), ``response_id`` and ``response_model``, each of which can be None. Never contains an API
    key.
    Class attribute: ``remedy``, the advice that ``dn.LM`` gives.

    >>> error = dn.errors.RateLimited("slow down", model="openai/m", status=429, advice="come back tomorrow")
    >>> print(error)
    openai/m: slow down (status 429); come back tomorrow
    """

    retryable = False
    remedy: ClassVar[str] = ""
    retries = 0
    usage: Any = None
    cached = False
    sent: Any = None
    waited = 0.0
    first_token: float | None = None
    finish: str | None = None
    reasoning: str | None = None
    response_id: str | None = None
    response_model: str | None = None

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
        self.problem = message
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.advice = advice
        super().__init__(self._text())

    def _text(self) -> str:
        details = []
        if self.status:
            details.append(f"status {self.status}")
        if self.request_id:
            details.append(f"request {self.request_id}")
        if self.retry_after:
            details.append(f"retry after {self.retry_after:g} s")
        text = f"{self.model}: {self.problem}" if self.model else self.problem
        if details:
            text += f" ({', '.join(details)})"
        if self.advice:
            text += f"; {self.advice}"
        return text

    def advise(self, advice: str) -> None:
        """Replace the advice at the end of the message."""
        self.advice = advice
        self.args = (self._text(),)

    def _keywords(self) -> dict[str, Any]:
        """The keyword arguments that create an equal error."""
        names = ("model", "status", "request_id", "retry_after", "advice")
        return {name: getattr(self, name) for name in names}

    def __reduce__(self) -> tuple[Any, ...]:
        state = {n: value for n, value in vars(self).items() if n in _MODEL_ERROR_STATE}
        return _model_error, (type(self), self.problem, self._keywords(), self.args), state


_MODEL_ERROR_STATE = frozenset(
    {"retries", "usage", "cached", "sent", "waited", "first_token"}
    | {"finish", "text", "reasoning", "response_id", "response_model"}
)
"""The attributes of model errors that are set after an error was created."""


def _model_error(
    kind: type[ModelError], problem: str, keywords: dict[str, Any], message: tuple[Any, ...]
) -> ModelError:
    error = kind(problem, **keywords)
    error.args = message  # without a request id that was set after the error was created
    return error


class AuthenticationError(ModelError):
    """The key is missing, wrong, or not allowed to use the model."""

    remedy = "check api_key= or the key in the environment, what it may use, and its quota"


class QuotaExceeded(AuthenticationError):
    """The account has no credits or quota left. Waiting does not help, so the call is not retried."""

    remedy = "add credits or raise the limit of the account at the provider, or use another key"


class BadRequestError(ModelError):
    """The provider refused the request as it is: an unknown model, a wrong setting."""

    remedy = "check the name of the model and the settings"


class ModelNotFound(BadRequestError):
    """The provider or server has no model of the name that was sent, or the account may not use it.

    The message has the name that was sent. It can differ from the name of the LM: the provider before the first slash
    is not sent.
    """

    remedy = "check the name of the model"


class UnsupportedParameter(BadRequestError):
    """The model or server does not accept a parameter of the request, or its value.

    ``parameter``: its name as in the provider's message, such as ``"temperature"``, ``"response_format"``, ``"tools"``
    or ``"maxOutputTokens"``. ``allowed``: the smallest and the largest value that the message allows, as floats
    (``-inf`` or ``inf`` for a bound that it does not name), or None if it names none.

    >>> error = dn.errors.UnsupportedParameter("only 1 is allowed", parameter="temperature", allowed=(1.0, 1.0))
    >>> error.parameter, error.allowed
    ('temperature', (1.0, 1.0))
    """

    remedy = "leave the setting out or change it, or use another model"

    def __init__(
        self, message: str, *, parameter: str = "", allowed: tuple[float, float] | None = None, **details: Any
    ) -> None:
        self.parameter = parameter
        self.allowed = allowed
        super().__init__(message, **details)

    def _keywords(self) -> dict[str, Any]:
        return {**super()._keywords(), "parameter": self.parameter, "allowed": self.allowed}


class ContextTooLong(BadRequestError):
    """The request is longer than the model's context."""

    remedy = "shorten the inputs, demos or history, or use a model with a longer context"


class ContentFiltered(ModelError):
    """The provider's content filter stopped the request or the reply."""

    remedy = "reword the prompt, or use another model"


class RateLimited(ModelError):
    """Too many requests or tokens at once. ``retry_after``: the seconds to wait, if the provider reported them."""

    retryable = True
    remedy = "lower rpm=, tpm= or concurrency= of dn.LM, or raise retries="


class ServerError(ModelError):
    """The provider failed (5xx)."""

    retryable = True
    remedy = "try again later, or raise retries= of dn.LM"


class ModelTimeout(ModelError):
    """No reply arrived within the time limit."""

    retryable = True
    remedy = "raise timeout= of dn.LM, or ask for a shorter reply"


class ConnectionFailed(ModelError):
    """The provider could not be reached, or the connection broke during the reply."""

    retryable = True
    remedy = "check api_base= and that the server runs and can be reached"


class MalformedReply(ModelError):
    """The provider's answer is not a reply: it is not JSON, has no choices, or is empty."""

    retryable = True
    remedy = "check that api_base= is the address of an OpenAI-compatible server"


class ReplyTruncated(ModelError):
    """The reply was cut at the limit of tokens, so that it is no answer. ``text``: the part that arrived.
    ``reasoning``: the reasoning that arrived, or None.

    The reply is not cached or repaired, and the request is not retried, since its reply would be cut again. Raise the
    limit that the message names. ``dn.LM(…, truncated="accept")`` takes such a reply instead.

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
    """The model refused to answer. ``text``: its reply. The request is not retried.

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
    """A ScriptedLM has no reply left."""


class RecordingMiss(ModelError):
    """A recording in strict mode has no reply for a request."""


class AttemptsFailed(DspynbError, ExceptionGroup[Exception]):
    """Attempts of one Refine or BestOfN call failed. ``exceptions``: the error of each of them, in order."""

    def __new__(cls, message: str, errors: Sequence[Exception]) -> AttemptsFailed:
        return super().__new__(cls, message, errors)

    def __init__(self, message: str, errors: Sequence[Exception]) -> None:
        super().__init__(message, errors)
        shorten_groups(AttemptsFailed)

    def derive(self, errors: Sequence[Any], /) -> AttemptsFailed:  # type: ignore[override]  # stays an AttemptsFailed
        return type(self)(self.message, errors)


class AllAttemptsFailed(AttemptsFailed):
    """All attempts failed: none has a scored prediction.

    >>> program = dn.Predict("question -> answer", lm=dn.ScriptedLM([]))
    >>> refine = dn.Refine(program, lambda row, prediction: 1.0, n=2, hints="feedback")
    >>> try:
    ...     refine.run_sync(question="2+2?")
    ... except dn.AllAttemptsFailed as error:
    ...     print([type(failure).__name__ for failure in error.exceptions])
    ['ScriptExhausted', 'ScriptExhausted']
    """


class TooManyFailures(AttemptsFailed):
    """More attempts failed than ``max_failures`` allows, although some succeeded."""


class OptimizerError(DspynbError):
    """An optimizer cannot continue: no proposal of its model can be parsed, or every row fails with the same program.

    >>> program = dn.Predict("question -> answer", lm=dn.ScriptedLM([]))
    >>> opt = dn.BootstrapFewShot(dn.metrics.exact_match())
    >>> opt.compile_sync(program, [{"question": "2+2?", "answer": "4"}])
    Traceback (most recent call last):
        ...
    dspynb.errors.OptimizerError: the teacher failed on all 1 rows, so no demo was made. The first error: ...
    """


class ExecutorError(DspynbError):
    """Rollouts cannot run on the executor: there is no scheduler or worker, versions differ, a value cannot be sent, or
    the cluster has shut down. Finished rollouts stay recorded.

    >>> executor = dn.DaskExecutor("tcp://127.0.0.1:1", timeout=0.1)  # where no scheduler is
    >>> dn.Evaluate(dn.metrics.exact_match(), executor=executor).run_sync(dn.Predict("n -> answer"), [{"n": "1"}])
    Traceback (most recent call last):
        ...
    dspynb.errors.ExecutorError: no Dask scheduler answers at tcp://127.0.0.1:1 within 0.1 s ...
    """


class WorkerLost(ExecutorError):
    """A rollout crashed each worker that ran it."""


class JournalError(DspynbError):
    """A run file cannot be read: it is no journal, or has a newer format."""


class RunInUse(JournalError):
    """A run cannot be resumed, since another run writes its file. Both would make the same calls.

    ``path``: the run file. ``pid``, ``host``, ``since`` (unix seconds): the process that writes the file, its host, and
    since when; None where unknown. ``lock_file``: the file to delete if that process has ended, where this machine
    cannot find that out; None if the process is known to run.

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
        self.path = path
        self.pid = pid
        self.host = host
        self.since = since
        self.here = here
        self.lock_file = delete
        writer = f"this process ({pid})" if here else f"process {pid or '(unknown)'} on host {host or '(unknown)'}"
        message = f"cannot resume {path}: {writer} writes it"
        if since is not None:
            message += f" since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))}"
        message += "; stop that run, or wait until it has ended"
        if delete is not None:
            message += f"; if that process no longer runs, delete {delete} and resume again"
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        keywords: dict[str, Any] = {
            "pid": self.pid,
            "host": self.host,
            "since": self.since,
            "here": self.here,
            "delete": self.lock_file,
        }
        return partial(RunInUse, **keywords), (self.path,)


class StateError(DspynbError, ValueError):
    """A saved program cannot be read, has another version, or differs from the program into which it is loaded.

    ``differences``: one line for each difference, beginning with a path; empty for a file that cannot be read.

    >>> saved = dn.Predict("question -> answer").dump_state()
    >>> try:
    ...     dn.Predict("question -> answer: int").load_state(saved)
    ... except dn.StateError as error:
    ...     print(error.differences)
    ("self: type of field 'answer' was str, is int",)
    """

    def __init__(self, message: str, differences: Sequence[str] = ()) -> None:
        self.message = message
        self.differences = tuple(differences)
        super().__init__("\n- ".join([message, *self.differences]))

    def __reduce__(self) -> tuple[Any, ...]:
        return StateError, (self.message, self.differences)


class Halted(DspynbError):
    """No further call may start. Control flow: it passes through rows and attempts, and the outermost run ends with the
    best result so far. ``run``: the run, with all that it has recorded."""

    status = "stopped"

    def __init__(self, message: str, run: object = None) -> None:
        super().__init__(message)
        self.run: Any = run

    def _render_traceback_(self) -> list[str]:
        return notebook_traceback(self)

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
        self,
        message: str = "the run was stopped before it had a result; error.run has what was done",
        run: object = None,
    ) -> None:
        super().__init__(message, run)


class BudgetExhausted(Halted):
    """A budget is spent; the message says which. ``run``: the run, with all that it has recorded.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> with dn.Budget(calls=1):
    ...     first = ask.run_sync(question="2+2?")
    ...     try:
    ...         ask.run_sync(question="2+3?")
    ...     except dn.BudgetExhausted as error:
    ...         print(error)
    the budget of 1 calls is spent; give a larger dn.Budget(calls=…) to continue
    """

    status = "exhausted"


class ReplayDiverged(RunStopped):
    """A replay came to a call that was not recorded, or was recorded with another prompt. ``divergence`` has the
    difference.

    It is a RunStopped, so that it passes through attempts and rows and ends them all.

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

    def __init__(self, message: str, divergence: object = None, run: object = None) -> None:
        super().__init__(message, run)
        self.divergence: Any = divergence


def is_control_flow(error: BaseException) -> bool:
    """Whether an error, or one in a group, ends the whole work and must not be counted as a failure."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_control_flow, error.exceptions))
    return isinstance(error, asyncio.CancelledError | Halted)


class RunInterrupted(asyncio.CancelledError):
    """The kernel's stop button or Ctrl-C ended the cell. ``run``: the run, with all that it has recorded.

    It is not a DspynbError: like every CancelledError it must pass through ``except Exception``, so that a loop over
    runs ends too.

    >>> issubclass(dn.RunInterrupted, Exception)  # so that ``except Exception`` lets it pass
    False
    """

    def __init__(self, run: object = None) -> None:
        super().__init__("the stop button or Ctrl-C interrupted this run; dn.last_run() has what was done")
        self.run: Any = run


class ScopeClosedWarning(UserWarning):
    """Code that outlived an attempt or a ``with`` block made a call, to which the hints of the scope no longer apply.

    >>> import asyncio, warnings
    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> async def main():
    ...     with dn.hints("Be brief."):
    ...         late = asyncio.create_task(ask(question="2+2?"))  # await it here, where the hint applies
    ...     await late
    >>> with warnings.catch_warnings(action="error", category=dn.ScopeClosedWarning):
    ...     dn.run_sync(main)
    Traceback (most recent call last):
        ...
    dspynb.errors.ScopeClosedWarning: the task ... outlived a hints(...) block (opened at ...) and made a call; ...
    """


class HiddenPredictorWarning(UserWarning):
    """A program called a predictor that is not among its attributes, so that hints and candidates cannot reach it.

    >>> import warnings
    >>> dn.configure(lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> class Answer(dn.Module):
    ...     async def forward(self, question):  # the predictor should be created in __init__, as self.predict
    ...         return await dn.Predict("question -> answer")(question=question)
    >>> with warnings.catch_warnings(action="error", category=dn.HiddenPredictorWarning):
    ...     Answer().run_sync(question="2+2?")
    Traceback (most recent call last):
        ...
    dspynb.errors.HiddenPredictorWarning: Answer called Predict(...), which is not among its parts: it is created in ...
    """


class ModelAdaptedWarning(UserWarning):
    """A setting was renamed, changed or left out, because the model does not take it as it was requested.

    Each change is named once for each model. ``run.calls`` has the settings as requested and as sent, and
    ``LM(strict=True)`` raises UnsupportedParameter instead.

    >>> import warnings
    >>> lm = dn.LM("openai/gpt-5", api_base="http://127.0.0.1:9/v1", api_key="none", retries=0, temperature=0.7)
    >>> with warnings.catch_warnings(action="error", category=dn.ModelAdaptedWarning):
    ...     dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?")
    Traceback (most recent call last):
        ...
    dspynb.errors.ModelAdaptedWarning: openai/gpt-5 does not take these settings as requested: temperature=0.7 was ...
    """


class AdvisorFailedWarning(UserWarning):
    """The advisor of a Refine failed, so that attempts had no new hint. Issued once in a run; ``run.attempts`` has all
    errors.

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
    """Lines of a run file or trace are damaged. They were skipped, and the rest was read. See ``RunReader.damaged``.

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
    """Validation or test rows are among the training rows, so that scores on them may be too high.

    >>> import warnings
    >>> opt, rows = dn.BootstrapFewShot(dn.metrics.exact_match()), [{"question": "2+2?", "answer": "4"}]
    >>> with warnings.catch_warnings(action="error", category=dn.DataOverlapWarning):
    ...     opt.compile_sync(dn.Predict("question -> answer"), rows, val=rows)
    Traceback (most recent call last):
        ...
    dspynb.errors.DataOverlapWarning: 1 of the val rows are among the train rows: scores on them may be too ...
    """


class NoFeedbackWarning(UserWarning):
    """A metric returns scores only, although the optimizer or Refine could learn from textual feedback.

    >>> import warnings
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 5"))
    >>> opt = dn.GEPA(lambda row, prediction: prediction.answer == row.answer, max_steps=1)  # no dn.Score(…, feedback)
    >>> with warnings.catch_warnings(action="error", category=dn.NoFeedbackWarning):
    ...     opt.compile_sync(program, [{"question": "2+2?", "answer": "4"}])
    Traceback (most recent call last):
        ...
    dspynb.errors.NoFeedbackWarning: the metric <lambda> gives scores without feedback, so that a model has to guess ...
    """


class NoReasoningWarning(UserWarning):
    """A model returned no reasoning of its own, although it was to be the output ``reasoning``, which is empty. Issued
    once for each model.

    >>> import warnings
    >>> from dspynb.errors import NoReasoningWarning
    >>> think = dn.ChainOfThought("question -> answer", native=True, lm=dn.ScriptedLM(["answer: 4"]))
    >>> with warnings.catch_warnings(action="error", category=NoReasoningWarning):
    ...     think.run_sync(question="2+2?")
    Traceback (most recent call last):
        ...
    dspynb.errors.NoReasoningWarning: scripted returned no reasoning of its own, so that the output reasoning is ...
    """


class ScoreRangeWarning(UserWarning):
    """A metric returns scores below ``failure_score``, so that failed rows count more, or above ``perfect_score``.

    >>> import warnings
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 5"))
    >>> opt = dn.COPRO(lambda row, prediction: -abs(int(prediction.answer) - 4))  # failure_score=-10 would do
    >>> with warnings.catch_warnings(action="error", category=dn.ScoreRangeWarning):
    ...     opt.compile_sync(program, [{"question": "2+2?"}])
    Traceback (most recent call last):
        ...
    dspynb.errors.ScoreRangeWarning: the metric <lambda> gives scores below failure_score=0: a row that fails counts ...
    """


class TruncatedReplyWarning(UserWarning):
    """A reply of a model with ``truncated="accept"`` was cut at the limit of tokens. It is said once for each model.
    Also: an output of the embedded model is as long as its grammar allows, and was probably cut there.

    >>> import warnings
    >>> lm = dn.LM("openai/gpt-4.1-mini", max_tokens=8, truncated="accept")
    >>> warnings.filterwarnings("error", category=dn.TruncatedReplyWarning)  # to find the first such reply
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


class TrackingWarning(UserWarning):
    """Runs are tracked (``dn.configure(track="otel")``), and nothing is set up that would receive their spans. The runs
    continue. Issued once in a process. See docs/opentelemetry.md."""
