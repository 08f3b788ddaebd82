"""A real JupyterLab or Notebook 7 in headless Chromium, for what no test without a browser can see.

``Lab`` serves a folder of its own on loopback; ``Lab.page`` opens a notebook in it. Nothing of the user's Jupyter
configuration, workspaces or browser profile is read or written.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).parents[2]
SCROLLED = ".jp-NotebookPanel-notebook .jp-WindowedPanel-outer"
"""What scrolls in a notebook."""


def chromium() -> str | None:
    """The path of a Chromium that is installed, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Lab:
    """A JupyterLab server over ``folder``, or with ``app="notebook"`` a Notebook 7; a context manager."""

    def __init__(self, folder: Path, app: str = "lab") -> None:
        self.app = app
        self.folder, self.token, self.port = folder, secrets.token_hex(8), _free_port()
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.base = f"http://127.0.0.1:{self.port}"
        self._setting("notification", {"fetchNews": "false", "checkForUpdates": False})

    def __enter__(self) -> Lab:
        own = {name: str(self.folder / name) for name in ("config", "data", "runtime", "settings", "workspaces")}
        env = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": own["config"],
            "JUPYTER_DATA_DIR": own["data"],
            "JUPYTER_RUNTIME_DIR": own["runtime"],
            "JUPYTERLAB_SETTINGS_DIR": own["settings"],
            "JUPYTERLAB_WORKSPACES_DIR": own["workspaces"],
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        options = [
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            f"--IdentityProvider.token={self.token}",
            f"--ServerApp.root_dir={self.work}",
            "--LabApp.news_url=",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]
        self._log = (self.folder / "server.log").open("w")
        self._server = subprocess.Popen(
            [sys.executable, "-m", {"lab": "jupyterlab", "notebook": "notebook"}[self.app], *options],
            env=env,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        try:
            self._server.wait(15)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._log.close()

    def _wait_until_up(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                self.rest("GET", "status")
            except OSError:
                assert self._server.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.1)
            else:
                return
        raise TimeoutError((self.folder / "server.log").read_text())

    def rest(self, method: str, path: str) -> object:
        """An answer of the server's REST interface."""
        request = urllib.request.Request(  # noqa: S310  # our own loopback server
            f"{self.base}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read() or "null")

    def shut_down_kernels(self) -> None:
        """End all kernels, as if the server had been restarted."""
        for session in self.rest("GET", "sessions"):
            self.rest("DELETE", f"sessions/{session['id']}")

    def theme(self, name: str) -> None:
        """Use this theme in pages opened from now on: ``JupyterLab Light`` or ``JupyterLab Dark``."""
        self._setting("themes", {"theme": name})

    def _setting(self, name: str, value: dict) -> None:
        file = self.folder / "settings" / "@jupyterlab" / "apputils-extension" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))

    def write(self, name: str, *cells: str) -> Path:
        """A notebook with these code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.work / name
        nbformat.write(notebook, path)
        return path

    @contextlib.contextmanager
    def browser(self):
        """A browser with an empty profile."""
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            context = playwright.chromium.launch_persistent_context(
                str(self.folder / f"profile-{secrets.token_hex(4)}"),
                executable_path=chromium(),
                headless=True,
                viewport={"width": 1280, "height": 1000},
                args=FLAGS,
            )
            try:
                yield context
            finally:
                context.close()

    def open(self, context, name: str) -> NotebookPage:
        """A notebook in a page of its own, its kernel ready."""
        return NotebookPage(self, context.new_page(), name)


class NotebookPage:
    """A notebook in the browser. ``page`` is Playwright's; ``errors`` are uncaught errors of the page, and what it
    wrote to its console as errors."""

    def __init__(self, lab: Lab, page, name: str) -> None:
        self.lab, self.page, self.name = lab, page, name
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.set_default_timeout(30_000)
        self.reload()

    def reload(self) -> None:
        """Open the notebook from its file."""
        place = {"lab": f"lab/tree/{self.name}?reset&", "notebook": f"notebooks/{self.name}?"}[self.lab.app]
        self.page.goto(f"{self.lab.base}/{place}token={self.lab.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        self._wait_for_kernel()
        self.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
        self.page.wait_for_timeout(500)  # the page asks for a kernel by a dialog if cells are run before it has noticed

    def _wait_for_kernel(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self._states() == ["idle"]:
                return
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"the kernel of {self.name} did not get ready")

    def _states(self) -> list[str]:
        sessions = self.lab.rest("GET", "sessions")
        return [s["kernel"]["execution_state"] for s in sessions if s["path"] == self.name]

    def run_all(self) -> None:
        """Run all cells; does not wait for them."""
        self._choose("Run", "Run All Cells")

    def clear_outputs(self) -> None:
        """Clear the outputs of all cells, and the numbers that say in which order they were run."""
        self._choose("Edit", "Clear Outputs of All Cells")

    def _choose(self, menu: str, item: str) -> None:
        self.page.click(f'.lm-MenuBar-itemLabel:text-is("{menu}")')
        self.page.click(f'.lm-Menu-itemLabel:text-is("{item}")')

    def wait_for_end(self, seconds: float = 90) -> dict:
        """Wait until the last code cell has been run and the kernel is idle; the notebook's JSON as saved then."""
        until, last = time.monotonic() + seconds, None
        while time.monotonic() < until:
            ended = last is not None and self._states() == ["idle"]
            notebook = self.save()
            if ended:
                return notebook
            counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
            last = counts[-1]
            self.page.wait_for_timeout(500)
        raise TimeoutError(f"{self.name}: cells have been run up to these numbers: {counts}")

    def top(self) -> None:
        """Scroll to the top."""
        self._scroll("0")

    def further(self) -> bool:
        """Scroll on by most of what is in sight; whether there was anything left to scroll."""
        return self._scroll("at.scrollTop + 0.85 * at.clientHeight")

    def _scroll(self, to: str) -> bool:
        moved = self.page.evaluate(
            f"() => {{ const at = document.querySelector('{SCROLLED}'), was = at.scrollTop;"
            f" at.scrollTop = {to}; return at.scrollTop > was + 1 }}"
        )
        self.page.wait_for_timeout(300)  # what comes into sight is put on the page now
        return moved

    def wait_for_output(self, text: str) -> str:
        """The text of the first output that has this in it."""
        output = self.page.locator(f'.jp-OutputArea-output:has-text("{text}")').first
        output.wait_for(state="attached")  # JupyterLab hides a cell that is scrolled out of sight
        return (output.text_content() or "").strip()

    def save(self) -> dict:
        """Save, and the notebook's JSON as it is in the file then."""
        path = self.lab.work / self.name
        before = path.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        until = time.monotonic() + 15
        while path.stat().st_mtime_ns == before and time.monotonic() < until:
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(300)
        return json.loads(path.read_text())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
