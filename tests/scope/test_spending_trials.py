"""A part of the trials of ``python -m tests.campaigns.spending``, which has all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_random_programs_keep_their_budgets_with_a_provider_that_bills():
    command = [sys.executable, "-m", "tests.campaigns.spending", "--trials", "40", "--units", "tokens", "usd", "calls"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
