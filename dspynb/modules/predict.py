"""Predict: one call of a model under a signature."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Self, Unpack

from dspynb.adapters.base import Adapter, outputs_so_far
from dspynb.adapters.native_reasoning import NativeReasoning
from dspynb.adapters.resolve import resolve_adapter
from dspynb.data import Prediction
from dspynb.errors import DspynbError, InputError, ModelError, ParseError
from dspynb.keywords import configurable
from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest, is_truncated, refuse_media, returns_reasoning
from dspynb.lm.resolve import resolve_lm
from dspynb.lm.settings import OTHERWISE, REQUEST_ADVICE, RequestSettings, check_settings
from dspynb.modules.call_settings import NAMES as SETTINGS_OF_CALL
from dspynb.modules.call_settings import for_this_call
from dspynb.modules.copying import copy_value
from dspynb.modules.demo_checks import warn_of_demos_without_outputs
from dspynb.modules.discovery import warn_of_hidden
from dspynb.modules.module import Module
from dspynb.modules.predictor_call import Call, Listener
from dspynb.modules.stream import FieldText, stream
from dspynb.running.user_code import as_exception, exit_of
from dspynb.scope.call_context import Place, Sampling
from dspynb.scope.candidates import Part
from dspynb.scope.core import Reading, Scope, current_scope, warn_of
from dspynb.scope.settings import setting
from dspynb.signatures.augment import reasoning_output
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["Predict", "with_hint"]


def with_hint(instruction: str, hint: str | None) -> str:
    """The instruction with a hint appended. Hints are appended here and nowhere else."""
    if not hint:
        return instruction
    return f"{instruction}\n\nHint: {hint}"


class Predict(Module):
    """Calls a model for a signature: ``await Predict("question -> answer")(question="…")``.

    ``instruction``: replaces the signature's. ``demos``: rows with inputs and outputs. ``prefix``: the beginning of the
    model's turn, for an adapter that begins it (``prefill``). ``lm`` and ``adapter`` override the settings. Further
    keywords (temperature, max_tokens, …: the settings of LM that are sent with a request) are sent with every request.
    Settings for one call: ``predict(question="…", call={"temperature": 0, "lm": …, "demos": …})``, with any keyword
    above in ``call``; or ``lm=``, ``demos=`` and ``config={"temperature": 0}``, as in DSPy. An input of the signature
    with such a name wins. A temperature that a search sets for its attempts takes precedence.

    Raises ConfigurationError for an unknown keyword, SignatureError for a signature that cannot be parsed.

    >>> lm = dn.ScriptedLM(["answer: 4"])
    >>> ask = dn.Predict("question -> answer: int", demos=[{"question": "1+1?", "answer": 2}], lm=lm, temperature=0)
    >>> ask.run_sync(question="2+2?")
    Prediction(answer=4)
    >>> [message["role"] for message in lm.requests[0].messages]  # the demo is a turn of its own
    ['system', 'user', 'assistant', 'user']
    """

    is_predictor = True
    native_reasoning: bool | None = None
    """Whether the model's own reasoning fills the output of ``dn.Reasoning``; None for what the model does."""
    repairs = True  # whether a reply that cannot be parsed may be repaired, if the adapter repairs replies

    @configurable(passes_to=RequestSettings, renamed=REQUEST_ADVICE, otherwise=OTHERWISE)
    def __init__(
        self,
        signature: type[Signature] | str,
        *,
        instruction: str | None = None,
        demos: Sequence[Mapping[str, Any]] = (),
        prefix: str | None = None,
        lm: Any = None,
        adapter: Any = None,
        **settings: Unpack[RequestSettings],
    ) -> None:
        check_settings(type(self).__name__, settings)
        self.signature = as_signature(signature)
        self.prefix = prefix
        self.instruction = instruction
        self.demos = [self.signature.by_name(demo) for demo in demos]
        self.lm = lm
        self.adapter = adapter
        self.settings = settings
        self.uid = uuid.uuid4().hex

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """Nothing: a predictor contains no other predictors."""
        return iter(())

    def __copy__(self) -> Self:
        return self._new_instance(dict(vars(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        shared = {"signature": self.signature, "lm": self.lm, "adapter": self.adapter}
        copies = {name: copy_value(value, memo) for name, value in vars(self).items() if name not in shared}
        return self._new_instance({**copies, **shared})

    def _new_instance(self, state: dict[str, Any]) -> Self:
        # A copy has a uid of its own, since hints for the original must not apply to it.
        new = type(self).__new__(type(self))
        vars(new).update(state, uid=uuid.uuid4().hex)
        return new

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.signature.describe()})"

    def _title(self) -> str:
        return f"{type(self).__name__}({self.signature.describe()})"

    def named_predictors(self) -> list[tuple[str, Any]]:
        """The predictor itself, under the path ``self``."""
        return [("self", self)]

    def most_calls(self) -> int:
        """2: the call, and one more to repair its reply."""
        return 2

    async def forward(self, **inputs: Any) -> Prediction:
        """Call the model and parse its reply."""
        return await self._inside(inputs)

    def stream(self, **inputs: Any) -> AsyncIterator[FieldText | Prediction]:
        """Call the model and yield its output while it writes: ``async for part in predictor.stream(question=…)``.

        Each part is a FieldText (``field``, ``text`` so far, ``delta``); the last part is the Prediction. For a model
        that cannot stream, each field comes as one part. Leaving the loop early cancels the call. Raises the errors of
        the call.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["[[ ## answer ## ]]\\n4"]))
        >>> async def main():
        ...     return [part async for part in ask.stream(question="2+2?")]
        >>> dn.run_sync(main)
        [FieldText(field='answer', text='4', delta='4'), Prediction(answer='4')]
        """
        return stream(self, inputs)

    def _inside(self, inputs: Mapping[str, Any]) -> Coroutine[Any, Any, Prediction]:
        return self._answer(inputs)

    async def _answer(self, inputs: Mapping[str, Any], listener: Listener | None = None) -> Prediction:
        if not SETTINGS_OF_CALL.isdisjoint(inputs):
            changed, values = for_this_call(self, Predict, inputs)
            if changed is not self:
                return await changed._answer(values, listener)
            inputs = values
        try:
            call = self._prepare(current_scope(), inputs)
            try:
                return await call.answer(listener)
            except ParseError as error:
                if not (self.repairs and getattr(call.adapter, "repair", False)):
                    raise
                if call.reply is not None and is_truncated(call.reply):  # a repair would be cut at the same limit
                    raise
                return await self._repair(call, error)
        except BaseException as error:
            failure = as_exception(error, f"the call of {self._title()}")
            if failure is error:
                raise
            raise failure from error

    async def _repair(self, call: Call, error: ParseError) -> Prediction:
        """Call the model once more, with the reply that could not be parsed. Raises ``error`` if this call fails."""
        repair = call.repair(call.adapter.format_repair(self.signature, call.request.messages, error))
        try:
            return await repair.answer()
        except ModelError as model_error:
            raise error from model_error

    def _read(self, adapter: Adapter, reply: LMReply) -> dict[str, Any]:
        """Parse the outputs of a reply; of a truncated one, as far as its text goes. Raises ParseError."""
        try:
            values = adapter.parse(self.signature, reply.text)
        except ParseError as error:
            if not is_truncated(reply):
                raise
            values = outputs_so_far(adapter, self.signature, reply.text, error)
        if type(adapter) is NativeReasoning:
            return adapter.with_reasoning(self.signature, values, reply.reasoning)
        return values

    def _fitted(self, adapter: Adapter, lm: LMProtocol, settings: Mapping[str, Any]) -> Adapter:
        """The adapter that this predictor uses with a model and the settings of a request; subclasses may wrap it."""
        output = reasoning_output(self.signature)
        if output is None or not self._has_native_reasoning(lm, settings):
            return adapter
        return NativeReasoning(adapter, output)

    def _has_native_reasoning(self, lm: LMProtocol, settings: Mapping[str, Any]) -> bool:
        if self.native_reasoning is not None:
            return self.native_reasoning
        return returns_reasoning(lm, settings)

    def instruction_under(self, candidate: Part | None = None) -> str:
        """The instruction without hints: the candidate's, else the predictor's own, else the signature's. Computed here
        and nowhere else. An empty text counts as an instruction."""
        if candidate is not None and candidate.instruction is not None:
            return candidate.instruction
        if self.instruction is not None:
            return self.instruction
        return self.signature.instruction

    def effective(self, reading: Reading) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """The instruction and demos in force: those of the scoped candidate, else the predictor's own, with the scoped
        hints composed onto the instruction, outermost first."""
        part = reading.candidate
        demos = self.demos if part is None or part.demos is None else part.demos
        return with_hint(self.instruction_under(part), reading.hint("instruction")), demos

    def prompt(self, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        """The messages that a call with these inputs would send in the present scope. No call is made. Raises the
        errors of a call before it is sent."""
        scope = current_scope()
        path = _path(scope, self)
        settings = {**self.settings, **scope.context.sampling.settings}
        adapter = self._adapter_for(self._lm_in(scope, path), scope, settings)
        return self._messages(adapter, self.signature.check_inputs(inputs, path), scope.read(self.uid), path)

    def _prepare(self, scope: Scope, inputs: Mapping[str, Any]) -> Call:
        """Read everything that depends on the scope, before anything is awaited."""
        reading = scope.read(self.uid)
        if reading.ended:
            warn_of(reading.ended)
        path = _path(scope, self)
        values = self.signature.check_inputs(inputs, path)
        lm = self._lm_in(scope, path)
        sampling = scope.context.sampling
        settings = {**self.settings, **sampling.settings}  # those of the scope take precedence
        adapter = self._adapter_for(lm, scope, settings)
        messages = self._messages(adapter, values, reading, path)
        refuse_media(lm, messages)
        return Call(
            lm=lm,
            request=self._request(lm, adapter, messages, sampling, settings),
            scope=scope,
            path=path,
            inputs=values,
            signature=self.signature,
            read=self._read,
            uid=self.uid,
            reading=reading,
            adapter=adapter,
        )

    def _lm_in(self, scope: Scope, path: str) -> LMProtocol:
        """The model: the call context's, else the predictor's own, else the setting. In a replay, its replacement."""
        lm = scope.context.lm
        if lm is None:
            lm = self.lm
        if lm is None:
            lm = setting("lm", scope)
        replay = scope.context.interceptor(Place.REPLAY)
        if replay is not None:
            return replay.model(path, lm)  # type: ignore[no-any-return]  # the scope has no types of models
        return resolve_lm(lm)

    def _adapter_for(self, lm: LMProtocol, scope: Scope, settings: Mapping[str, Any]) -> Adapter:
        """The adapter: the predictor's own, else the setting, else the one that the model prefers."""
        choice = self.adapter or setting("adapter", scope) or getattr(lm, "adapter", None)
        return self._fitted(resolve_adapter(choice), lm, settings)

    def _messages(
        self, adapter: Adapter, values: Mapping[str, Any], reading: Reading, path: str
    ) -> tuple[Mapping[str, Any], ...]:
        """The messages of the prompt. Raises InputError for inputs that the adapter cannot write."""
        instruction, demos = self.effective(reading)
        if demos:
            warn_of_demos_without_outputs(self, demos, path)
        prefix = getattr(reading.candidate, "prefix", None) or self.prefix
        options = {} if prefix is None else {"prefix": prefix}  # a user's adapter may not have this parameter
        hint = reading.hint("field")
        try:
            return adapter.format(self.signature, values, instruction=instruction, demos=demos, hint=hint, **options)
        except DspynbError:
            raise
        except Exception as error:
            raise InputError(f"{path}: the inputs could not be written ({type(error).__name__}: {error})") from error
        except BaseException as error:
            exit_error = exit_of(error, f"the adapter {type(adapter).__name__}")
            if exit_error is None:
                raise
            raise InputError(f"{path}: the inputs could not be written ({exit_error})") from error

    def _request(
        self,
        lm: LMProtocol,
        adapter: Adapter,
        messages: tuple[Mapping[str, Any], ...],
        sampling: Sampling,
        settings: Mapping[str, Any],
    ) -> LMRequest:
        response_format = grammar = None
        if getattr(lm, "constrains", False):
            response_format = adapter.response_format(self.signature)
        if getattr(lm, "takes_grammar", False):
            make_grammar = getattr(adapter, "grammar", None)  # a user's adapter may have none
            grammar = None if make_grammar is None else make_grammar(self.signature)
        return LMRequest(
            messages=messages,
            settings=settings,
            response_format=response_format,
            tools=getattr(adapter, "tools", ()),
            rollout=sampling.rollout.number,
            format_in_prompt=True,
            grammar=grammar,
        )


def _path(scope: Scope, predictor: Predict) -> str:
    run = scope.open_run
    path = getattr(run, "paths", {}).get(predictor.uid)
    if path is None:
        warn_of_hidden(scope, run, predictor)
    return str(path or predictor._title())
