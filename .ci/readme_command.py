"""Print a command of the README: the first shell block after the marker `<!-- command: NAME -->`."""

import re
import sys
from pathlib import Path

text = (Path(__file__).parent.parent / "README.md").read_text()
match = re.search(rf"<!-- command: {re.escape(sys.argv[1])} -->\s*```sh\n(.*?)\n```", text, re.DOTALL)
if match is None:
    sys.exit(f"README.md has no command {sys.argv[1]!r}")
sys.stdout.write(match[1] + "\n")
