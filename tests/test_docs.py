"""The code in docs/*.md runs, each page from top to bottom.

A block that begins with ```` ```python ```` uses dspynb. The blocks of a page share one namespace, one event loop and
an empty folder, and may await. A block that begins with ```` ```python dspy ```` uses DSPy. These blocks have their own
namespace, and run first, so that dspynb can load the files that they save. Without DSPy, such a page is only compiled.
Code that a reader need not see (such as a model that answers) is in a block inside an HTML comment.
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
    """The compiled blocks of one kind. Their tracebacks have the page and its line."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        if bool(match[1]) is dspy:
            source = "\n" * text.count("\n", 0, match.start(2)) + match[2]
            yield compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


async def run(codes):
    space = {"__name__": "__main__"}
    for code in codes:
        value = eval(code, space)  # noqa: S307  # the code is from our own docs
        if inspect.iscoroutine(value):
            await value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    dspy_blocks = list(blocks(page, dspy=True))
    dspynb_blocks = list(blocks(page, dspy=False))
    assert dspy_blocks or dspynb_blocks, f"{page.name} has no ```python block"
    monkeypatch.chdir(tmp_path)
    if dspy_blocks:
        if importlib.util.find_spec("dspy") is None:
            pytest.skip("DSPy is not installed")
        monkeypatch.setenv("DSPY_CACHEDIR", str(tmp_path / "cache"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # warnings of DSPy itself
            asyncio.run(run(dspy_blocks))
    asyncio.run(run(dspynb_blocks))


def test_links_and_names_in_the_pages_exist():
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for name in re.findall(r"\bdn\.([A-Za-z_]\w*)", text):
            assert name in dn.__all__, f"{page.name} names dn.{name}"


def test_the_traceback_of_a_block_has_its_page_and_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n```python\nx = 1\n```\n\n```python dspy\nx = 2\n```\n\n```python\nassert x == 2\n```\n"
    )
    with pytest.raises(AssertionError) as caught:
        asyncio.run(run(blocks(page, dspy=False)))
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (page, 12)
