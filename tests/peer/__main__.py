"""Run DSPy's own tests against dspynb and compare with the committed list: ``python -m tests.peer CHECKOUT``.

``--write`` writes new functions, and changed results, to the list; their reasons are then to be written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.peer.verdicts import check, run, summary, write

if __name__ == "__main__":
    checkout = Path(sys.argv[1])
    results = run(checkout)
    if "--write" in sys.argv:
        write(results)
    problems = check(results)
    sys.stdout.write("\n".join([summary(), *problems, ""]))
    sys.exit(bool(problems))
