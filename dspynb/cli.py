"""The command line: ``dspynb demo``, ``dspynb lab``, ``dspynb tutorials``, ``dspynb doctor``."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dspynb
from dspynb.errors import ConfigurationError, DspynbError

__all__ = ["main"]

_LIVE_OPTIONS = ("max_usd", "prices", "free", "max_tokens", "adapter", "api_key_env")
"""The options of ``dspynb doctor`` that only ``--live`` has."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status. Errors of dspynb are printed in one line."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DspynbError as error:
        sys.stderr.write(f"dspynb: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("dspynb: interrupted\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dspynb", description="Programs of language models, in notebooks.")
    parser.add_argument("--version", action="version", version=f"dspynb {dspynb.__version__}")
    commands = parser.add_subparsers(required=True, dest="command")
    demo = commands.add_parser("demo", help="run Refine on the embedded model and show what hints gain")
    demo.set_defaults(run=_demo)
    lab = commands.add_parser("lab", help="open the tutorials in JupyterLab")
    lab.add_argument("folder", nargs="?", default="dspynb-tutorials", type=Path, help="where to copy the tutorials")
    lab.set_defaults(run=_lab)
    copy = commands.add_parser("tutorials", help="copy the tutorials and their recordings into a folder")
    copy.add_argument("folder", type=Path)
    copy.set_defaults(run=_tutorials)
    doctor = commands.add_parser("doctor", help="report what is installed, missing and reachable")
    doctor.add_argument("--lm", metavar="MODEL", help="send one short request to this model: openai/gpt-4.1-mini")
    doctor.add_argument("--api-base", metavar="URL", help="address of the server of the model")
    doctor.add_argument("--dask", metavar="ADDRESS", help="examine the cluster of this scheduler: tcp://host:8786")
    doctor.add_argument("--json", action="store_true", help="print a JSON object")
    doctor.set_defaults(run=_doctor)
    _add_live_options(doctor)
    return parser


def _add_live_options(doctor: argparse.ArgumentParser) -> None:
    live = doctor.add_argument_group("checks of one model", "No call is sent that could pass the limit of the cost.")
    live.add_argument("--live", metavar="MODEL", help="run ten checks on this model and print a table for an issue")
    live.add_argument("--max-usd", metavar="USD", type=float, help="limit of the cost of all calls (default 0.05)")
    live.add_argument(
        "--prices",
        metavar=("INPUT", "OUTPUT"),
        type=float,
        nargs=2,
        help="USD for a million tokens of prompts and of replies, of a model whose prices are unknown",
    )
    live.add_argument("--free", action="store_const", const=True, help="the model costs nothing")
    live.add_argument("--max-tokens", metavar="N", type=int, help="limit of each reply (default 1024)")
    live.add_argument("--adapter", metavar="NAME", help="adapter of the programs, such as json for a small model")
    live.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key")


def _demo(_: argparse.Namespace) -> int:
    from dspynb.demo import run_demo

    return run_demo()


def _lab(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("jupyterlab") is None:
        raise ConfigurationError('JupyterLab is not installed; pip install "dspynb[lab]"')
    _tutorials(options)
    return subprocess.call([sys.executable, "-m", "jupyter", "lab", str(options.folder)])


def _tutorials(options: argparse.Namespace) -> int:
    source = _notebooks()
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") for part in relative.parts)  # run files and notebook checkpoints
        if path.suffix in (".ipynb", ".jsonl") and not hidden:
            target = options.folder / relative
            if not target.exists():  # do not overwrite the user's changes
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    sys.stdout.write(f"tutorials are in {options.folder}\n")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    live_options = {name: getattr(options, name) for name in _LIVE_OPTIONS if getattr(options, name) is not None}
    if options.live:
        return _doctor_live(options, live_options)
    if live_options:
        name = min(live_options).replace("_", "-")
        raise ConfigurationError(f"--{name} goes with --live: name the model to check, as in openai/gpt-4.1-mini")
    if options.api_base and not options.lm:
        raise ConfigurationError("--api-base goes with --lm: name the model at this address, as in openai/gpt-4.1-mini")
    from dspynb.contrib.doctor.examining import run_doctor

    return run_doctor(options.lm, options.api_base, options.dask, as_json=options.json)


def _doctor_live(options: argparse.Namespace, live_options: dict[str, Any]) -> int:
    if options.lm or options.dask:
        raise ConfigurationError("--live goes without --lm and --dask: run dspynb doctor twice")
    from dspynb.contrib.doctor.live import LiveOptions, run_live

    return run_live(LiveOptions(options.live, options.api_base, **live_options), as_json=options.json)


def _notebooks() -> Path:
    """The folder of the tutorials: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    for folder in (package / "_notebooks", package.parent / "notebooks"):
        if folder.is_dir():
            return folder
    raise ConfigurationError("the tutorials are not part of this installation")


if __name__ == "__main__":
    sys.exit(main())
