"""The front end of the view: its unit tests in Node.js, and the joining of its sources into one file."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dspynb.views.html.static import GLYPHS
from tests.js.node import needs_node, run_node
from tests.js.packages import SOURCES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
JOINED = SOURCES.parent / "live" / "live.js"
UNSAFE = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|eval|Function)\b"
)


def load_join():
    spec = importlib.util.spec_from_file_location("join", SOURCES / "join.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


JOIN = load_join()


@needs_node
@pytest.mark.parametrize("tests", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name.partition(".")[0])
def test_in_node(tests):
    process = run_node("--test", "--test-reporter=spec", str(tests))
    assert process.returncode == 0, process.stdout + process.stderr
    assert re.search(r"^ℹ pass [1-9]", process.stdout, re.MULTILINE)
    assert re.search(r"^ℹ skipped 0$", process.stdout, re.MULTILINE)


def test_the_joined_file_is_current():
    assert JOINED.read_text(encoding="utf-8") == JOIN.join(JOIN.read_sources())


def test_the_script_checks_whether_the_joined_file_is_current():
    command = [sys.executable, str(SOURCES / "join.py"), "--check"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


@needs_node
def test_the_joined_file_is_a_module_with_one_default_export():
    source = f"import({JOINED.as_uri()!r}).then((live) => console.log(Object.keys(live).join()))"
    process = run_node("--input-type=module", "--eval", source)
    assert process.stdout.strip() == "default", process.stderr


@needs_node
def test_states_have_the_same_symbols_as_in_a_plain_table():
    source = (
        f"import {{ stateText }} from {(SOURCES / 'format.js').as_uri()!r};"
        f"console.log(JSON.stringify({json.dumps(list(GLYPHS))}.map(stateText)))"
    )
    process = run_node("--input-type=module", "--eval", source)
    assert json.loads(process.stdout) == [f"{symbol} {state}" for state, symbol in GLYPHS.items()], process.stderr


def test_each_source_begins_with_a_comment_on_its_purpose():
    for name, text in JOIN.read_sources().items():
        assert text.startswith("/* "), name
        assert "*/\n\n" in text, name


def test_no_source_parses_a_text_as_html_or_code():
    for name, text in JOIN.read_sources().items():
        assert UNSAFE.findall(text) == [], name


# ── joining ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_files_stand_after_their_imports_and_lose_imports_exports_and_comments():
    main = '/* The view. */\n\nimport {\n  one,\n  two,\n} from "./parts.js";\n\nexport default () => one + two;\n'
    parts = "/* Parts. */\n\nexport const one = 1; // stays\n/** @type {number}\n * of two */\nexport let two = 2;\n"
    sources = {"main.js": main, "parts.js": parts}
    assert JOIN.join(sources, ("main.js",)) == (
        JOIN.PREAMBLE + "/* ── parts.js ── */\nconst one = 1; // stays\nlet two = 2;\n\n"
        "/* ── main.js ── */\nexport default () => one + two;\n"
    )


IMPORTS_B = 'import { b } from "./b.js";\n'


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ({"a.js": IMPORTS_B}, "a.js imports b.js, which is not here"),
        ({"a.js": IMPORTS_B, "b.js": 'import { a } from "./a.js";\n'}, "import each other: a.js → b.js → a.js"),
        ({"a.js": "export {};\n"}, "not 'export {};'"),
        ({"a.js": 'import * as b from "./b.js";\n'}, "not 'import \\* as b"),
        ({"a.js": IMPORTS_B, "b.js": "export default 1;\n"}, "b.js: .* not 'export default 1;'"),
        ({"a.js": "", "b.js": ""}, "no other file imports b.js"),
        ({"a.js": IMPORTS_B + "let x;\n", "b.js": "function x() {}\n"}, "defined in more than one file: x"),
    ],
)
def test_sources_that_cannot_be_joined_are_refused(sources, reason):
    with pytest.raises(JOIN.JoinError, match=reason):
        JOIN.join(sources, ("a.js",))


def test_the_wheel_is_built_without_the_sources():
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"]["exclude"] == ["dspynb/views/js"]  # .ci/run looks into the wheel itself
