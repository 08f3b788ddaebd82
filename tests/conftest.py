"""Every test starts with fresh settings, its own runs folder, no view, and no connection to a real provider."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from dataclasses import replace

import hypothesis
import pytest

from dspynb import redact
from dspynb.lm import cache
from dspynb.scope import settings
from tests.planted import Planted

# Time never decides a test. In CI, chance does not either: each run tries the same examples. Elsewhere, runs differ.
hypothesis.settings.register_profile("no clock", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("no clock")

os.environ.setdefault(
    "LITELLM_LOCAL_MODEL_COST_MAP", "True"
)  # litellm, which DSPy imports too, must not download prices

# A shell starts background jobs with SIGINT ignored, and what they start inherits it: no Ctrl-C would reach a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(autouse=True)
def _own_reply_cache(tmp_path, monkeypatch):
    """Each test has a reply cache of its own, since a later server of another test may get the same port."""
    monkeypatch.setattr(cache, "_default", {"": cache.ReplyCache(tmp_path / "default-cache" / "replies.sqlite")})


@pytest.fixture(scope="session")
def _default_server():
    """A server that the providers' addresses in the environment name, also in kernels and workers that tests start.

    It must receive no request in the whole suite, because no test may call a provider at its default address.
    """
    with Planted() as server, pytest.MonkeyPatch.context() as patch:
        for provider in _PROVIDERS:
            for name in _ADDRESSES:
                patch.setenv(f"{provider}{name}", server.base)
        yield server
        assert server.requests == [], "requests to a provider's default address"


@pytest.fixture(autouse=True)
def _receives_nothing(_default_server):
    """A test that sends a request to a provider's default address fails."""
    before = len(_default_server.requests)
    yield
    assert _default_server.requests[before:] == [], "a request to a provider's default address"


@pytest.fixture
def planted():
    """A second server, which the test must not reach: the test fails if the server received a request."""
    with Planted() as server:
        yield server
        assert server.requests == [], "the planted server received a request"


@pytest.fixture
def default_addresses(monkeypatch):
    """Remove the addresses of providers from the environment, for tests of default addresses that send no requests."""
    for name in list(os.environ):
        if name.endswith(_ADDRESSES):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_providers(monkeypatch):
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(
        "dspynb.redact._known", (-9.0, frozenset())
    )  # secrets in the environment are read once a second
    monkeypatch.setattr(
        "dspynb.redact._registered", set(redact._registered)
    )  # secrets that a test adds do not affect other tests
    connect = socket.socket.connect
    look_up = socket.getaddrinfo
    forbidden = []

    def loopback_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(address[0]).is_loopback:
            if self.type == socket.SOCK_STREAM:  # Dask connects a datagram socket only to find its own address
                forbidden.append(address)
            raise OSError(f"tests may connect to loopback only, not to {address[0]}")
        return connect(self, address)

    def own_names_only(host, *args, **keywords):
        name = host.decode() if isinstance(host, bytes) else host
        if name and name not in _OWN_NAMES and not _is_address(name):
            forbidden.append(name)
            raise socket.gaierror(f"tests may not look up names such as {name}")
        return look_up(host, *args, **keywords)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
    monkeypatch.setattr(socket, "getaddrinfo", own_names_only)
    yield
    assert forbidden == [], "connections or look-ups of names other than loopback"
