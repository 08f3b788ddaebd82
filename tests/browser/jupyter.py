"""A real JupyterLab or Notebook 7 in headless Chromium.

``Lab`` serves a temporary folder on loopback; ``Lab.open`` opens a notebook in it. Nothing of the user's Jupyter
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
"""The element of a notebook that scrolls."""


def chromium() -> str | None:
    """The path of the installed Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Lab:
    """A JupyterLab server over ``folder``, or with ``app="notebook"`` a Notebook 7; a context manager."""

    def __init__(self, folder: Path, app: str = "lab") -> None:
        self.app = app
        self.folder = folder
        self.token = secrets.token_hex(8)
        self.port = _free_port()
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.base = f"http://127.0.0.1:{self.port}"
        self._setting("notification", {"fetchNews": "false", "checkForUpdates": False})

    def __enter__(self) -> Lab:
        folders = {name: str(self.folder / name) for name in ("config", "data", "runtime", "settings", "workspaces")}
        env = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": folders["config"],
            "JUPYTER_DATA_DIR": folders["data"],
            "JUPYTER_RUNTIME_DIR": folders["runtime"],
            "JUPYTERLAB_SETTINGS_DIR": folders["settings"],
            "JUPYTERLAB_WORKSPACES_DIR": folders["workspaces"],
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
        """Call the server's REST interface, and return its answer."""
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
        """Set the theme of pages that are opened later: ``JupyterLab Light`` or ``JupyterLab Dark``."""
        self._setting("themes", {"theme": name})

    def _setting(self, name: str, value: dict) -> None:
        file = self.folder / "settings" / "@jupyterlab" / "apputils-extension" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))

    def write(self, name: str, *cells: str) -> Path:
        """Write a notebook with these code cells."""
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
        """Open a notebook in a new page, and wait for its kernel."""
        return NotebookPage(self, context.new_page(), name)


class NotebookPage:
    """A notebook in the browser. ``page`` is Playwright's page; ``errors`` are uncaught errors of the page and the
    errors in its console."""

    def __init__(self, lab: Lab, page, name: str) -> None:
        self.lab = lab
        self.page = page
        self.name = name
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.set_default_timeout(30_000)
        self.reload()

    def reload(self) -> None:
        """Open the notebook from its file."""
        place = {"lab": f"lab/tree/{self.name}?reset&", "notebook": f"notebooks/{self.name}?"}[self.lab.app]
        self.page.goto(f"{self.lab.base}/{place}token={self.lab.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        self._wait_for_kernel()
        self.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
        self.page.wait_for_timeout(500)  # if cells run earlier, the page opens a dialog that asks for a kernel

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
        """Clear the outputs and the execution counts of all cells."""
        self._choose("Edit", "Clear Outputs of All Cells")

    def _choose(self, menu: str, item: str) -> None:
        self.page.click(f'.lm-MenuBar-itemLabel:text-is("{menu}")')
        self.page.click(f'.lm-Menu-itemLabel:text-is("{item}")')

    def wait_for_end(self, seconds: float = 90) -> dict:
        """Wait until the last code cell has run and the kernel is idle. Returns the JSON of the saved notebook."""
        until = time.monotonic() + seconds
        last = None
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
        """Scroll down by most of the visible height. Returns whether it scrolled."""
        return self._scroll("at.scrollTop + 0.85 * at.clientHeight")

    def _scroll(self, to: str) -> bool:
        moved = self.page.evaluate(
            f"() => {{ const at = document.querySelector('{SCROLLED}'), was = at.scrollTop;"
            f" at.scrollTop = {to}; return at.scrollTop > was + 1 }}"
        )
        self.page.wait_for_timeout(300)  # visible cells are rendered now
        return moved

    def wait_for_output(self, text: str) -> str:
        """Wait for an output that contains ``text``, and return the output's text."""
        output = self.page.locator(f'.jp-OutputArea-output:has-text("{text}")').first
        output.wait_for(state="attached")  # JupyterLab hides a cell that is scrolled out of sight
        return (output.text_content() or "").strip()

    def save(self) -> dict:
        """Save the notebook, and return its JSON from the file."""
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
