"""For rows that leave a choice: a thing works, or its error or warning says what to write instead."""

from __future__ import annotations

import contextlib
import re
import warnings

import pytest


def part7(reason, raises):
    """The mark of a row of part 7, with the failure of today."""
    return pytest.mark.xfail(strict=True, raises=raises, reason=f"part 7: {reason}")


def works_or_names(make, pattern):
    """What ``make()`` gives; None where it raises an error whose text has the pattern. Other errors are raised."""
    try:
        return make()
    except Exception as error:
        if re.search(pattern, str(error), re.DOTALL):
            return None
        raise


@contextlib.contextmanager
def warned():
    """Collects the warnings of a block, each time that they are given."""
    with warnings.catch_warnings(record=True) as collected:
        warnings.simplefilter("always")
        yield collected
