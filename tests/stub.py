"""Write ``dspynb/__init__.pyi``, the public names for type checkers and editors: ``python -m tests.stub``."""

from __future__ import annotations

from pathlib import Path

import dspynb

PATH = Path(dspynb.__file__).with_suffix(".pyi")
_HEAD = "# The public names for type checkers and editors, written from the table in __init__.py: python -m tests.stub"


def stub_text() -> str:
    """The text of the stub for the table of public names."""
    lines = [_HEAD]
    for home, names in sorted(dspynb._HOMES.items()):
        lines += [f"from {home} import {name} as {name}" for name in sorted(names)]
    lines += ["", "__version__: str", "__all__ = [  # noqa: RUF022"]
    lines += [f'    "{name}",' for name in dspynb.__all__]
    lines += ["]", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PATH.write_text(stub_text())
