"""GEPA: reflective mutation of instructions; parents are drawn from the Pareto front over validation rows.

Source: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", algorithm 1 (the
loop), algorithm 2 (Pareto-based selection) and appendix on merging. With ``in_flight=1``, ``confirm=0`` and
``racing=False`` it is that algorithm, step by step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from dspynb.data import Example
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.problem import Problem
from dspynb.optimizers.gepa.loop import GEPALoop
from dspynb.optimizers.gepa.reflection import Reflection
from dspynb.options import Bool, Float, NonNegativeInt, Number, PositiveInt

__all__ = ["GEPA"]

_AUTO = {"light": 6, "medium": 12, "heavy": 18}
_MIN_MINIBATCH = 3
"""The least size of a minibatch that is made smaller for the rest of the budget."""
_DEFAULT_RECALL = 30
"""How many further rows reflection sees at most, by default."""


class GEPA(Optimizer):
    """Evolves instructions. A parent from the Pareto front runs on a minibatch of training rows. A model reflects on
    its calls and the feedback, and writes an instruction. If the child scores higher on the minibatch, it is accepted
    and runs on the validation rows.

    It learns from the metric's ``Score.feedback``; a metric with a ``predictor=`` parameter is called for feedback on
    each predictor. ``auto``: ``light``, ``medium`` or ``heavy``, the number of rollouts where there is no budget of
    metric calls. ``max_steps``: mutations at most. ``minibatch_size``: training rows of a step. ``components``:
    ``round_robin`` (one predictor a step) or ``all``. ``max_merges``: how often two lineages with a common ancestor are
    merged, at most. ``perfect_score``: nothing is learned from rows with this score. ``temperature``: of the model that
    reflects (None leaves its own).

    Beyond the paper:

    - ``in_flight``: so many mutations are made at the same time, each from the results known when it began. With more
      of them the search is faster, and each learns less from the others.
    - ``confirm``: while a child is ahead of its parent by a single row, both run on further training rows, ``confirm``
      at most. A child that is still ahead by one row is rejected, unless it has run on all training rows.
    - ``recall``: reflection also sees at most so many other training rows, without further rollouts. The first are rows
      where the parent scored below ``perfect_score``. The others, marked as such, are rows where another candidate did,
      and the parent has not run. Default: 30; 0 with ``confirm=0``.
    - ``racing``: validation of a child ends early once it is clearly worse than its parent.
    - The last minibatch may be half as large, where the budget has no room for a whole one. Of candidates that are
      equal on the validation rows, the better one on training rows wins. With ``confirm=0`` minibatches are always
      whole, and the first of equal candidates wins.

    Without validation rows, the training rows serve as both. Source: Agrawal et al. 2025 (arXiv:2507.19457),
    algorithms 1 and 2.

    >>> def answer(request):  # right once it is told to use digits
    ...     return "answer: 4" if "digits" in request.messages[0]["content"] else "answer: four"
    >>> def metric(row, prediction):
    ...     return dn.Score(prediction.answer == row.answer, feedback="Answer in digits.")
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    >>> writer = dn.FunctionLM(lambda request: "new_instruction: Answer in digits.")
    >>> rows = [{"question": f"{n}+{4 - n}?", "answer": "4"} for n in range(4)]
    >>> opt = dn.GEPA(metric, max_steps=1, prompt_lm=writer)
    >>> opt.compile_sync(program, rows[:2], val=rows[2:]).instruction
    'Answer in digits.'
    """

    kind: ClassVar[str] = "gepa"
    shows_rows: ClassVar[bool] = True
    unit: ClassVar[str] = "mutation"

    auto: Literal["light", "medium", "heavy"] = "light"
    max_steps: PositiveInt | None = None
    minibatch_size: PositiveInt = 3
    components: Literal["round_robin", "all"] = "round_robin"
    max_merges: NonNegativeInt = 5
    perfect_score: Float = 1.0
    temperature: Annotated[float, Number(0)] | None = 1.0
    in_flight: PositiveInt = 2
    confirm: NonNegativeInt = 9
    recall: NonNegativeInt | None = None
    racing: Bool = True

    def __post_init__(self) -> None:
        if self.recall is None:
            self.recall = _DEFAULT_RECALL if self.confirm else 0
        self.reflection = Reflection(self.prompt_lm, self.temperature)

    def proposers(self) -> Mapping[str, Predict]:
        return {"gepa.reflect": self.reflection.predict}

    def first_step(self, task: Problem) -> int:
        size = min(self.minibatch_size, len(task.rows["train"]))
        return 2 * (len(task.rows["val"]) + self.fewest(size))  # the start and a child, each with a minibatch

    def count_units(self, engine: Engine, last_step: int) -> float:  # noqa: ARG002
        return last_step

    def fewest(self, size: int) -> int:
        """The least size of a minibatch where the budget has no room for ``size`` rows; in the published algorithm,
        minibatches are always whole."""
        if not self.confirm:
            return size
        return max(math.ceil(size / 2), min(_MIN_MINIBATCH, size))

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        return train, val or train

    async def search(self, engine: Engine) -> None:
        await GEPALoop(self, engine, self._limit(engine)).run()

    def _limit(self, engine: Engine) -> float:
        """Rollouts at most, beside the budget: infinite with a budget of metric calls, else from ``auto`` (DSPy's
        formula)."""
        if math.isfinite(engine.metric_calls_left()):
            return math.inf
        n = _AUTO[self.auto]
        rows = len(engine.val)
        trials = int(max(2 * (len(engine.paths) * 2) * math.log2(n), 1.5 * n))
        return rows + n * 5 + trials * 35 + (trials // 5 + 1) * rows
