"""For cases with two good outcomes: the code works, or its error or warning says what to write instead."""

from __future__ import annotations

import contextlib
import re
import warnings


def works_or_names(make, pattern):
    """The result of ``make()``; None if it raises an error whose text matches the pattern. Other errors propagate."""
    try:
        return make()
    except Exception as error:
        if re.search(pattern, str(error), re.DOTALL):
            return None
        raise


@contextlib.contextmanager
def warned():
    """Collect all warnings of a block, repeated ones too."""
    with warnings.catch_warnings(record=True) as collected:
        warnings.simplefilter("always")
        yield collected
