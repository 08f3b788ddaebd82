"""Every test starts with fresh settings, its own runs folder, no view, and no way to a real provider."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import replace

import hypothesis
import pytest

from dspynb import redact
from dspynb.scope import settings
from tests.planted import Planted

# Time never decides a test; nor does chance in CI, where each run tries the same examples. Elsewhere each tries others.
hypothesis.settings.register_profile("no clock", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("no clock")

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # tests that import litellm or DSPy look nothing up

_ADDRESSES = ("_BASE_URL", "_API_BASE")
_PROVIDERS = ("OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL", "GROQ", "OPENROUTER", "DEEPSEEK")
_OWN_NAMES = {"localhost", socket.gethostname()}


def _is_address(name):
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


@pytest.fixture(autouse=True)
def _fresh_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(
        settings, "_process", replace(settings._DEFAULTS, view="off", runs_dir=str(tmp_path / "runs"), cache=False)
    )


@pytest.fixture(scope="session")
def _default_server():
    """What providers' addresses in the environment name, also in kernels and workers that tests start: a server that
    receives nothing in the whole suite, since no test means to ask a provider at its default address."""
    with Planted() as server, pytest.MonkeyPatch.context() as patch:
        for provider in _PROVIDERS:
            for name in _ADDRESSES:
                patch.setenv(f"{provider}{name}", server.base)
        yield server
        assert server.requests == [], "requests to a provider's default address"


@pytest.fixture(autouse=True)
def _receives_nothing(_default_server):
    """The test that sends a request to a provider's default address is the one that fails."""
    before = len(_default_server.requests)
    yield
    assert _default_server.requests[before:] == [], "a request to a provider's default address"


@pytest.fixture
def planted():
    """A second server, which the test must not reach: what it received is looked at after the test."""
    with Planted() as server:
        yield server
        assert server.requests == [], "the planted server received a request"


@pytest.fixture
def default_addresses(monkeypatch):
    """No address of a provider in the environment, for tests of where requests go by default; they send none."""
    for name in list(os.environ):
        if name.endswith(_ADDRESSES):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_providers(monkeypatch):
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("dspynb.redact._known", (-9.0, frozenset()))  # the environment is read once a second
    monkeypatch.setattr("dspynb.redact._registered", set(redact._registered))  # undone after the test
    connect, look_up, beyond = socket.socket.connect, socket.getaddrinfo, []

    def loopback_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(address[0]).is_loopback:
            if self.type == socket.SOCK_STREAM:  # Dask connects a datagram socket, which sends nothing, for its address
                beyond.append(address)
            raise OSError(f"tests reach loopback only, not {address[0]}")
        return connect(self, address)

    def own_names_only(host, *args, **keywords):
        name = host.decode() if isinstance(host, bytes) else host
        if name and name not in _OWN_NAMES and not _is_address(name):
            beyond.append(name)
            raise socket.gaierror(f"tests look no name up, as {name}")
        return look_up(host, *args, **keywords)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
    monkeypatch.setattr(socket, "getaddrinfo", own_names_only)
    yield
    assert beyond == [], "connections or look-ups of names beyond loopback"
