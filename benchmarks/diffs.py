"""``run.diff`` of two attempts with long equal prompts, compared with a string comparison of their texts.

    python benchmarks/diffs.py

Two attempts send the same prompt. It has many lines, which repeat as the rows of a table or the lines of a log do.
Writes diffs.csv: the seconds of CPU time of the diff (300 if it was ended after five minutes), the microseconds of
comparing the two texts as strings, and ``ratio``, the first divided by the second. A diff of equal texts should cost
about as much as the comparison. It should grow with the number of lines, not with its square.
"""

from __future__ import annotations

import json
import subprocess
import sys

from report import today, write_results

TIMEOUT = 300.0
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
copies = ["".join(list(prompt)) for prompt in prompts]  # separate objects, so that they are not compared by identity
start = time.process_time()
for _ in range(100):
    equal = copies[0] == copies[1]
comparison_seconds = (time.process_time() - start) / 100
start = time.process_time()
diff = run.diff(1, 2)
diff_seconds = time.process_time() - start
assert equal and not diff.changed
print(json.dumps([diff_seconds, comparison_seconds]))
"""


def measure(lines: int, kinds: int) -> list[float]:
    """Seconds of CPU time of the diff and of the comparison, in a fresh process."""
    command = [sys.executable, "-c", CODE, str(lines), str(kinds)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return [TIMEOUT, 0.0]
    return list(json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Measure all kinds and sizes, and write the table."""
    rows = []
    for name, kinds in KINDS.items():
        for lines in SIZES:
            diff_seconds, comparison_seconds = measure(lines, kinds)
            ratio = f"{diff_seconds / comparison_seconds:.0f}" if comparison_seconds else ""
            rows.append([name, lines, f"{diff_seconds:.4f}", f"{comparison_seconds * 1e6:.2f}", ratio, today()])
            print(*rows[-1], flush=True)
    header = ["two equal prompts", "lines", "run.diff, s", "comparing strings, µs", "ratio", "date"]
    write_results("diffs", header, rows)


if __name__ == "__main__":
    main()
