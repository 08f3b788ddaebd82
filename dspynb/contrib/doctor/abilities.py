"""What works here: Stop, live views, isolated code; and what is reached, where that is asked for."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspynb.contrib.doctor.installed import order, version_of
from dspynb.contrib.doctor.report import OK, WITHOUT, WRONG, Finding
from dspynb.errors import ConfigurationError, DspynbError, ExecutorError

__all__ = ["cluster", "generated_code", "live_view", "provider", "stop"]

_STOP_IS_HEARD = (7, 4)
"""The ipykernel from which a click reaches Python while a cell awaits."""
_MOST_TOLD = 5
"""Lines of a kind about a cluster: its workers are mostly alike."""
_ADDRESS = "look at the address (--api-base, OPENAI_BASE_URL, OPENAI_API_BASE), which mostly ends in /v1"
_TO_DO = {
    "AuthenticationError": ": look at the key, and whether its account may use this model",
    "BadRequestError": f": look at the model's name, as the provider writes it; {_ADDRESS}",
    "RateLimited": ": the provider is reached; wait, or look at the limits of the account",
    "ServerError": ": the provider is reached, and fails itself; try again later",
    "ModelTimeout": f": try again; {_ADDRESS}",
    "ConnectionFailed": f": look whether the server runs and the network lets you there; {_ADDRESS}",
    "MalformedReply": f": is it an OpenAI-compatible server? {_ADDRESS}",
}
"""What to do about an error of a model, by its class."""
_LM_PATIENCE, _DASK_PATIENCE = 30.0, 10.0
"""Seconds."""


def stop() -> Iterator[Finding]:
    """Whether a click on Stop is heard by this kernel."""
    version = version_of("ipykernel")
    facts = {"ipykernel": version}
    if version is None:
        yield Finding("Stop", WITHOUT, 'there is no kernel for notebooks here: pip install "dspynb[lab]"', facts)
    elif order(version)[0] >= _STOP_IS_HEARD:
        yield Finding("Stop", OK, f"ipykernel {version}: a click on Stop is heard while a cell awaits", facts)
    else:
        says = (
            f"ipykernel {version}: a click on Stop waits for the cell that awaits; use run = program.start(…), "
            'or pip install "ipykernel>=7.4"'
        )
        yield Finding("Stop", WITHOUT, says, facts)


def live_view() -> Iterator[Finding]:
    """The front ends that JupyterLab and Notebook load, beside the Python packages that they belong to."""
    lab, anywidget = version_of("jupyterlab"), version_of("anywidget")
    ours, manager = _extension("anywidget"), _extension("@jupyter-widgets/jupyterlab-manager")
    facts = {"jupyterlab": lab, "anywidget": anywidget, "anywidget front end": ours, "widgets front end": manager}
    again = "pip install --force-reinstall --no-deps anywidget jupyterlab_widgets"
    if ours is None or manager is None:
        absent = " and ".join(n for n, v in (("anywidget", ours), ("jupyterlab_widgets", manager)) if v is None)
        says = f"the front end of {absent} is not here, so a live view shows as text: {again}"
        yield Finding("live view", WITHOUT if lab is None else WRONG, says, facts)
    elif anywidget is not None and order(ours)[0][:2] != order(anywidget)[0][:2]:
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
    for folder in _front_ends():
        try:
            told: dict[str, Any] = json.loads((Path(folder) / name / "package.json").read_bytes())
            return str(told["version"])
        except (OSError, ValueError, KeyError):
            continue
    return None


def _front_ends() -> list[str]:
    """Where JupyterLab looks for front ends, in its order: in a virtual environment that comes before the user's."""
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError:  # JupyterLab is not here
        return [f"{sys.prefix}/share/jupyter/labextensions"]
    return list(jupyter_path("labextensions"))


def generated_code() -> Iterator[Finding]:
    """Whether the kernel of the system isolates generated code: a process is started and looked at."""
    from dspynb.agents.sandbox.runner import check_isolation

    try:
        asyncio.run(check_isolation())
    except ConfigurationError as error:
        yield Finding("code", WITHOUT, f"ProgramOfThought runs no code here: {error}", {"isolated": False})
    else:
        yield Finding("code", OK, "ProgramOfThought can run generated code: it is isolated here", {"isolated": True})


def provider(name: str, api_base: str | None) -> Iterator[Finding]:
    """One request to a model, not tried again and not kept."""
    from dspynb.lm.client import LM
    from dspynb.lm.protocol import LMRequest

    request = LMRequest(messages=({"role": "user", "content": "Say ok."},), settings=_short(name, api_base))
    began = time.perf_counter()
    try:
        lm = LM(name, api_base=api_base, retries=0, cache=False, timeout=_LM_PATIENCE)
        reply = asyncio.run(lm.complete(request))
    except DspynbError as error:
        kind = type(error).__name__
        yield Finding("lm", WRONG, f"{error}{_TO_DO.get(kind, '')}", {"lm": name, "error": kind})
        return
    seconds = round(time.perf_counter() - began, 2)
    facts = {"lm": name, "seconds": seconds, "tokens": reply.usage.tokens}
    tokens = "unknown" if facts["tokens"] is None else facts["tokens"]
    yield Finding("lm", OK, f"{name} answered in {seconds:.2f} s ({tokens} tokens)", facts)


def _short(name: str, api_base: str | None) -> dict[str, Any]:
    """Settings that keep a reply short; with room for the reasoning that some models begin with."""
    from dspynb.lm.providers.addresses import base_in_environment

    own = name.startswith("openai/") and not (api_base or base_in_environment("openai"))
    return {"max_completion_tokens" if own else "max_tokens": 256}  # OpenAI's newer models refuse the older name


def cluster(address: str) -> Iterator[Finding]:
    """The workers of a Dask cluster, and who differs from this process."""
    from dspynb.contrib.dask.cluster import Cluster

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
