"""Checks of what works: Stop, live views, isolation of code; on request, a model and a Dask cluster."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspynb.contrib.doctor.installed import version_key, version_of
from dspynb.contrib.doctor.report import OK, WITHOUT, WRONG, Finding
from dspynb.errors import ConfigurationError, DspynbError, ExecutorError, ModelAdaptedWarning

if TYPE_CHECKING:
    from dspynb.lm.client import LM
    from dspynb.lm.protocol import LMReply

__all__ = ["cluster", "generated_code", "live_view", "provider", "say_ok", "stop"]

_STOP_DURING_AWAIT = (7, 4)
"""The first release of ipykernel in which a click on Stop reaches Python while a cell awaits."""
_FINDING_LIMIT = 5
"""How many findings of a kind are reported about a cluster, since its workers are mostly alike."""
_CHECK_ADDRESS = "look at the address (--api-base, OPENAI_BASE_URL, OPENAI_API_BASE), which mostly ends in /v1"
_ADVICE = {
    "AuthenticationError": ": look at the key, and whether its account may use this model",
    "QuotaExceeded": ": the key is accepted; look at the account's credits",
    "ModelNotFound": f"; {_CHECK_ADDRESS}",
    "BadRequestError": f": look at the model's name, as the provider writes it; {_CHECK_ADDRESS}",
    "RateLimited": ": the provider is reached; wait, or look at the limits of the account",
    "ServerError": ": the provider is reached, and fails itself; try again later",
    "ModelTimeout": f": try again; {_CHECK_ADDRESS}",
    "ConnectionFailed": f": look whether the server runs and the network lets you there; {_CHECK_ADDRESS}",
    "MalformedReply": f": is it an OpenAI-compatible server? {_CHECK_ADDRESS}",
}
"""What to do about an error of a model, by its class."""
_LM_TIMEOUT = 30.0
"""In seconds."""
_DASK_TIMEOUT = 10.0
"""In seconds."""


def stop() -> Iterator[Finding]:
    """Whether a click on Stop interrupts a cell that awaits."""
    version = version_of("ipykernel")
    facts = {"ipykernel": version}
    if version is None:
        message = 'there is no kernel for notebooks here: pip install "dspynb[lab]"'
        yield Finding("Stop", WITHOUT, message, facts)
    elif version_key(version)[0] >= _STOP_DURING_AWAIT:
        yield Finding("Stop", OK, f"ipykernel {version}: a click on Stop interrupts a cell that awaits", facts)
    else:
        message = (
            f"ipykernel {version}: a click on Stop waits for the cell that awaits; use run = program.start(…), "
            'or pip install "ipykernel>=7.4"'
        )
        yield Finding("Stop", WITHOUT, message, facts)


def live_view() -> Iterator[Finding]:
    """Check that JupyterLab has the front ends of the widgets, and that anywidget's has the version of its package."""
    lab = version_of("jupyterlab")
    anywidget = version_of("anywidget")
    front_end = _front_end_version("anywidget")
    manager = _front_end_version("@jupyter-widgets/jupyterlab-manager")
    facts = {"jupyterlab": lab, "anywidget": anywidget, "anywidget front end": front_end, "widgets front end": manager}
    reinstall = "pip install --force-reinstall --no-deps anywidget jupyterlab_widgets"
    if front_end is None or manager is None:
        front_ends = {"anywidget": front_end, "jupyterlab_widgets": manager}
        missing = " and ".join(name for name, version in front_ends.items() if version is None)
        message = f"the front end of {missing} is not installed, so a live view shows as text: {reinstall}"
        yield Finding("live view", WITHOUT if lab is None else WRONG, message, facts)
    elif anywidget is not None and not _same_minor_release(front_end, anywidget):
        message = f"anywidget is {anywidget} and its front end is {front_end}, so a live view stays empty: {reinstall}"
        yield Finding("live view", WRONG, message, facts)
    elif lab is None:
        message = "JupyterLab is not installed; if it runs from another environment, install anywidget there too"
        yield Finding("live view", WITHOUT, message, facts)
    else:
        message = f"JupyterLab {lab} with the front ends of ipywidgets and anywidget {front_end}"
        yield Finding("live view", OK, message, facts)


def _same_minor_release(version: str, other: str) -> bool:
    release, _ = version_key(version)
    other_release, _ = version_key(other)
    return release[:2] == other_release[:2]


def _front_end_version(name: str) -> str | None:
    """The version of the front end that JupyterLab of this environment would load; None if there is none."""
    for folder in _front_end_folders():
        try:
            package: dict[str, Any] = json.loads((Path(folder) / name / "package.json").read_bytes())
            return str(package["version"])
        except (OSError, ValueError, KeyError):
            continue
    return None


def _front_end_folders() -> list[str]:
    """The folders in which JupyterLab looks for front ends, in its order. A virtual environment precedes the user's."""
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError:  # JupyterLab is not installed
        return [f"{sys.prefix}/share/jupyter/labextensions"]
    return list(jupyter_path("labextensions"))


def generated_code() -> Iterator[Finding]:
    """Whether the operating system can isolate generated code. Starts a process to find out."""
    from dspynb.agents.sandbox.runner import check_isolation

    try:
        asyncio.run(check_isolation())
    except ConfigurationError as error:
        yield Finding("code", WITHOUT, f"ProgramOfThought runs no code here: {error}", {"isolated": False})
    else:
        yield Finding("code", OK, "ProgramOfThought can run generated code: it is isolated here", {"isolated": True})


async def say_ok(lm: LM) -> LMReply:
    """Send a short request to a model. Raises ModelError."""
    from dspynb.lm.protocol import LMRequest

    settings = {"max_tokens": 256}  # room for the reasoning of some models
    return await lm.complete(LMRequest(messages=({"role": "user", "content": "Say ok."},), settings=settings))


def provider(name: str, api_base: str | None) -> Iterator[Finding]:
    """Whether a model answers, and what it takes. Sends one request, without retries and cache."""
    from dspynb.lm.client import LM

    began = time.perf_counter()
    try:
        lm = LM(name, api_base=api_base, retries=0, cache=False, timeout=_LM_TIMEOUT)
        with warnings.catch_warnings(action="ignore", category=ModelAdaptedWarning):  # the profile says the same
            reply = asyncio.run(say_ok(lm))
    except DspynbError as error:
        kind = type(error).__name__
        yield Finding("lm", WRONG, f"{error}{_ADVICE.get(kind, '')}", {"lm": name, "error": kind})
        return
    seconds = round(time.perf_counter() - began, 2)
    facts = {"lm": name, "seconds": seconds, "tokens": reply.usage.tokens}
    tokens = "unknown" if facts["tokens"] is None else facts["tokens"]
    yield Finding("lm", OK, f"{name} answered in {seconds:.2f} s ({tokens} tokens)", facts)
    yield Finding("profile", OK, f"its profile: {lm.profile.describe()}", {"lm": name, "profile": lm.profile.facts()})


def cluster(address: str) -> Iterator[Finding]:
    """The workers of a Dask cluster, and how their versions differ from those of this process."""
    from dspynb.contrib.dask.cluster import Cluster

    try:
        check = Cluster(address, _DASK_TIMEOUT).check()
    except (ExecutorError, ConfigurationError) as error:
        yield Finding("dask", WRONG, str(error), {"dask": address, "error": type(error).__name__})
        return
    facts = {"dask": address, "workers": list(check.workers), "refused": list(check.problems)}
    count = len(check.workers)
    yield Finding("dask", OK, f"{count} {'worker' if count == 1 else 'workers'} at {address}", facts)
    for problem in check.problems[:_FINDING_LIMIT]:
        yield Finding("dask", WRONG, problem)
    for machine, packages in list(check.other_releases.items())[:_FINDING_LIMIT]:
        yield Finding("dask", WITHOUT, f"{machine} has {packages}, unlike here: the same releases are safer")
