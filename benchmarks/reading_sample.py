"""A random sample of functions and documentation paragraphs, to be read by somebody who has not seen them.

    python benchmarks/reading_sample.py --seed 1 --size 20

prints ``size`` functions of the package and ``size`` paragraphs of the documentation and the notebooks. The same seed
draws the same places from the same files. A function or paragraph that is not understood at the first reading should be
rewritten; draw with another seed afterwards.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from readability import Function, read_tree

ROOT = Path(__file__).parent.parent
LEAST_LINES = 6
"""Shorter functions are not drawn: they hardly ever say anything."""
LEAST_WORDS = 20
"""Shorter paragraphs are headings and captions."""


def functions() -> list[tuple[str, str]]:
    """The functions of the package, methods and nested ones included: where each is, and its source."""
    result = []
    for file in read_tree(ROOT / "dspynb"):
        for node in file.nodes:
            source = ast.get_source_segment(file.text, node) if isinstance(node, Function) else None
            if source is not None and source.count("\n") + 1 >= LEAST_LINES:
                result.append((f"{file.module}:{node.lineno}", source))
    return result


def paragraphs() -> list[tuple[str, str]]:
    """The paragraphs of the documentation and of the notebooks' texts: where each is, and its text."""
    result = []
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        result += [(str(path.relative_to(ROOT)), text) for text in _prose(path.read_text(encoding="utf-8"))]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                result += [(str(path.relative_to(ROOT)), text) for text in _prose("".join(cell["source"]))]
    return result


def _prose(markdown: str) -> Iterator[str]:
    without_code = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n", without_code):
        is_prose = not block.lstrip().startswith(("#", "|", "<", "!["))
        if is_prose and len(block.split()) >= LEAST_WORDS:
            yield block.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=20, help="how many functions, and how many paragraphs")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311  # no secret depends on it
    for kind, texts in (("Function", functions()), ("Paragraph", paragraphs())):
        drawn = chance.sample(texts, min(arguments.size, len(texts)))
        for number, (place, text) in enumerate(drawn, start=1):
            print(f"## {kind} {number}: {place}\n\n{text}\n")


if __name__ == "__main__":
    main()
