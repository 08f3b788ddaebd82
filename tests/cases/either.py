"""For rows that leave a choice: a thing works, or its error or warning says what to write instead."""

from __future__ import annotations

import contextlib
import re
import warnings


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
