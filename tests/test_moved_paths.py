"""Paths of the last release: they lead to the moved modules, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import dspynb as dn
from dspynb._moved import MODULES, NAMES


@pytest.fixture(autouse=True)
def _imported_anew():
    """Without the old paths that other tests have imported."""
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        if sys.modules[name] is not None and sys.modules[name].__name__ != name:
            del sys.modules[name]


@pytest.mark.parametrize("old", sorted(MODULES))
def test_an_old_path_leads_to_the_moved_module_and_warns(old):
    here = f"dspynb.{old}"
    if importlib.util.find_spec(f"dspynb.{MODULES[old]}") is None:
        pytest.fail(f"{old} leads to a module that is not there")
    new = importlib.import_module(f"dspynb.{MODULES[old]}")
    spec = new.__spec__
    with pytest.warns(DeprecationWarning, match=f"dspynb.{old} is now dspynb.{MODULES[old]}"):
        assert importlib.import_module(here) is new
    assert new.__spec__ is spec


@pytest.mark.parametrize("old", sorted(NAMES))
def test_an_old_name_of_a_package_leads_to_the_moved_one_and_warns(old):
    package, name = old.rsplit(".", 1)
    with pytest.warns(DeprecationWarning, match=f"{old} is now"):
        moved = getattr(importlib.import_module(f"dspynb.{package}"), name)
    assert moved is getattr(importlib.import_module(f"dspynb.{NAMES[old]}"), name)


def test_modules_inside_a_moved_package_are_loaded_once():
    with pytest.warns(DeprecationWarning, match="sandbox"):
        old = importlib.import_module("dspynb.modules.sandbox.runner")
    assert old is importlib.import_module("dspynb.agents.sandbox.runner")


def test_an_unknown_name_or_module_is_pythons_own_error():
    with pytest.raises(ModuleNotFoundError, match="dspynb.modules.nothing"):
        importlib.import_module("dspynb.modules.nothing")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        importlib.import_module("dspynb.modules").nothing  # noqa: B018


def test_no_module_below_dspynb_hides_a_public_name():
    below = {path.stem for path in dn_folder().iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not below & set(dn.__all__)
    code = (
        "import dspynb as dn, importlib, pkgutil; names = {n: getattr(dn, n) for n in dn.__all__}\n"
        "for m in pkgutil.walk_packages(dn.__path__, 'dspynb.'):\n"
        "    if not m.name.endswith(('__main__', 'sandbox.child')): importlib.import_module(m.name)\n"
        "assert all(getattr(dn, n) is v for n, v in names.items())"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def dn_folder():
    """The folder of the package."""
    from pathlib import Path

    return Path(dn.__file__).parent
