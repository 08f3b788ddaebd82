"""``run.diff`` of two attempts with long prompts, beside comparing their texts.

    python benchmarks/diffs.py

Two attempts send the same prompt of many lines, which repeat, as the rows of a table or the lines of a log do. Writes
diffs.csv: the seconds of processor time that the diff takes (one that is ended after five minutes stands with those),
the microseconds of comparing the two texts as strings, and ``ratio``, the one divided by the other. A diff of equal
texts should cost about as much as the comparison, and grow with the lines, not with their square.
"""

from __future__ import annotations

import json
import subprocess
import sys

from report import today, written

LONGEST = 300.0
SIZES = (1000, 2000, 4000, 8000)
KINDS = {"every line differs": 10**9, "20 different lines": 20, "one line, repeated": 1}

CODE = """
import json, sys, time, dspynb as dn
lines, kinds = int(sys.argv[1]), int(sys.argv[2])
dn.configure(view="off", runs_dir=None, cache=False)
text = "\\n".join(f"line {i % kinds} of a prompt" for i in range(lines))
ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "[[ ## answer ## ]]\\nfine"))
run = dn.BestOfN(ask, lambda row, prediction: 0.5, n=2, temperature=None).run_sync(question=text).run
prompts = ["".join(m["content"] for m in messages) for messages in run.calls.messages]
copies = ["".join(list(prompt)) for prompt in prompts]  # of their own: no comparison by identity
began = time.process_time()
for _ in range(100):
    equal = copies[0] == copies[1]
compared = (time.process_time() - began) / 100
began = time.process_time()
diff = run.diff(1, 2)
took = time.process_time() - began
assert equal and not diff.changed
print(json.dumps([took, compared]))
"""


def measured(lines: int, kinds: int) -> list[float]:
    """Seconds of processor time of the diff and of the comparison, in a fresh process."""
    command = [sys.executable, "-c", CODE, str(lines), str(kinds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return [LONGEST, 0.0]
    return list(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, and write."""
    rows = []
    for name, kinds in KINDS.items():
        for lines in SIZES:
            took, compared = measured(lines, kinds)
            ratio = f"{took / compared:.0f}" if compared else ""
            rows.append([name, lines, f"{took:.4f}", f"{compared * 1e6:.2f}", ratio, today()])
            print(*rows[-1], flush=True)
    written("diffs", ["two equal prompts", "lines", "run.diff, s", "comparing, µs", "ratio", "date"], rows)


if __name__ == "__main__":
    main()
