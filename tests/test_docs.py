"""The code in docs/*.md runs, each page from top to bottom.

A block that begins with ```` ```python ```` is ours: the blocks of a page share one namespace, one event loop and an
empty folder, and may await. One that begins with ```` ```python dspy ```` needs DSPy: these have a namespace of their
own and run first, so that ours can load what they saved; without DSPy such a page is only compiled. What a page need
not show (a model that answers) stands in such a block inside an HTML comment.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import re
import warnings
from pathlib import Path

import pytest

import dspynb as dn

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```python( dspy)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, dspy):
    """The compiled blocks of one kind; a traceback tells the page and its line."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        if bool(found[1]) is dspy:
            source = "\n" * (text.count("\n", 0, found.start(2))) + found[2]
            yield compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


async def run(codes):
    space = {"__name__": "__main__"}
    for code in codes:
        value = eval(code, space)  # noqa: S307  # the docs are ours
        if inspect.iscoroutine(value):
            await value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    theirs, ours = list(blocks(page, dspy=True)), list(blocks(page, dspy=False))
    assert theirs or ours, f"{page.name} has no ```python block"
    monkeypatch.chdir(tmp_path)
    if theirs:
        if importlib.util.find_spec("dspy") is None:
            pytest.skip("DSPy is not installed")
        monkeypatch.setenv("DSPY_CACHEDIR", str(tmp_path / "cache"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of DSPy's own
            asyncio.run(run(theirs))
    asyncio.run(run(ours))


def test_the_pages_link_to_what_is_there_and_name_what_exists():
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for name in re.findall(r"\bdn\.([A-Za-z_]\w*)", text):
            assert name in dn.__all__, f"{page.name} names dn.{name}"


def test_a_block_that_fails_is_told_by_its_page_and_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n```python\nx = 1\n```\n\n```python dspy\nx = 2\n```\n\n```python\nassert x == 2\n```\n"
    )
    with pytest.raises(AssertionError) as caught:
        asyncio.run(run(blocks(page, dspy=False)))
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (page, 12)
