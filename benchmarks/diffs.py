"""``run.diff`` of two attempts with long prompts, beside comparing their texts.

    python benchmarks/diffs.py

Two attempts send the same prompt of many lines, which repeat, as the rows of a table or the lines of a log do. Writes
diffs.csv: the seconds that the diff takes (the median of several processes; one that is ended after a minute stands
with that minute), those of comparing the two texts as strings, and ``ratio``, the one divided by the other. A diff of
equal texts should cost about as much as the comparison, and grow with the lines, not with their square.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from report import today, written

ROUNDS, LONGEST = 3, 60.0
SIZES = (500, 1000, 2000, 4000, 8000)
KINDS = {"every line differs": 10**9, "20 different lines": 20}

CODE = """
import json, sys, time, dspynb as dn
lines, kinds = int(sys.argv[1]), int(sys.argv[2])
dn.configure(view="off", runs_dir=None, cache=False)
text = "\\n".join(f"line {i % kinds} of a prompt" for i in range(lines))
ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "[[ ## answer ## ]]\\nfine"))
run = dn.BestOfN(ask, lambda row, prediction: 0.5, n=2, temperature=None).run_sync(question=text).run
prompts = ["".join(m["content"] for m in messages) for messages in run.calls.messages]
copies = ["".join(list(prompt)) for prompt in prompts]  # of their own: no comparison by identity
began = time.perf_counter()
equal = copies[0] == copies[1]
compared = time.perf_counter() - began
began = time.perf_counter()
diff = run.diff(1, 2)
took = time.perf_counter() - began
assert equal and not diff.changed
print(json.dumps([took, compared]))
"""


def measured(lines: int, kinds: int) -> list[float]:
    """Seconds of the diff and of the comparison, in a fresh process."""
    command = [sys.executable, "-c", CODE, str(lines), str(kinds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return [LONGEST, 0.0]
    return list(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, write the medians."""
    rows = []
    for name, kinds in KINDS.items():
        for lines in SIZES:
            rounds = [measured(lines, kinds)]
            if rounds[0][0] < LONGEST / ROUNDS:
                rounds += [measured(lines, kinds) for _ in range(ROUNDS - 1)]
            took, compared = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratio = f"{took / compared:.3g}" if compared else ""
            rows.append([name, lines, f"{took:.3g}", f"{compared:.3g}", ratio, today()])
            print(*rows[-1], flush=True)
    written("diffs", ["two equal prompts", "lines", "run.diff, s", "comparing, s", "ratio", "date"], rows)


if __name__ == "__main__":
    main()
