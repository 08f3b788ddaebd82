"""litellm's real proxy, for tests. It has an environment of its own, since its dependencies are many.

The environment is made once, in the user's cache folder; nothing is written into the working tree.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs

__all__ = ["proxy", "proxy_program"]

_REQUIREMENT = "litellm[proxy]==1.108.7"  # 1.110.2 cannot be installed: its dependencies contradict each other
_START_SECONDS = 200
"""How long the proxy may take to start. It imports much, and its files are compiled at the first start."""


def proxy_program() -> Path:
    """The path of the program ``litellm``. Raises RuntimeError if it cannot be installed."""
    name = f"{_REQUIREMENT.partition('==')[2]}-python{sys.version_info[0]}.{sys.version_info[1]}"
    folder = platformdirs.user_cache_path("dspynb") / "litellm-proxy" / name
    if not (folder / "complete").is_file():
        _install(folder)
    return folder / "bin" / "litellm"


def _install(folder: Path) -> None:
    """Make the environment. Programs of an environment have its path, so that it cannot be made elsewhere and moved."""
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted installation
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    _run(python, "-m", "pip", "install", "-q", "uv")  # pip takes a minute for the rest, and uv ten seconds
    try:
        _run(python, "-m", "uv", "pip", "install", "-q", "--python", python, _REQUIREMENT)
    except RuntimeError:  # uv does not read the settings of pip
        _run(python, "-m", "pip", "install", "-q", _REQUIREMENT)
    (folder / "complete").touch()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=400, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


@contextlib.contextmanager
def proxy(models: Mapping[str, Mapping[str, Any]], key: str) -> Iterator[str]:
    """The address of a proxy that runs until the end of the block: ``http://127.0.0.1:PORT/v1``.

    ``models``: litellm's parameters of each model, by the name under which the proxy has it. ``key``: its master key.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        config = {
            "model_list": [{"model_name": model, "litellm_params": dict(params)} for model, params in models.items()],
            "general_settings": {"master_key": key},
            "litellm_settings": {"num_retries": 0},
        }
        path = Path(name) / "config.yaml"
        path.write_text(json.dumps(config))  # YAML contains JSON
        log = Path(name) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(proxy_program()), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)],
                cwd=name,
                env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": name},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_ready(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the proxy did not start:\n{log.read_text(errors='replace')[-3000:]}")
