"""Predict: one call of a model under a signature."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Self, Unpack

from dspynb.adapters.base import Adapter
from dspynb.adapters.resolve import resolve_adapter
from dspynb.data import Prediction
from dspynb.errors import DspynbError, InputError, ModelError, ParseError
from dspynb.keywords import configurable
from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest, refuse_media
from dspynb.lm.resolve import resolve_lm
from dspynb.lm.settings import OTHERWISE, REQUEST_ADVICE, RequestSettings, check_settings
from dspynb.modules.copying import copied
from dspynb.modules.discovery import warn_of_hidden
from dspynb.modules.module import Module
from dspynb.modules.predictor_call import Call, Listener
from dspynb.modules.stream import FieldText, stream
from dspynb.running.user_code import as_exception, exit_of
from dspynb.scope.call_context import Place
from dspynb.scope.candidates import Part
from dspynb.scope.core import Reading, Scope, current_scope, warn_of
from dspynb.scope.settings import setting
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["Predict", "with_hint"]


def with_hint(instruction: str, hint: str | None) -> str:
    """The effective instruction: a hint is composed onto it here and nowhere else."""
    return instruction if not hint else f"{instruction}\n\nHint: {hint}"


class Predict(Module):
    """Calls a model for a signature: ``await Predict("question -> answer")(question="…")``.

    ``instruction`` and ``demos`` (rows with inputs and outputs) are the predictor's own, and ``prefix``, how the
    model's turn begins with an adapter that begins it (``prefill``); ``lm`` and ``adapter`` override the settings;
    further keywords (temperature, max_tokens, …: the settings of LM that go with a request) go with every request.
    Raises ConfigurationError for an unknown keyword, SignatureError for a signature that cannot be read.

    >>> lm = dn.ScriptedLM(["answer: 4"])
    >>> ask = dn.Predict("question -> answer: int", demos=[{"question": "1+1?", "answer": 2}], lm=lm, temperature=0)
    >>> ask.run_sync(question="2+2?")
    Prediction(answer=4)
    >>> [message["role"] for message in lm.requests[0].messages]  # the demo is a turn of its own
    ['system', 'user', 'assistant', 'user']
    """

    is_predictor = True
    repairs = True  # whether a reply that cannot be read may be repaired, where the adapter does

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
        self.signature, self.prefix = as_signature(signature), prefix
        self.instruction, self.demos = instruction, [self.signature.by_name(demo) for demo in demos]
        self.lm, self.adapter, self.settings = lm, adapter, settings
        self.uid = uuid.uuid4().hex

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """None: a predictor is where the search for predictors ends."""
        return iter(())

    def __copy__(self) -> Self:
        return self._copied(dict(vars(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        shared = {"signature": self.signature, "lm": self.lm, "adapter": self.adapter}
        own = {k: copied(v, memo) for k, v in vars(self).items() if k not in shared}
        return self._copied({**own, **shared})

    def _copied(self, state: dict[str, Any]) -> Self:
        # Hints are addressed by uid, so a copy must not answer to its original's.
        new = type(self).__new__(type(self))
        vars(new).update(state, uid=uuid.uuid4().hex)
        return new

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.signature.describe()})"

    def _title(self) -> str:
        return f"{type(self).__name__}({self.signature.describe()})"

    def named_predictors(self) -> list[tuple[str, Any]]:
        """Itself."""
        return [("self", self)]

    def most_calls(self) -> int:
        """The call, and one to repair its reply."""
        return 2

    async def forward(self, **inputs: Any) -> Prediction:
        """The call itself."""
        return await self._inside(inputs)

    def stream(self, **inputs: Any) -> AsyncIterator[FieldText | Prediction]:
        """The call, told while the model writes: ``async for part in predictor.stream(question=…)``.

        Each part is a FieldText (``field``, ``text`` so far, ``delta``); the last one is the Prediction. A model that
        cannot stream gives each field at once. Leaving the loop early ends the call. Raises what the call raises.

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
        try:
            call = self._prepare(current_scope(), inputs)
            try:
                return await call.answer(listener)
            except ParseError as error:
                if not (self.repairs and getattr(call.adapter, "repair", False)):
                    raise
                return await self._repaired(call, error)
        except BaseException as error:
            exited = as_exception(error, f"the call of {self._title()}")
            if exited is error:
                raise
            raise exited from error

    async def _repaired(self, call: Call, error: ParseError) -> Prediction:
        """Ask once more, with the reply that could not be read. Raises the first error where asking fails."""
        again = call.again(call.adapter.format_repair(self.signature, call.request.messages, error))
        try:
            return await again.answer()
        except ModelError as failed:
            raise error from failed

    def _read(self, adapter: Adapter, reply: LMReply) -> dict[str, Any]:
        """The outputs in a reply. Raises ParseError."""
        return adapter.parse(self.signature, reply.text)

    def _fitted(self, adapter: Adapter, lm: LMProtocol) -> Adapter:  # noqa: ARG002
        """The adapter as this predictor speaks through it to this model."""
        return adapter

    def instruction_under(self, candidate: Part | None = None) -> str:
        """The instruction without hints: the signature's, replaced by the predictor's own if it is set, replaced by the
        candidate's if that is set. Computed here and nowhere else; an empty text is an instruction."""
        if candidate is not None and candidate.instruction is not None:
            return candidate.instruction
        own: str = self.signature.instruction if self.instruction is None else self.instruction
        return own

    def effective(self, reading: Reading) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """Instruction and demos in force: those under the scoped candidate, with the scoped hints composed onto the
        instruction, outermost first."""
        part = reading.candidate
        demos = self.demos if part is None or part.demos is None else part.demos
        return with_hint(self.instruction_under(part), reading.hint("instruction")), demos

    def _prepare(self, scope: Scope, inputs: Mapping[str, Any]) -> Call:
        """All that depends on the scope, read before anything is awaited."""
        reading = scope.read(self.uid)
        if reading.ended:
            warn_of(reading.ended)
        path = _path(scope, self)
        values = self.signature.check_inputs(inputs, path)
        lm = self._lm_in(scope, path)
        adapter = self._adapter_for(lm, scope)
        messages = self._messages(adapter, values, reading, path)
        refuse_media(lm, messages)
        return Call(
            lm=lm,
            request=self._request(lm, adapter, messages, scope),
            scope=scope,
            path=path,
            inputs=values,
            read=self._read,
            uid=self.uid,
            reading=reading,
            adapter=adapter,
        )

    def _lm_in(self, scope: Scope, path: str) -> LMProtocol:
        """The model: the call context's, the predictor's own, or the setting. In a replay, what stands for it."""
        lm = scope.context.lm
        if lm is None:
            lm = self.lm
        if lm is None:
            lm = setting("lm", scope)
        replay = scope.context.interceptor(Place.REPLAY)
        if replay is not None:
            return replay.model(path, lm)  # type: ignore[no-any-return]  # the scope knows no models
        return resolve_lm(lm)

    def _adapter_for(self, lm: LMProtocol, scope: Scope) -> Adapter:
        """The adapter: the predictor's own, the setting, or the one that the model prefers."""
        choice = self.adapter or setting("adapter", scope) or getattr(lm, "adapter", None)
        return self._fitted(resolve_adapter(choice), lm)

    def _messages(
        self, adapter: Adapter, values: Mapping[str, Any], reading: Reading, path: str
    ) -> tuple[Mapping[str, Any], ...]:
        """The prompt. Raises InputError for inputs that the adapter cannot write."""
        instruction, demos = self.effective(reading)
        prefix = getattr(reading.candidate, "prefix", None) or self.prefix
        more = {} if prefix is None else {"prefix": prefix}  # an adapter of the user's may know of none
        hint = reading.hint("field")
        try:
            return adapter.format(self.signature, values, instruction=instruction, demos=demos, hint=hint, **more)
        except DspynbError:
            raise
        except Exception as error:
            raise InputError(f"{path}: the inputs could not be written ({type(error).__name__}: {error})") from error
        except BaseException as error:
            exited = exit_of(error, f"the adapter {type(adapter).__name__}")
            if exited is None:
                raise
            raise InputError(f"{path}: the inputs could not be written ({exited})") from error

    def _request(
        self, lm: LMProtocol, adapter: Adapter, messages: tuple[Mapping[str, Any], ...], scope: Scope
    ) -> LMRequest:
        """The request; settings of the scope's sampling win over the predictor's own."""
        sampling = scope.context.sampling
        constrained = getattr(lm, "constrains", False)
        return LMRequest(
            messages=messages,
            settings={**self.settings, **sampling.settings},
            response_format=adapter.response_format(self.signature) if constrained else None,
            tools=getattr(adapter, "tools", ()),
            rollout=sampling.rollout.number,
        )


def _path(scope: Scope, predictor: Predict) -> str:
    run = scope.open_run
    path = getattr(run, "paths", {}).get(predictor.uid)
    if path is None:
        warn_of_hidden(scope, run, predictor)
    return str(path or predictor._title())
