"""GEPA beside gepa 0.1.4 at small budgets, in a toy world without noise in which one reflection teaches one rule.

    python benchmarks/small_budgets.py --peer /path/to/an/environment/with/gepa/bin/python

A row of data needs one of six rules, and is right where the instruction states it. Feedback names the rule that was
missing; a reflection adds the first one that is not stated yet. 12 training rows, 12 validation rows, minibatches of 3
for both. Writes small_budgets.csv: the mean score on the validation rows, over the seeds, of the best candidate within
the budget. gepa looks at its budget before a step only; ``as it ends`` is what it returns, with what it spent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import today, written

BUDGETS, SEEDS = (30, 50, 100, 200), range(6)
LONGEST = 120
PUBLISHED = {"confirm": 0, "in_flight": 1, "racing": False}

WORLD = '''
import json, re, sys
RULES, TRAIN, VAL = 6, range(12), range(100, 112)
START = "Answer the question."
def stated_in(instruction):
    return list(dict.fromkeys(re.findall(r"\\[rule (\\d)\\]", instruction)))
def score_of(instruction, number):
    return float(str(number % RULES) in stated_in(instruction))
def feedback_of(score, number):
    return "Right." if score else f"Missing: rule {number % RULES}."
def reflected(prompt):
    """The instruction in the prompt, with the first rule that feedback names and that is not stated yet."""
    stated = stated_in(prompt)
    missing = [rule for rule in re.findall(r"Missing: rule (\\d)", prompt) if rule not in stated]
    return " ".join([START, *(f"[rule {rule}]" for rule in dict.fromkeys([*stated, *missing[:1]]))])
def worth(instruction):
    return sum(score_of(instruction, number) for number in VAL) / len(VAL)
given = json.loads(sys.argv[1])
'''

OURS = (
    WORLD
    + """
import asyncio, warnings, dspynb as dn
dn.configure(view="off", runs_dir=None, cache=False)
def answer(request):
    number = int(re.search(r"## question ## \\]\\]\\n(\\d+)", request.messages[-1]["content"])[1])
    return f"[[ ## answer ## ]]\\n{score_of(request.messages[0]['content'], number):.0f}\\n[[ ## completed ## ]]"
def metric(row, prediction):
    score = float(prediction.answer)
    return dn.Score(score, feedback=feedback_of(score, int(row.question)))
def reflect(request):
    prompt = "\\n".join(message["content"] for message in request.messages)
    return f"[[ ## new_instruction ## ]]\\n{reflected(prompt)}\\n[[ ## completed ## ]]"
async def main():
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    program.instruction = START
    optimizer = dn.GEPA(
        metric, prompt_lm=dn.FunctionLM(reflect), seed=given["seed"], budget=dn.Budget(metric_calls=given["budget"]),
        **given["settings"],
    )
    run = optimizer.start(program, *([{"question": str(n)} for n in numbers] for numbers in (TRAIN, VAL)))
    best = await run
    return {"score": worth(best.instruction), "spent": len(run.rollouts)}
print(json.dumps(asyncio.run(main())))
"""
)

THEIRS = (
    WORLD
    + '''
from gepa import EvaluationBatch, optimize
class Adapter:
    propose_new_texts = None
    def evaluate(self, batch, candidate, capture_traces=False):
        scores = [score_of(candidate["answer"], number) for number in batch]
        seen = [(number, feedback_of(score, number)) for number, score in zip(batch, scores)]
        return EvaluationBatch(outputs=scores, scores=scores, trajectories=seen)
    def make_reflective_dataset(self, candidate, evaluated, names):
        rows = [{"Inputs": str(number), "Feedback": said} for number, said in evaluated.trajectories]
        return {name: rows for name in names}
class Quiet:
    def log(self, message):
        """Nothing: stdout is for the result."""
result = optimize(
    seed_candidate={"answer": START}, trainset=list(TRAIN), valset=list(VAL), adapter=Adapter(),
    reflection_lm=lambda prompt: f"```\\n{reflected(str(prompt))}\\n```", reflection_minibatch_size=3,
    max_metric_calls=given["budget"], seed=given["seed"], logger=Quiet(), use_merge=False,
)
within = [s for s, n in zip(result.val_aggregate_scores, result.discovery_eval_counts) if n <= given["budget"]]
print(json.dumps({
    "score": max(within, default=0.0), "final": max(result.val_aggregate_scores), "spent": result.total_metric_calls,
}))
'''
)


def measured(python: str, code: str, **given: Any) -> dict[str, float]:
    """What a fresh process with this code measured."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-c", code, json.dumps(given)],
            capture_output=True,
            text=True,
            check=True,
            timeout=LONGEST,
            cwd=folder,
            env={**os.environ, "DSPYNB_CACHE_DIR": str(Path(folder) / "cache")},
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure all systems at each budget; write the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with gepa==0.1.4")
    peer = parser.parse_args().peer
    lines = []
    for budget in BUDGETS:
        default = [measured(sys.executable, OURS, budget=budget, seed=s, settings={}) for s in SEEDS]
        plain = [measured(sys.executable, OURS, budget=budget, seed=s, settings=PUBLISHED) for s in SEEDS]
        theirs = [measured(peer, THEIRS, budget=budget, seed=s) for s in SEEDS]
        as_it_ends = [{**cell, "score": cell["final"]} for cell in theirs]
        for system, cells in (
            ("dspynb GEPA, defaults", default),
            ("dspynb GEPA, confirm=0, in_flight=1, racing=False", plain),
            ("gepa 0.1.4, within the budget", theirs),
            ("gepa 0.1.4, as it ends", as_it_ends),
        ):
            score, spent = (statistics.mean(cell[name] for cell in cells) for name in ("score", "spent"))
            lines.append([system, budget, f"{score:.2f}", f"{spent:.0f}", len(cells), today()])
            print(*lines[-1], flush=True)
    lines.sort(key=lambda line: line[0])  # stable: each system with its budgets in order
    written("small_budgets", ["system", "budget, calls", "validation mean", "spent, calls", "seeds", "date"], lines)


if __name__ == "__main__":
    main()
