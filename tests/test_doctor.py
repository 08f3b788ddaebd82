"""``dspynb doctor``: what is installed, what is missing and what to do, as text and as JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import dspynb as dn
from dspynb.cli import main
from dspynb.contrib.doctor.examining import examine
from dspynb.contrib.doctor.installed import meets
from dspynb.data import Usage
from dspynb.lm.cache import ReplyCache
from dspynb.lm.protocol import LMReply
from tests.lm.server import Server, error
from tests.test_architecture import HEAVY

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
HERE = {distribution.name for distribution in metadata.distributions()}
KEY = "planted-0123456789-key"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)


def finding_of(report, name):
    """The finding of this name."""
    (finding,) = [finding for finding in report.findings if finding.name == name]
    return finding


def doctor(tmp_path, *arguments, before=(), **environment):
    """Run the command in its own process. Returns (exit status, output). ``before``: arguments before Python."""
    path = os.pathsep.join([str(tmp_path / "front"), str(ROOT)])
    done = subprocess.run(
        [*before, sys.executable, "-m", "dspynb", "doctor", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def line(out, name):
    """The line of a finding."""
    words = name.split()
    (matching_line,) = [text for text in out.splitlines() if text.split()[1 : 1 + len(words)] == words]
    return matching_line


def installed(tmp_path, name, version, *requires):
    """As if this release were installed: its metadata come first in the path."""
    folder = tmp_path / "front" / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")


# ── what is installed ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_complete_installation_is_fine_and_the_report_is_short(tmp_path):
    status, out = doctor(tmp_path)
    assert status == 0
    assert "WRONG" not in out
    assert len(out.splitlines()) <= 40
    assert out.startswith(f"dspynb {dn.__version__}, Python {sys.version.split()[0]}, ")
    assert f"a checkout: {ROOT}" in out.replace("~", str(Path.home()))
    for extra, needs in EXTRAS.items():
        names = {need.split(">")[0] for need in needs if not need.startswith("dspynb[")}
        if extra != "dev" and names and names <= HERE:
            assert line(out, extra).startswith("ok")
            assert all(name in line(out, extra) for name in names)


def test_no_network_is_used_and_no_file_is_written_unless_requested(tmp_path, monkeypatch):
    touched = []
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda self, *arguments: touched.append(arguments))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: touched.append(arguments))
    assert examine().fine
    assert touched == []
    assert list(tmp_path.iterdir()) == []


def test_no_heavy_library_is_imported_to_read_its_version(tmp_path):
    code = (
        "import json, sys; from dspynb.contrib.doctor import examine; examine();"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_missing_extra_is_listed_with_its_command_and_is_not_wrong(tmp_path):
    installed(tmp_path, "dspynb", dn.__version__, "rich>=13", "not-there>=1; extra == 'scale'")
    status, out = doctor(tmp_path)
    assert status == 0
    assert line(out, "scale").startswith("- ")
    assert line(out, "scale").endswith('rollouts on a Dask cluster: not installed: pip install "dspynb[scale]"')


def test_an_extra_with_a_missing_package_is_listed(tmp_path):
    installed(tmp_path, "dspynb", dn.__version__, "rich>=13; extra == 'otel'", "not-there>=1; extra == 'otel'")
    status, out = doctor(tmp_path)
    assert status == 0
    assert line(out, "otel").endswith('not installed (not-there of it): pip install "dspynb[otel]"')


def test_a_dependency_below_its_bound_is_wrong_with_what_to_install(tmp_path):
    installed(tmp_path, "pandas", "1.5.3")
    status, out = doctor(tmp_path)
    assert status == 1
    assert line(out, "dependencies").startswith("WRONG")
    assert line(out, "dependencies").endswith('pandas 1.5.3; needed: pip install "pandas>=2.2"')
    assert "1 to be put right: see WRONG." in out


def test_an_extra_below_its_bound_is_wrong(tmp_path):
    installed(tmp_path, "optuna", "3.6.1")
    status, out = doctor(tmp_path)
    assert status == 1
    assert line(out, "optimizers").endswith('MIPROv2: optuna 3.6.1; needed: pip install "optuna>=4.0"')


def test_a_missing_dependency_is_wrong(tmp_path):
    installed(tmp_path, "dspynb", dn.__version__, "not-there>=1,<2")
    status, out = doctor(tmp_path)
    assert status == 1
    assert line(out, "dependencies").endswith('not-there is not installed; needed: pip install "not-there>=1,<2"')


def test_an_installed_version_other_than_the_imported_one_is_wrong(tmp_path):
    installed(tmp_path, "dspynb", "0.0.9", "rich>=13")
    status, out = doctor(tmp_path)
    assert status == 1
    assert f"dspynb {dn.__version__} is imported, and 0.0.9 is installed" in line(out, "installation")


def test_a_check_that_fails_does_not_stop_the_others(tmp_path):
    (tmp_path / "front").mkdir()
    (tmp_path / "front" / "platformdirs.py").write_text("raise ImportError('broken here')")
    status, out = doctor(tmp_path)
    assert status == 1
    assert line(out, "model").endswith("could not be examined: ImportError: broken here")
    assert line(out, "dependencies").startswith("ok")


@pytest.mark.parametrize("bounds", [">=2.2", ">=2.2.0", ">=2.1.10", ">=2026.10.11549", ""])
@pytest.mark.parametrize("version", ["2.1.9", "2.2", "2.2.0", "2.2.1", "2.2rc1", "2.2.0.dev3", "3.0.0rc1", "10.0"])
def test_versions_are_compared_as_pip_does(version, bounds):
    assert meets(version, bounds) is SpecifierSet(bounds).contains(version, prereleases=True)


def test_tools_for_the_tests_are_one_line_and_never_wrong(tmp_path):
    tools = [f"{tool}; extra == 'dev'" for tool in ("rich>=13", "rich>=9999", "not-there>=1")]
    installed(tmp_path, "dspynb", dn.__version__, "rich>=13", *tools)
    status, out = doctor(tmp_path)
    assert status == 0
    assert line(out, "dev").endswith('2 of 3 packages for the tests are missing or too old: pip install -e ".[dev]"')


@pytest.mark.slow
def test_in_an_environment_without_extras_each_is_listed_as_missing(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", str(ROOT)], check=True, capture_output=True)
    command = [python, "-I", "-m", "dspynb", "doctor"]  # isolated from a path that names this checkout
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\ninstalled: {tmp_path / 'env'}" in done.stdout
    assert line(done.stdout, "dependencies").startswith("ok")
    for extra in {name for name, needs in EXTRAS.items() if needs} - {"dev"}:
        assert line(done.stdout, extra).endswith(f'not installed: pip install "dspynb[{extra}]"')
    assert " dev " not in done.stdout


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def without_roots_rights():
    """What to start a process with, so that it is held to the rights of files though root starts it."""
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def test_a_cache_folder_that_cannot_be_written_is_wrong(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    status, out = doctor(tmp_path, before=without_roots_rights(), DSPYNB_CACHE_DIR=str(folder))
    assert status == 1
    assert f"nothing can be written in {folder} (Permission denied)" in line(out, "reply cache")
    assert line(out, "reply cache").endswith("make it writable, or set DSPYNB_CACHE_DIR to a folder that is")
    assert line(out, "runs").startswith("ok")


def test_a_folder_of_runs_that_cannot_be_made_is_wrong(tmp_path):
    (tmp_path / ".dspynb").write_text("a file")
    status, out = doctor(tmp_path)
    assert status == 1
    assert line(out, "runs").startswith("WRONG")
    assert "(Not a directory)" in line(out, "runs")


def test_runs_are_counted(tmp_path):
    predict = dn.Predict("a -> b", lm=dn.FunctionLM(lambda r: "[[ ## b ## ]]\nx"))
    dn.BestOfN(predict, reward=lambda row, prediction: 1.0, n=1).run_sync(a="1")
    dn.runs()
    finding = finding_of(examine(), "runs")
    assert finding.facts == {"path": str(tmp_path / "runs"), "runs": 1, "writable": True}
    assert finding.message.startswith("1 file in ")


def test_the_model_is_missing_complete_or_damaged(tmp_path, monkeypatch):
    finding = finding_of(examine(), "model")
    assert finding.state == "without"
    assert "(93 MB)" in finding.message
    path = Path(finding.facts["path"])
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(98_362_432)  # of the right size only
    assert finding_of(examine(), "model").state == "wrong"
    assert "remove it, and the next use fetches it anew" in finding_of(examine(), "model").message
    path.write_bytes(b"abc")
    monkeypatch.setattr("dspynb.lm.download.GGUF_BYTES", 3)
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    monkeypatch.setattr("dspynb.lm.download.GGUF_SHA256", sha256)
    assert finding_of(examine(), "model").message == f"SmolLM2-135M, checksum verified: {path}"
    assert path.read_bytes() == b"abc"


def test_the_reply_cache_is_listed_with_its_size_and_log(tmp_path):
    path = tmp_path / "cache" / "replies.sqlite"
    assert finding_of(examine(), "reply cache").message == f"begins with the first reply of a provider: {path}"
    cache = ReplyCache(path)
    cache.put("key", LMReply("x" * 200_000, usage=Usage(calls=1)))
    cache.flush()
    finding = finding_of(examine(), "reply cache")
    assert finding.facts["wal"] is True
    assert finding.facts["bytes"] > 200_000
    assert "write-ahead log: " in finding.message
    path.write_bytes(b"no database at all")
    assert "the file is damaged" in finding_of(examine(), "reply cache").message


# ── notebooks, generated code ─────────────────────────────────────────────────────────────────────────────────────────
def test_an_old_kernel_is_listed_with_what_it_means_for_stop(tmp_path):
    installed(tmp_path, "ipykernel", "6.31.0")
    status, out = doctor(tmp_path)
    assert status == 0
    assert "ipykernel 6.31.0: a click on Stop waits for the cell that awaits; use run = " in line(out, "Stop")


def test_a_front_end_of_another_release_is_wrong(tmp_path):
    folder = tmp_path / "share" / "labextensions" / "anywidget"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"version": "0.2.1"}')
    status, out = doctor(tmp_path, JUPYTER_PATH=str(tmp_path / "share"))
    assert status == 1
    assert "its front end is 0.2.1, so a live view stays empty: pip install --force" in line(out, "live view")


def test_a_front_end_that_jupyterlab_would_not_load_is_ignored(tmp_path):
    pytest.importorskip("jupyter_core")
    folder = tmp_path / "share" / "jupyter" / "labextensions" / "anywidget"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"version": "0.2.1"}')
    status, out = doctor(tmp_path, PYTHONUSERBASE=str(tmp_path), JUPYTER_PREFER_ENV_PATH="1")
    assert status == 0
    assert "0.2.1" not in line(out, "live view")


def test_code_that_cannot_be_isolated_is_listed_and_is_not_wrong(monkeypatch):
    monkeypatch.setattr("dspynb.agents.sandbox.runner._isolated", False)
    monkeypatch.setattr("platform.machine", lambda: "vax")
    report = examine()
    assert report.fine
    assert finding_of(report, "code").message.startswith("ProgramOfThought runs no code here: ")
    assert "vax" in finding_of(report, "code").message


# ── what is reached ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_named_model_gets_one_short_request(tmp_path, capsys):
    with Server(lambda body, number: "ok") as server:
        assert main(["doctor", "--lm", "openai/m", "--api-base", server.base]) == 0
    out = capsys.readouterr().out
    assert "openai/m answered in 0." in line(out, "lm")
    assert "(10 tokens)" in line(out, "lm")
    assert "nothing is known of this model" in line(out, "profile")
    (body,) = server.bodies
    assert body["max_tokens"] == 256
    assert not (tmp_path / "cache").exists()  # nothing was kept


def test_a_missing_server_is_wrong_with_its_address(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        status, out = doctor(tmp_path, "--lm", "openai/m", "--api-base", f"http://127.0.0.1:{port}/v1")
    assert status == 1
    assert line(out, "lm").startswith("WRONG")
    assert "openai/m: " in line(out, "lm")
    assert f"127.0.0.1:{port}" in line(out, "lm")
    assert ": look whether the server runs and the network lets you there; look at the address" in line(out, "lm")
    assert "Traceback" not in out


def test_a_refusal_without_a_key_names_the_variable():
    with Server(lambda body, number: error(401, "who are you")) as server:
        report = examine(lm="openai/m", api_base=server.base)
    assert finding_of(report, "lm").facts["error"] == "AuthenticationError"
    assert "set OPENAI_API_KEY" in finding_of(report, "lm").message


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, "AuthenticationError", "look at the key"),
        (404, "BadRequestError", "look at the model's name"),
        (429, "RateLimited", "look at the limits of the account"),
        (500, "ServerError", "try again later"),
    ],
)
def test_a_refused_request_is_not_retried_and_has_advice(status, kind, advice):
    with Server(lambda body, number: error(status, "no such thing")) as server:
        report = examine(lm="openai/m", api_base=server.base)
    finding = finding_of(report, "lm")
    assert (finding.state, finding.facts["error"]) == ("wrong", kind)
    assert "no such thing" in finding.message
    assert advice in finding.message
    assert len(server.bodies) == 1


def test_an_address_without_a_model_is_one_line(capsys):
    assert main(["doctor", "--api-base", "http://127.0.0.1:1/v1"]) == 1
    assert capsys.readouterr().err.startswith("dspynb: --api-base goes with --lm")


def test_a_cluster_is_listed_with_its_workers_and_differences(monkeypatch):
    pytest.importorskip("distributed")
    from tests.executors.conftest import started

    with started(2) as cluster:
        finding = finding_of(examine(dask=cluster.scheduler_address), "dask")
        assert finding.message == f"2 workers at {cluster.scheduler_address}"
        assert len(finding.facts["workers"]) == 2
        about = {"dspynb": "0.0.1", "python": "3.1"}
        monkeypatch.setattr("dspynb.contrib.dask.cluster._ABOUT", f"def about():\n    return {about!r}\n")
        report = examine(dask=cluster.scheduler_address)
    wrong = [finding.message for finding in report.findings if finding.state == "wrong"]
    assert len(wrong) == 5  # of six: the scheduler and two workers, with two differences each
    assert wrong[0].startswith(f"the scheduler has dspynb 0.0.1, and here it is {dn.__version__}")


def test_a_named_cluster_without_dask_names_the_extra(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "distributed" else find_spec(name))
    finding = finding_of(examine(dask="tcp://127.0.0.1:9"), "dask")
    assert finding.state == "wrong"
    assert 'pip install "dspynb[scale]"' in finding.message


def test_a_missing_scheduler_is_wrong(monkeypatch):
    monkeypatch.setattr("dspynb.contrib.doctor.abilities._DASK_TIMEOUT", 0.2)
    finding = finding_of(examine(dask="tcp://127.0.0.1:9"), "dask")
    assert finding.state == "wrong"
    assert finding.message.startswith("no Dask scheduler answers at tcp://127.0.0.1:9 within 0.2 s")


# ── secrets and programs ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("as_json", [False, True])
def test_names_of_keys_are_listed_and_their_values_never(tmp_path, as_json):
    def answer(body, number):
        return error(400, f"cannot take {KEY}")

    with Server(answer) as server:
        arguments = ["--lm", "openai/m", "--api-base", server.base, *(["--json"] if as_json else [])]
        environment = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"http://user:{KEY}@{server.base[7:]}"}
        folder = str(tmp_path / f"cache-{KEY}")
        status, out = doctor(tmp_path, *arguments, DSPYNB_CACHE_DIR=folder, **environment)
    assert status == 1
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "OPENAI_API_KEY" in out
    assert "cannot take ***" in out
    assert KEY not in out


def test_a_key_with_a_space_or_quote_around_it_is_wrong(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    report = examine()
    assert not report.fine
    message = finding_of(report, "keys").message
    assert message.startswith("OPENAI_API_KEY: the value begins or ends with a space or quote")
    assert KEY not in report.text()


def test_the_home_folder_is_not_spelled_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    report = examine()
    assert str(tmp_path) not in report.text() + report.json()
    assert finding_of(report, "model").facts["path"].startswith("~/cache/")


def test_the_json_has_the_same_findings_as_the_text(tmp_path):
    installed(tmp_path, "optuna", "3.6.1")
    _, text = doctor(tmp_path)
    status, out = doctor(tmp_path, "--json")
    printed = json.loads(out)
    assert (status, printed["fine"], printed["dspynb"]) == (1, False, dn.__version__)
    for finding in printed["findings"]:
        assert line(text, finding["name"]).endswith(finding["says"])
    (optimizers,) = [finding for finding in printed["findings"] if finding["name"] == "optimizers"]
    assert optimizers["state"] == "wrong"
    assert optimizers["needs"] == [{"name": "optuna", "bounds": ">=4.0", "installed": "3.6.1", "met": False}]
