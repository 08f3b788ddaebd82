"""Every public name of DSPy has an entry: dspynb's name for it, or the reason why there is none."""

from __future__ import annotations

import functools
import importlib
import warnings

import pytest

import dspynb as dn
from dspynb import errors  # noqa: F401  # dn.errors
from dspynb.contrib.migration.dspy_names import DSPY_NAMES, advice_on
from tests.dspy_names import PAGE, page_text

SUBMODULES = [
    "predict",
    "signatures",
    "adapters",
    "evaluate",
    "primitives",
    "teleprompt",
    "clients",
    "retrievers",
    "streaming",
    "datasets",
    "experimental",
    "propose",
    "utils",
]


def test_every_public_name_of_dspy_has_an_entry():
    dspy = pytest.importorskip("dspy")
    if dspy.__version__ != "3.4.1":
        pytest.skip(f"the table is that of DSPy 3.4.1, and {dspy.__version__} is installed")
    names = {name for name in vars(dspy) if not name.startswith("_")} - {"threading", "annotations"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for submodule in SUBMODULES:
            names.update(importlib.import_module(f"dspy.{submodule}").__all__)
    ours = {name for name in ("adapters", "evaluate", "signatures") if name in names}  # names that dspynb has too
    assert names - set(DSPY_NAMES) - ours == set()


@pytest.mark.parametrize("name", [name for name, (ours, _) in DSPY_NAMES.items() if ours])
def test_each_name_of_dspynb_in_the_table_exists(name):
    assert functools.reduce(getattr, DSPY_NAMES[name][0].split("."), dn) is not None


@pytest.mark.parametrize("name", [name for name, (ours, _) in DSPY_NAMES.items() if ours is None])
def test_what_is_deliberately_not_there_has_a_reason_and_is_not_there(name):
    assert len(DSPY_NAMES[name][1]) > 5
    with pytest.raises(AttributeError, match=f"DSPy's {name} is deliberately not in dspynb: "):
        getattr(dn, name)
    assert not hasattr(dn, name)


def test_using_a_name_of_dspy_says_the_name_of_dspynb():
    with pytest.raises(AttributeError, match=r"DSPy's InputField is dn.Input here \(`alias=` in place of `prefix=`\)"):
        _ = dn.InputField
    with pytest.raises(ImportError, match=r"dspynb.OutputField. DSPy's OutputField is dn.Output here"):
        from dspynb import OutputField  # noqa: F401
    with pytest.raises(ImportError, match=r"dspynb.teleprompt. DSPy's teleprompt is dn.Optimizer here"):
        importlib.import_module("dspynb.teleprompt")
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        from dspynb import Nonsense  # noqa: F401
    assert advice_on("Nonsense") == ""


def test_the_page_has_the_same_table():
    text = PAGE.read_text()
    assert page_text(text) == text, "python -m tests.dspy_names"
