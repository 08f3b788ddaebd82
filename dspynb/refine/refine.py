"""Refine: repeated attempts, each with a hint on what was wrong, which is scoped to the attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from dspynb.aliases import Reward
from dspynb.keywords import configurable
from dspynb.lm.resolve import Model
from dspynb.modules.function_program import checked_program
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import Scorer
from dspynb.options import NOT_RECORDED, Float, FloatOrInf, NonNegativeInt, PositiveInt
from dspynb.refine.attempt import AttemptResult
from dspynb.refine.hint_sources import Advise, Advisor, as_layer, call_hints_function, feedback_of, suggested_hint
from dspynb.refine.search import SEARCH_OF_DSPY, Search, SearchModule, SearchPlan, WaveHint
from dspynb.scope.core import HintAs, current_scope

__all__ = ["Refine"]


class Refine(SearchModule):
    """Makes up to ``n`` attempts, in waves of ``width``. After a wave below ``threshold`` the next wave gets a hint.

    ``module``: the program. ``reward(row, prediction) -> float | bool | Score``.
    ``hints``: ``"feedback"`` (the reward's feedback, for every predictor), ``"advisor"`` (a predictor that reads all
    earlier attempts and advises each predictor), ``"auto"`` (feedback where there is some, else the advisor), or a
    function of (attempts so far, program, inputs) that returns text or a mapping of paths or predictors to text.
    ``hint_as``: ``"instruction"`` composes the hint onto the instruction; ``"field"`` puts it at the end of the last
    user message, so that a provider's prefix cache still hits.
    ``temperature``: that of every attempt; None leaves the model's own. ``max_failures``: how many attempts may fail
    before the call fails (default: all but the last). ``advisor_lm``: the advisor's model, where it is another one.

    While the run lasts, ``run.suggest_hint(…)`` replaces the hint of the next attempt by one of yours.

    Attempt i samples with rollout i - 1. The hint is in force only inside its attempt, and nothing is written to the
    program. Raises ConfigurationError for a value out of range; AllAttemptsFailed, TooManyFailures or HintError when
    called.

    >>> def blue(row, prediction):
    ...     return dn.Score("blue" in prediction.sentence, feedback="Use the word 'blue'.")
    >>> lm = dn.ScriptedLM(["sentence: It is wide.", "sentence: It is blue."])
    >>> refine = dn.Refine(dn.Predict("subject -> sentence", lm=lm), reward=blue, n=3)
    >>> prediction = refine.run_sync(subject="the ocean")
    >>> prediction.run.attempts[["hint", "sentence", "score"]]
                       hint     sentence  score
    0                  None  It is wide.    0.0
    1  Use the word 'blue'.  It is blue.    1.0
    """

    kind: ClassVar[str] = "refine"

    @configurable(renamed=SEARCH_OF_DSPY)
    def __init__(
        self,
        module: Module,
        reward: Reward,
        n: PositiveInt = 3,
        threshold: FloatOrInf | None = 1.0,
        *,
        width: PositiveInt = 1,
        hints: Literal["auto", "feedback", "advisor"] | Callable[..., Any] = "auto",
        hint_as: HintAs = "instruction",
        temperature: Float | None = 1.0,
        max_failures: NonNegativeInt | None = None,
        advisor_lm: Annotated[Model, NOT_RECORDED] = None,
    ) -> None:
        self.module = checked_program(module)
        self.plan = SearchPlan(Scorer(reward), n, threshold, width, temperature, max_failures)
        self.hints = hints
        self.hint_as = hint_as
        self.advisor = Predict(Advise, lm=advisor_lm)

    def _run_settings(self) -> dict[str, Any]:
        hints = self.hints if isinstance(self.hints, str) else getattr(self.hints, "__name__", "a function")
        return {**super()._run_settings(), "hints": hints}

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """The program, whose predictors keep their paths, and the advisor if it may be called."""
        yield "", self.module
        if self.hints in ("auto", "advisor"):
            yield self._advisor_path(), self.advisor

    def _advisor_path(self) -> str:
        """``advisor``, or ``refine_advisor`` if the program has an attribute of that name."""
        for path, _ in self.module.named_predictors():
            attribute = path.split(".")[0].split("[")[0]
            if attribute == "advisor":
                return "refine_advisor"
        return "advisor"

    def hinted(self) -> Sequence[Module]:
        """The program inside, if there may be a second wave."""
        return (self.module,) if self.plan.n > self.plan.width else ()

    def advisors(self) -> Sequence[Predict]:
        """The advisor."""
        return (self.advisor,)

    def most_calls(self) -> int:
        """The calls of the program in all attempts, and of the advisor between them."""
        n = self._plan_in_force().n
        return n * self.module.most_calls() + (n - 1) * self.advisor.most_calls()

    def _plan_in_force(self) -> SearchPlan:
        """The plan; of one attempt if retries are switched off (``retries`` of the call context)."""
        if current_scope().context.retries:
            return self.plan
        return replace(self.plan, n=1, width=1)

    def search(self, inputs: Mapping[str, Any]) -> Search:
        """The search of one call, with hints."""

        async def hint_for_wave(attempts: Sequence[AttemptResult], wave: int) -> WaveHint:
            suggestion = suggested_hint(self.module, wave)
            computed = None
            if suggestion is None:
                computed = await self._compute_hint(attempts, inputs, wave)
                suggestion = suggested_hint(self.module, wave)  # it may have arrived while the advisor was writing
            hint = computed if suggestion is None else suggestion
            layer, displayed = as_layer(hint, self.module, self.hint_as)
            return WaveHint(layer, displayed, "" if suggestion is None else "person")

        return Search(self.module, inputs, self._plan_in_force(), hint_for_wave)

    async def _compute_hint(self, attempts: Sequence[AttemptResult], inputs: Mapping[str, Any], wave: int) -> Any:
        if callable(self.hints):
            return await call_hints_function(self.hints, attempts, self.module, inputs)
        if self.hints == "feedback":
            return feedback_of(attempts)
        if self.hints == "auto":
            feedback = feedback_of(attempts)
            if feedback is not None:
                return feedback
        return await Advisor(self.advisor, self.plan.reward).advice_or_none(attempts, self.module, inputs, wave)
