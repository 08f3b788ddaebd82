"""One cell with an optimizer of DSPy 3.4.1: reads the cell as JSON from stdin, writes what was found to stdout.

Run by `optimizers.py` in an environment with ``pip install dspy[optuna]==3.4.1``. Curves come from `dspy.Evaluate`: the
programs of COPRO, MIPROv2 and random search compete by their score on the whole set, so the incumbent is the first with
the best score, and the server's counters tell what it had cost by then.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable
from typing import Any

warnings.simplefilter("ignore")

import dspy  # noqa: E402  # its warnings are off
import litellm  # noqa: E402, F401  what the first call would import; no system's imports are in its seconds
from worlds import World  # noqa: E402

THREADS = 8


class One(dspy.Module):
    """The program with one predictor."""

    def __init__(self, world: World) -> None:
        super().__init__()
        (stage,) = world.stages
        self.answer = dspy.Predict(signature(stage))

    def forward(self, question: str) -> Any:
        return self.answer(question=question)


class Three(dspy.Module):
    """The program with three."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.take, self.judge, self.answer = (dspy.Predict(signature(stage)) for stage in world.stages)

    def forward(self, question: str) -> Any:
        notes = self.take(question=question).notes
        verdict = self.judge(question=question, notes=notes).verdict
        return self.answer(question=question, verdict=verdict)


def signature(stage: Any) -> Any:
    return dspy.Signature(f"{', '.join(stage.inputs)} -> {stage.output}", stage.instruction)


class Log:
    """The incumbents: [runs, seconds, view] whenever an evaluation on the whole set beat those before."""

    def __init__(self, world: World, port: int, whole: int) -> None:
        self.world, self.port, self.whole = world, port, whole
        self.began, self.best, self.curve = time.perf_counter(), -1.0, []

    def runs(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as reply:  # loopback
            return int(json.load(reply)["runs"])

    def view(self, program: Any) -> list[dict[str, Any]]:
        predictors = program.predictors()
        return self.world.view((p.signature.instructions, [dict(demo) for demo in p.demos]) for p in predictors)

    def add(self, program: Any, runs: int | None = None) -> None:
        seconds = time.perf_counter() - self.began
        self.curve.append([self.runs() if runs is None else runs, seconds, self.view(program)])

    def watch_evaluate(self) -> None:
        original = dspy.Evaluate.__call__

        def watched(evaluate: Any, program: Any, metric: Any = None, devset: Any = None, **more: Any) -> Any:
            result = original(evaluate, program, metric, devset, **more)
            whole = len(evaluate.devset if devset is None else devset) >= self.whole
            if whole and result.score > self.best:
                self.best = result.score
                self.add(program)
            return result

        dspy.Evaluate.__call__ = watched


def copro(program: Any, train: list[Any], _val: list[Any], metric: Any, o: dict[str, Any]) -> Any:
    """As its docstring shows: the training rows are what is scored."""
    optimizer = dspy.COPRO(metric=metric, breadth=o["breadth"], depth=o["depth"])
    return optimizer.compile(program, trainset=train, eval_kwargs={"num_threads": THREADS, "display_progress": False})


def mipro(program: Any, train: list[Any], val: list[Any], metric: Any, o: dict[str, Any]) -> Any:
    made = {"max_bootstrapped_demos": o["demos"], "max_labeled_demos": o["demos"], "seed": o["seed"]}
    if o.get("auto"):
        return dspy.MIPROv2(metric, auto=o["auto"], num_threads=THREADS, **made).compile(
            program, trainset=train, valset=val
        )
    optimizer = dspy.MIPROv2(metric, auto=None, num_candidates=o["candidates"], num_threads=THREADS, **made)
    batches = {"minibatch": False}
    if o.get("minibatch"):
        batches = {"minibatch": True, "minibatch_size": o["minibatch"], "minibatch_full_eval_steps": o["steps"]}
    return optimizer.compile(program, trainset=train, valset=val, num_trials=o["trials"], **batches)


def random_search(program: Any, train: list[Any], val: list[Any], metric: Any, o: dict[str, Any]) -> Any:
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=metric,
        max_bootstrapped_demos=o["bootstrapped"],
        max_labeled_demos=o["labeled"],
        num_candidate_programs=o["candidates"],
        num_threads=THREADS,
    )
    return optimizer.compile(program, trainset=train, valset=val)


def simba(program: Any, train: list[Any], _val: list[Any], metric: Any, o: dict[str, Any]) -> Any:
    """It tells no incumbents; only its last program is known."""
    optimizer = dspy.SIMBA(
        metric=metric,
        bsize=o["bsize"],
        num_candidates=o["candidates"],
        max_steps=o["steps"],
        max_demos=o["demos"],
        num_threads=THREADS,
    )
    return optimizer.compile(program, trainset=train, seed=o["seed"])


def gepa(program: Any, train: list[Any], val: list[Any], metric: Any, o: dict[str, Any]) -> Any:
    optimizer = dspy.GEPA(
        metric=metric,
        max_metric_calls=o["cap"],
        reflection_minibatch_size=o["minibatch"],
        reflection_lm=dspy.settings.lm,
        num_threads=THREADS,
        track_stats=True,
        seed=o["seed"],
        warn_on_score_mismatch=False,
        component_selector=o.get("components", "round_robin"),
    )
    return optimizer.compile(program, trainset=train, valset=val)


SYSTEMS: dict[str, Callable[..., Any]] = {
    "COPRO": copro,
    "MIPROv2": mipro,
    "random search": random_search,
    "SIMBA": simba,
    "GEPA": gepa,
}


def metric_of(world: World, system: str) -> Callable[..., Any]:
    def judged(row: Any, prediction: Any) -> tuple[float, str]:
        return world.judge(row.question, row.answer, str(getattr(prediction, "answer", "")))

    def plain(row: Any, prediction: Any, _trace: Any = None) -> float:
        return judged(row, prediction)[0]

    def telling(row: Any, prediction: Any, _trace: Any = None, _name: Any = None, _part: Any = None) -> Any:
        score, feedback = judged(row, prediction)
        return dspy.Prediction(score=score, feedback=feedback)

    return telling if system in {"GEPA", "SIMBA"} else plain


def log_gepa(log: Log, best: Any) -> None:
    """The incumbents of dspy.GEPA, from its results; when each was found is told in calls only."""
    results, top = best.detailed_results, -1.0
    told = zip(results.candidates, results.val_aggregate_scores, results.discovery_eval_counts, strict=True)
    log.curve = []
    for program, score, calls in told:
        if score > top:
            top = score
            log.curve.append([calls, None, log.view(program)])


def examples(world: World, name: str, options: dict[str, Any]) -> list[Any]:
    return [dspy.Example(**row).with_inputs("question") for row in world.rows(name)[: options.get(name, 60)]]


def main() -> None:
    cell = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    world, options = World(cell["world"], cell["predictors"], cell["seed"]), cell["options"]
    lm = dspy.LM("openai/m", api_base=f"http://127.0.0.1:{cell['port']}/v1", api_key="x")
    dspy.configure(lm=lm, num_threads=THREADS)
    train, val = (examples(world, name, options) for name in ("train", "val"))
    program = (One if cell["predictors"] == 1 else Three)(world)
    log = Log(world, cell["port"], len(train) if cell["system"] == "COPRO" else len(val))
    if cell["system"] in {"COPRO", "MIPROv2", "random search"}:
        log.watch_evaluate()
    given = {**options, "seed": cell["seed"], "cap": cell["cap"]}
    with contextlib.redirect_stdout(sys.stderr):
        best = SYSTEMS[cell["system"]](program, train, val, metric_of(world, cell["system"]), given)
    seconds = time.perf_counter() - log.began
    if cell["system"] == "GEPA":
        log_gepa(log, best)
    print(json.dumps({"seconds": seconds, "final": log.view(best), "curve": log.curve}))


if __name__ == "__main__":
    main()
