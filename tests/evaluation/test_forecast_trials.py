"""A part of the trials of ``python -m tests.campaigns.forecasts``, which has all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_forecasts_are_near_what_a_provider_bills():
    command = [sys.executable, "-m", "tests.campaigns.forecasts", "--trials", "20", "--kinds", "evaluate", "Refine"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    figures = re.findall(r"(\w+): inside (\d+)%, width (\d+)%, error (\d+)%", process.stdout)
    assert [kind for kind, *_ in figures] == ["evaluate", "Refine"], process.stderr
    for _, inside, width, error in figures:
        assert int(inside) >= 60  # of so few trials; of all of them, 75 to 95
        assert int(width) <= 100
        assert int(error) <= 25
