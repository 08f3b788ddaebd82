"""GEPA: reflective mutation of instructions, parents drawn from the Pareto front over validation rows.

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
from dspynb.optimizers.core.task import Task
from dspynb.optimizers.gepa.loop import GEPALoop
from dspynb.optimizers.gepa.reflection import Reflection
from dspynb.options import Bool, Float, NonNegativeInt, Number, PositiveInt

__all__ = ["GEPA"]

_AUTO = {"light": 6, "medium": 12, "heavy": 18}
_FEWEST = 3
"""Rows of a minibatch, at least, where what is left of the budget makes it smaller."""
_RECALL = 30
"""Further rows that reflection sees, at most, where nothing else was said."""


class GEPA(Optimizer):
    """Evolves instructions: a parent from the Pareto front runs on a few training rows, a model reflects on what it did
    and on the feedback, and the child is kept if it does better on these rows; then it runs on the validation rows.

    The metric's ``Score.feedback`` is what is learned from; a metric with a ``predictor=`` parameter is asked for
    feedback on each predictor. ``auto``: ``light``, ``medium``, ``heavy``, how many rollouts are made where no budget
    of metric calls is given; ``max_steps``: mutations at most. ``minibatch_size``: training rows a step.
    ``components``: ``round_robin`` (one predictor a step) or ``all``. ``max_merges``: how often two lineages with a
    common ancestor are merged. ``perfect_score``: rows that have it teach nothing.
    ``temperature``: of the model that reflects (None leaves its own).

    Beyond the paper: ``in_flight`` mutations are made at the same time, each from what was known when it began: more of
    them take less time, and learn less from each other. ``confirm``: further rows, at most, that a child is tried on
    while it is ahead by a single row; if it still is, it is not kept, unless these are all training rows. ``recall``:
    other training rows, at most, that reflection sees too, at no further rollout: those on which the parent is known to
    fall short, then those on which another candidate did and the parent has not run, marked so (default: 30; 0 with
    ``confirm=0``). ``racing``: validation of a child ends early once it is clear that it is worse than its parent. The
    last minibatch is down to half as large where the budget has no room for a whole one, and of candidates that are
    equal on the validation rows the one that did better on training rows wins; with ``confirm=0`` minibatches are whole
    and the first one wins.

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
            self.recall = _RECALL if self.confirm else 0
        self.reflection = Reflection(self.prompt_lm, self.temperature)

    def proposers(self) -> Mapping[str, Predict]:
        return {"gepa.reflect": self.reflection.predict}

    def first_step(self, task: Task) -> int:
        size = min(self.minibatch_size, len(task.rows["train"]))
        return 2 * (len(task.rows["val"]) + self.fewest(size))  # the start and a child, both on a minibatch too

    def fewest(self, size: int) -> int:
        """Rows of a minibatch, at least, where the budget has no room for ``size``: in the published algorithm all."""
        return max(math.ceil(size / 2), min(_FEWEST, size)) if self.confirm else size

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        return train, val or train

    async def search(self, engine: Engine) -> None:
        await GEPALoop(self, engine, self._limit(engine)).run()

    def _limit(self, engine: Engine) -> float:
        """Rollouts in all: as many as the budget allows, else as ``auto`` says (DSPy's formula)."""
        if math.isfinite(engine.metric_calls_left()):
            return math.inf
        n, rows = _AUTO[self.auto], len(engine.val)
        trials = int(max(2 * (len(engine.paths) * 2) * math.log2(n), 1.5 * n))
        return rows + n * 5 + trials * 35 + (trials // 5 + 1) * rows
