"""The saved view of a run: in a notebook, in HTML from nbconvert, in a new kernel; it is safe and accessible."""

from __future__ import annotations

import asyncio
import json

import nbformat
import pytest

from tests.browser import story
from tests.browser.test_live_view import ROWS, STILL

HOSTILE = [
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<svg onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    "<iframe src=javascript:parent.pwned=1></iframe>",
    "<a href=javascript:window.pwned=1>click</a>",
    "<body onload=window.pwned=1>",
    "<details open ontoggle=window.pwned=1>",
    "<math><mtext><img src=x onerror=window.pwned=1></mtext></math>",
    "<style>*{display:none!important}</style>",
    "</script><script>window.pwned=1</script>",
    "</style><script>window.pwned=1</script>",
    "--><script>window.pwned=1</script>",
    "<!--<script>",
    "]]><script>window.pwned=1</script>",
    '"><script>window.pwned=1</script>',
    "'><img src=x onerror=window.pwned=1>",
    "javascript:window.pwned=1",
    "data:text/html,<script>parent.pwned=1</script>",
    "<base href=http://127.0.0.1:1/>",
    "<link rel=stylesheet href=http://127.0.0.1:1/x.css>",
    "<meta http-equiv=refresh content=0;url=http://127.0.0.1:1/>",
    "<form action=javascript:window.pwned=1><button>Stop</button></form>",
    "<input autofocus onfocus=window.pwned=1>",
    "<video src=x onerror=window.pwned=1>",
    "<object data=javascript:window.pwned=1>",
    "<embed src=javascript:window.pwned=1>",
    "<template><script>window.pwned=1</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=window.pwned=1>'>",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "\\u003cscript\\u003ewindow.pwned=1\\u003c/script\\u003e",
    "\\x3cscript>",
    "${window.pwned=1}",
    "`${window.pwned=1}`",
    "{{constructor.constructor('window.pwned=1')()}}",
    "#{window.pwned=1}",
    "[click](javascript:window.pwned=1)",
    '![x](x"onerror="window.pwned=1)',
    "**bold** _under_ `code`\n# heading\n- list",
    "$\\require{action}\\href{javascript:window.pwned=1}{x}$",
    "$$\\int_0^1 x$$",
    "\\(\\color{red}{red}\\)",
    "$\\rule{10000px}{10000px}$",
    "\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07",
    "\x1b]8;;http://127.0.0.1:1\x1b\\link\x1b]8;;\x1b\\",
    "\u202eright to left\u202c and on",
    "\u2066isolated",
    "\u202d\u202e\u202d\u202e",
    "\u05d0\u05d1\u05d2 <b>",
    "a\u0000b\u0000c",
    "\ufeff\u200b\u200d\u2060",
    "\ud800 alone",
    "e" + "\u0301" * 400,
    "w" * 5_000,
    "W" * 300 + " " + "i" * 300,
    "\n" * 200 + "end",
    "\t" * 200,
    "\r\rcarriage\rreturns",
    " " * 500 + "x",
    "\u2028line\u2029separators",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 50,
    "NaN",
    "__proto__",
    "constructor",
    "%s%n%p",
    "../../etc/passwd",
]


def check_page(page):
    """Check that no hostile script ran, and that each line has the right height and width."""
    assert page.evaluate("window.pwned") in (0, None)
    sizes = page.evaluate(
        f"""() => [...document.querySelectorAll('{ROWS}')].map(line => [line.offsetHeight,
            line.getBoundingClientRect().right - line.closest('.dspynb').getBoundingClientRect().right])"""
    )
    assert sizes
    assert all(height == 46 and over <= 1 for height, over in sizes)


def test_at_least_60_hostile_strings_are_tried():
    assert len(set(HOSTILE)) >= 60


def test_hostile_text_is_never_executed_and_breaks_nothing(notebook, shot):
    cells = [
        f"texts = {json.dumps(HOSTILE)}",
        "rows = [{'subject': text} for text in texts]\n"
        "result = await dn.evaluate(hostile(' | '.join(texts[:3])), rows, reward)\nresult.run",
        *(
            f"for text in texts[{i}:{i + 20}]:\n    run = hostile(text).start(subject=text)\n"
            "    await asyncio.wait([run.task])\n    display(run)"
            for i in range(0, len(HOSTILE), 20)  # JupyterLab shows 50 outputs of a cell
        ),
        "print('RESULT')",
    ]
    opened = notebook(*cells)
    opened.page.set_default_timeout(90_000)
    requested = []
    opened.page.on("request", lambda request: requested.append(request.url))
    opened.run_all()
    opened.wait_for_output("RESULT")
    views = opened.page.locator(STILL)
    assert views.count() >= len(HOSTILE)
    for i in range(views.count()):
        view = views.nth(i)
        view.scroll_into_view_if_needed()
        view.locator(".dspynb-line[data-key]").last.click()
    check_page(opened.page)
    assert opened.page.get_by_role("button", name="Stop", exact=True).count() == 0
    assert not [url for url in requested if ":1/" in url]
    shot(opened, "hostile")
    assert [error for error in opened.errors if "127.0.0.1" not in error] == []


def test_open_run_shows_the_full_view_in_a_new_kernel(lab, notebook, shot):
    opened = notebook(
        "dn.configure(view='off')\nrun = refine(pace=0.01).start(subject='the ocean')\nawait run\n"
        "print('PATH', run.path)"
    )
    opened.run_all()
    path = opened.wait_for_output("PATH").split()[1]
    lab.shut_down_kernels()
    lab.write("reopened.ipynb", f"import dspynb as dn\ndn.open_run({path!r})")
    later = lab.open(opened.page.context, "reopened.ipynb")
    later.run_all()
    later.page.wait_for_selector(STILL)
    later.page.locator(ROWS).nth(3).click()
    later.page.locator(".dspynb-detail del").first.wait_for()
    shot(later, "open-run")
    assert later.errors == []


def test_a_page_from_nbconvert_shows_the_view(lab, notebook, tmp_path):
    from nbconvert import HTMLExporter

    opened = notebook("prediction = await refine(pace=0.01)(subject='the ocean')\nprint('RESULT')")
    opened.run_all()
    opened.wait_for_output("RESULT")
    opened.page.wait_for_selector(STILL)
    opened.save()
    saved = nbformat.read(lab.work / opened.name, as_version=4)
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(saved)
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{page}")
    tab = opened.page.context.new_page()
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"file://{tmp_path}/page.html")
    tab.wait_for_selector(STILL)
    tab.locator(ROWS).nth(2).click()
    tab.locator(".dspynb-detail ins").first.wait_for()
    assert errors == []


def test_a_saved_page_runs_only_its_own_script(lab, tmp_path):
    runs = [asyncio.run(ended(text)) for text in (" | ".join(HOSTILE[:40]), HOSTILE[-3])]
    with lab.browser() as context:
        page = context.new_page()
        messages = []
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("console", lambda message: messages.append(message.text))
        for i, run in enumerate(runs):
            page.goto(f"file://{run.save_html(tmp_path / f'{i}.html')}")
            page.wait_for_selector(STILL)
            page.locator(ROWS).last.click()
            check_page(page)
            page.evaluate(
                "() => { const s = document.createElement('script'); s.text = 'pwned = 1'; document.body.append(s); }"
            )
            assert page.evaluate("window.pwned") is None
            assert [text for text in messages if "Content Security Policy" not in text] == []
            blocked = [text for text in messages if "Content Security Policy" in text]
            assert len(blocked) == i + 1  # the script that this test added, once for each page


async def ended(text):
    run = story.hostile(text).start(subject=text)
    await asyncio.wait([run.task])
    return run


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark", "JupyterLab Light High Contrast"])
def test_axe_finds_no_serious_violation(lab, notebook, axe, theme, shot):
    lab.theme(theme)
    try:
        opened = notebook(
            "run = refine(pace=0.3, n=60).start(subject='the ocean')\nrun",
            "result = await dn.evaluate(refine(pace=0.01), SUBJECTS, reward)\nresult.run",
            "program = await optimizer(steps=120).compile(dn.Predict(Caption, lm=writer(0.0)), SUBJECTS)",
            "print('RESULT')",
        )
        opened.run_all()
        opened.wait_for_output("RESULT")
        opened.page.locator(ROWS).nth(2).click()
        opened.page.evaluate(axe)
        violations = opened.page.evaluate("axe.run('.dspynb').then(result => result.violations)")
        shot(opened, f"axe-{theme.split()[-1].lower()}")
    finally:
        lab.theme("JupyterLab Light")
    serious = [
        (violation["id"], violation["nodes"][0]["html"][:200], violation["nodes"][0]["failureSummary"])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []
