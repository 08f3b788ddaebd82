"""MultiChainComparison: several lines of reasoning, which one more call compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Unpack

from dspynb.data import Prediction
from dspynb.errors import InputError
from dspynb.keywords import configurable
from dspynb.lm.settings import OTHERWISE, REQUEST_ADVICE, RequestSettings
from dspynb.modules.chain_of_thought import ChainOfThought
from dspynb.modules.function_program import checked_program
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.modules.sampling import sample
from dspynb.options import Float, Whole
from dspynb.signatures.fields import Field, Input, Output
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["MultiChainComparison"]

_MAX_ANSWERS = 1_000


class MultiChainComparison(Module):
    """Gives a predictor ``m`` earlier answers with their reasoning, and asks it for a corrected one (the shape is
    DSPy's; Yoran et al., 2023, arXiv:2304.13007).

    ``await compare(question="…", completions=[…])``: ``m`` predictions, dicts or rows with ``rationale`` or
    ``reasoning``, and the last output field. Without ``completions``, ``sampler`` (by default a ChainOfThought of the
    signature) makes ``m`` samples at ``temperature``. ``sampler=None`` makes completions required. The prediction has
    ``rationale`` before the outputs. Paths: ``predict``, and those of the sampler under ``sampler``. ``lm`` and
    ``adapter`` are for both predictors, further keywords for the comparing one. Raises ConfigurationError or
    SignatureError for wrong arguments; when called, InputError for completions that do not fit.

    >>> lm = dn.ScriptedLM(["rationale: The second is right.\\nanswer: 4"])
    >>> compare = dn.MultiChainComparison("question -> answer", m=2, lm=lm)
    >>> tried = [{"reasoning": "Two and three.", "answer": "5"}, {"reasoning": "Two and two.", "answer": "4"}]
    >>> compare.run_sync(question="2+2?", completions=tried).answer
    '4'
    """

    @configurable(passes_to=RequestSettings, renamed=REQUEST_ADVICE, otherwise=OTHERWISE)
    def __init__(  # type: ignore[misc]  # temperature is one of the settings; here it has a default
        self,
        signature: type[Signature] | str,
        m: Annotated[int, Whole(1, _MAX_ANSWERS)] = 3,
        temperature: Float | None = 0.7,
        *,
        sampler: Module | str | None = "chain_of_thought",
        lm: Any = None,
        adapter: Any = None,
        **settings: Unpack[RequestSettings],
    ) -> None:
        self.m = m
        self.temperature = temperature
        self.signature = as_signature(signature)
        self._last = list(self.signature.output_fields)[-1]
        if temperature is not None:
            settings["temperature"] = temperature
        self.predict = Predict(_comparing(self.signature, m), lm=lm, adapter=adapter, **settings)
        self.sampler: Module | None = None
        if sampler == "chain_of_thought":
            self.sampler = ChainOfThought(self.signature, lm=lm, adapter=adapter)
        elif sampler:
            self.sampler = checked_program(sampler)

    async def forward(self, completions: Iterable[Any] | None = None, **inputs: Any) -> Prediction:
        """The corrected rationale and outputs."""
        if completions is None:
            if self.sampler is None:
                raise InputError(f"{self._title()} has no sampler; give it completions=[…]")
            completions = await sample(self.sampler, inputs, self.m, self.temperature)
        attempts = {_input_name(i): self._attempt_text(i, completion) for i, completion in enumerate(completions)}
        if len(attempts) != self.m:
            raise InputError(f"{self._title()} compares m={self.m} completions, got {len(attempts)}")
        return await self.predict(**attempts, **inputs)

    def _attempt_text(self, number: int, completion: object) -> str:
        if not isinstance(completion, Mapping):
            raise InputError(f"completion {number} is {type(completion).__name__}; give a prediction or a dict")
        reasoning = completion.get("rationale", completion.get("reasoning"))
        if reasoning is None or self._last not in completion:
            raise InputError(
                f"completion {number} needs 'rationale' or 'reasoning', and {self._last!r}; "
                f"it has {', '.join(completion)}"
            )
        answer = _first_line(completion[self._last])
        return f"«I'm trying to {_first_line(reasoning)} I'm not sure but my prediction is {answer}»"

    def most_calls(self) -> int:
        """The calls of all samples and of the comparison."""
        calls = self.predict.most_calls()
        if self.sampler:
            calls += self.m * self.sampler.most_calls()
        return calls

    def _title(self) -> str:
        return f"MultiChainComparison({self.signature.describe()})"

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        return self.signature.input_fields if kind == "input" else self.predict._fields(kind)


def _comparing(signature: type[Signature], m: int) -> type[Signature]:
    for i in range(m):
        declared = Input(desc="${reasoning attempt}", alias=f"Student Attempt #{i + 1}")
        signature = signature.append(_input_name(i), declared)
    return signature.prepend("rationale", Output(desc="${corrected reasoning}", alias="Accurate Reasoning"))


def _input_name(number: int) -> str:
    return f"reasoning_attempt_{number + 1}"


def _first_line(value: object) -> str:
    return str(value).strip().split("\n")[0].strip()
