"""ChainOfThought: reasoning in words before the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from dspynb.data import Prediction
from dspynb.errors import SignatureError
from dspynb.keywords import configurable
from dspynb.lm.settings import OTHERWISE, REQUEST_ADVICE, RequestSettings
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.options import Bool
from dspynb.signatures.augment import Augmentation, Reasoning, augment_missing, reasoning_output
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["ChainOfThought"]


class ChainOfThought(Module):
    """A signature with ``reasoning`` before its outputs (Wei et al., 2022, arXiv:2201.11903; the shape is DSPy's).

    ``await ChainOfThought("question -> answer")(question="…")`` returns a Prediction with ``reasoning`` and ``answer``.
    The predictor has the path ``predict``. ``reasoning``: another augmentation, with its own description or type.
    ``native``: whether the reasoning is the model's own, which the provider returns beside the reply (True), or is
    written in the reply (False). None: the model's own where ``lm.profile.returns_reasoning`` says that it is returned,
    and written elsewhere. Native reasoning is an empty text where the provider returns none; a NoReasoningWarning then
    says so, once for each model. With ``n`` > 1, each completion has its own, or an empty text. Demos keep their
    reasoning, which is shown only where reasoning is written.

    A signature that has an output ``reasoning`` already keeps its type and description; it is written first.
    Further keywords are those of Predict. Raises SignatureError for a signature with such an input.

    >>> think = dn.ChainOfThought("question -> answer", lm=dn.ScriptedLM(["reasoning: Two and two.\\nanswer: 4"]))
    >>> think.run_sync(question="2+2?")
    Prediction(reasoning='Two and two.', answer='4')
    """

    @configurable(passes_to=RequestSettings, renamed=REQUEST_ADVICE, otherwise=OTHERWISE)
    def __init__(
        self,
        signature: type[Signature] | str,
        *,
        reasoning: type[Augmentation] = Reasoning,
        native: Bool | None = None,
        instruction: str | None = None,
        demos: Sequence[Mapping[str, Any]] = (),
        lm: Any = None,
        adapter: Any = None,
        **settings: Unpack[RequestSettings],
    ) -> None:
        augmented = augment_missing(signature, reasoning)
        self.predict = Predict(augmented, instruction=instruction, demos=demos, lm=lm, adapter=adapter, **settings)
        if native and reasoning_output(augmented) is None:
            raise SignatureError(
                f"{self._title()}: native=True needs an output reasoning of type str, as dn.Reasoning has"
            )
        self.predict.native_reasoning = native

    async def forward(self, **inputs: Any) -> Prediction:
        """Reasoning and outputs."""
        return await self.predict(**inputs)

    def _title(self) -> str:
        return f"ChainOfThought({self.predict.signature.describe()})"

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        return self.predict._fields(kind)
