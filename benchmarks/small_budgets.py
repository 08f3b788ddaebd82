"""GEPA compared with gepa 0.1.4 at small budgets, in a toy world without noise where one reflection teaches one rule.

    python benchmarks/small_budgets.py --peer /path/to/an/environment/with/gepa/bin/python

Each row needs one of six rules; its answer is right if the instruction states that rule. Feedback names the missing
rule, and a reflection adds the first named rule that is not stated yet. Both systems have 12 training rows, 12
validation rows and minibatches of 3. Writes small_budgets.csv: the mean score, over the seeds, of the best candidate
within the budget on the validation rows. gepa checks its budget only before a step; ``final result`` is the candidate
that it returns, with all calls that it made.
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

from report import today, write_results

BUDGETS = (30, 50, 100, 200)
SEEDS = range(6)
TIMEOUT = 120
PUBLISHED = {"confirm": 0, "in_flight": 1, "racing": False}

WORLD = '''
import json, re, sys
RULES = 6
TRAIN = range(12)
VAL = range(100, 112)
START = "Answer the question."
def stated_rules(instruction):
    return list(dict.fromkeys(re.findall(r"\\[rule (\\d)\\]", instruction)))
def score_for(instruction, number):
    return float(str(number % RULES) in stated_rules(instruction))
def feedback_for(score, number):
    return "Right." if score else f"Missing: rule {number % RULES}."
def reflect_on(prompt):
    """The instruction in the prompt, with the first rule that feedback names and that is not stated yet."""
    stated = stated_rules(prompt)
    missing = [rule for rule in re.findall(r"Missing: rule (\\d)", prompt) if rule not in stated]
    return " ".join([START, *(f"[rule {rule}]" for rule in dict.fromkeys([*stated, *missing[:1]]))])
def accuracy(instruction):
    return sum(score_for(instruction, number) for number in VAL) / len(VAL)
options = json.loads(sys.argv[1])
'''

DSPYNB = (
    WORLD
    + """
import asyncio, warnings, dspynb as dn
dn.configure(view="off", runs_dir=None, cache=False)
def answer(request):
    number = int(re.search(r"## question ## \\]\\]\\n(\\d+)", request.messages[-1]["content"])[1])
    return f"[[ ## answer ## ]]\\n{score_for(request.messages[0]['content'], number):.0f}\\n[[ ## completed ## ]]"
def metric(row, prediction):
    score = float(prediction.answer)
    return dn.Score(score, feedback=feedback_for(score, int(row.question)))
def reflect(request):
    prompt = "\\n".join(message["content"] for message in request.messages)
    return f"[[ ## new_instruction ## ]]\\n{reflect_on(prompt)}\\n[[ ## completed ## ]]"
async def main():
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    program.instruction = START
    optimizer = dn.GEPA(
        metric, prompt_lm=dn.FunctionLM(reflect), seed=options["seed"],
        budget=dn.Budget(metric_calls=options["budget"]),
        **options["settings"],
    )
    run = optimizer.start(program, *([{"question": str(n)} for n in numbers] for numbers in (TRAIN, VAL)))
    best = await run
    return {"score": accuracy(best.instruction), "spent": len(run.rollouts)}
print(json.dumps(asyncio.run(main())))
"""
)

GEPA = (
    WORLD
    + '''
from gepa import EvaluationBatch, optimize
class Adapter:
    propose_new_texts = None
    def evaluate(self, batch, candidate, capture_traces=False):
        scores = [score_for(candidate["answer"], number) for number in batch]
        trajectories = [(number, feedback_for(score, number)) for number, score in zip(batch, scores)]
        return EvaluationBatch(outputs=scores, scores=scores, trajectories=trajectories)
    def make_reflective_dataset(self, candidate, evaluated, names):
        rows = [{"Inputs": str(number), "Feedback": feedback} for number, feedback in evaluated.trajectories]
        return {name: rows for name in names}
class Quiet:
    def log(self, message):
        """Print nothing: stdout is for the result."""
result = optimize(
    seed_candidate={"answer": START}, trainset=list(TRAIN), valset=list(VAL), adapter=Adapter(),
    reflection_lm=lambda prompt: f"```\\n{reflect_on(str(prompt))}\\n```", reflection_minibatch_size=3,
    max_metric_calls=options["budget"], seed=options["seed"], logger=Quiet(), use_merge=False,
)
within = [s for s, n in zip(result.val_aggregate_scores, result.discovery_eval_counts) if n <= options["budget"]]
print(json.dumps({
    "score": max(within, default=0.0), "final": max(result.val_aggregate_scores), "spent": result.total_metric_calls,
}))
'''
)


def measure(python: str, code: str, **options: Any) -> dict[str, float]:
    """Run code in a fresh process, and return the figures that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [python, "-c", code, json.dumps(options)],
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT,
            cwd=folder,
            env={**os.environ, "DSPYNB_CACHE_DIR": str(Path(folder) / "cache")},
        )
    return dict(json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Measure all systems at each budget, and write the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with gepa==0.1.4")
    peer = parser.parse_args().peer
    lines = []
    for budget in BUDGETS:
        default = [measure(sys.executable, DSPYNB, budget=budget, seed=s, settings={}) for s in SEEDS]
        without_extras = [measure(sys.executable, DSPYNB, budget=budget, seed=s, settings=PUBLISHED) for s in SEEDS]
        gepa = [measure(peer, GEPA, budget=budget, seed=s) for s in SEEDS]
        gepa_final = [{**cell, "score": cell["final"]} for cell in gepa]
        for system, cells in (
            ("dspynb GEPA, defaults", default),
            ("dspynb GEPA, confirm=0, in_flight=1, racing=False", without_extras),
            ("gepa 0.1.4, within the budget", gepa),
            ("gepa 0.1.4, final result", gepa_final),
        ):
            score = statistics.mean(cell["score"] for cell in cells)
            spent = statistics.mean(cell["spent"] for cell in cells)
            lines.append([system, budget, f"{score:.2f}", f"{spent:.0f}", len(cells), today()])
            print(*lines[-1], flush=True)
    lines.sort(key=lambda line: line[0])  # the sort is stable, so the budgets of a system stay in order
    header = ["system", "budget, calls", "validation mean", "spent, calls", "seeds", "date"]
    write_results("small_budgets", header, lines)


if __name__ == "__main__":
    main()
