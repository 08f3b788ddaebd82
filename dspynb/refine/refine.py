"""Refine: try again with a hint about what went wrong, scoped to one attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from dspynb.aliases import Reward
from dspynb.keywords import configurable
from dspynb.lm.resolve import Model
from dspynb.modules.module import Module, checked_program
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import Scorer
from dspynb.options import NOT_RECORDED, Float, FloatOrInf, NonNegativeInt, PositiveInt
from dspynb.refine.attempt import AttemptResult
from dspynb.refine.hint_sources import Advise, Advisor, as_layer, ask_callable, feedback_of, suggested
from dspynb.refine.search import SEARCH_OF_DSPY, Hinted, Search, SearchModule, SearchPlan
from dspynb.scope.core import HintAs, current_scope

__all__ = ["Refine"]


class Refine(SearchModule):
    """Up to ``n`` attempts, in waves of ``width``; after a wave below ``threshold`` the next one gets a hint.

    ``module``: the program. ``reward(row, prediction) -> float | bool | Score``.
    ``hints``: ``"feedback"`` (the reward's own words, to every predictor), ``"advisor"`` (a predictor that sees every
    earlier attempt and advises each predictor), ``"auto"`` (feedback where there is some, else the advisor), or a
    function of (attempts so far, program, inputs) that returns text or a mapping of paths or predictors to text.
    ``hint_as``: ``"instruction"`` composes the hint onto the instruction; ``"field"`` puts it at the end of the last
    user message, so that a provider's prefix cache still hits.
    ``temperature``: of every attempt (None leaves the model's own). ``max_failures``: attempts that may fail before the
    call does. ``advisor_lm``: the advisor's model, if it is to be another.

    While it runs, ``run.suggest_hint(…)`` of its run gives the next attempt a hint of yours in place of its own.

    Attempt i samples with rollout i - 1. The hint is in force only inside its attempt, and nothing is written to the
    program. Raises ConfigurationError when made; AllAttemptsFailed, TooManyFailures or HintError when called.

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
        self.hints, self.hint_as = hints, hint_as
        self.advisor = Predict(Advise, lm=advisor_lm)

    def _run_settings(self) -> dict[str, Any]:
        hints = self.hints if isinstance(self.hints, str) else getattr(self.hints, "__name__", "a function")
        return {**super()._run_settings(), "hints": hints}

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """The program's own predictors under their own paths, and the advisor where one may be asked."""
        yield "", self.module
        if self.hints in ("auto", "advisor"):
            taken = any(path.split(".")[0].split("[")[0] == "advisor" for path, _ in self.module.named_predictors())
            yield "refine_advisor" if taken else "advisor", self.advisor

    def hinted(self) -> Sequence[Module]:
        """Its program, where it may come to a second wave."""
        return (self.module,) if self.plan.n > self.plan.width else ()

    def advisors(self) -> Sequence[Predict]:
        """Its advisor."""
        return (self.advisor,)

    def most_calls(self) -> int:
        """Those of the program in every attempt, and of the advisor between them."""
        n = self._plan_in_force().n
        return n * self.module.most_calls() + (n - 1) * self.advisor.most_calls()

    def _plan_in_force(self) -> SearchPlan:
        """Where retries are switched off (``retries`` of the call context), the first attempt alone."""
        if current_scope().context.retries:
            return self.plan
        return replace(self.plan, n=1, width=1)

    def search(self, inputs: Mapping[str, Any]) -> Search:
        """One call's search, with hints."""

        async def advise(attempts: Sequence[AttemptResult], wave: int) -> Hinted:
            hint = suggested(self.module, wave)
            own = await self._hint(attempts, inputs, wave) if hint is None else None
            hint = hint or suggested(self.module, wave)  # it may have come while the advisor wrote
            layer, shown = as_layer(own if hint is None else hint, self.module, self.hint_as)
            return layer, shown, "" if hint is None else "person"

        return Search(self.module, inputs, self._plan_in_force(), advise)

    async def _hint(self, attempts: Sequence[AttemptResult], inputs: Mapping[str, Any], wave: int) -> Any:
        if callable(self.hints):
            return await ask_callable(self.hints, attempts, self.module, inputs)
        feedback = feedback_of(attempts) if self.hints in ("auto", "feedback") else None
        if feedback is not None or self.hints == "feedback":
            return feedback
        return await Advisor(self.advisor, self.plan.reward).or_nothing(attempts, self.module, inputs, wave)
