"""Every test starts with fresh settings, its own runs folder, no view, and no way to a real provider."""

from __future__ import annotations

import ipaddress
import os
import socket

import hypothesis
import pytest

from dspynb.scope import settings

hypothesis.settings.register_profile("no clock", deadline=None)  # time never decides a test
hypothesis.settings.load_profile("no clock")


@pytest.fixture(autouse=True)
def _fresh_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(
        settings, "_process", {**settings._DEFAULTS, "view": "off", "runs_dir": str(tmp_path / "runs"), "cache": False}
    )


@pytest.fixture(autouse=True)
def _no_providers(monkeypatch):
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("dspynb.redact._seen", (-9.0, frozenset()))  # keys are looked for once a second
    connect = socket.socket.connect

    def loopback_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(address[0]).is_loopback:
            raise OSError(f"tests reach loopback only, not {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
