"""Report expected failures in the short native format: pytest's own tracebacks would take most of the time here."""

from __future__ import annotations

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    option = item.config.option
    style = option.tbstyle
    if item.get_closest_marker("xfail") and not option.runxfail:
        option.tbstyle = "native"
    try:
        return (yield)
    finally:
        option.tbstyle = style
