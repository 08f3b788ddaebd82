"""Small datasets for tutorials and tests, written for dspynb (see data/README.md)."""

from __future__ import annotations

from importlib.resources import as_file, files

from dspynb.data import Example
from dspynb.errors import ConfigurationError, nearest
from dspynb.evaluation.data_io.reading import read_examples

__all__ = ["load_dataset"]

_INPUTS = {"captions": ("subject", "word", "max_words"), "topics": ("text",)}


def load_dataset(name: str) -> list[Example]:
    """The rows of a dataset that ships with dspynb, their inputs marked.

    ``topics``: 150 sentences of news (``text``), with the label ``topic``: sports, business or science, 50 of each.
    ``captions``: 120 subjects (``subject``), each with a word that a sentence about it must contain (``word``) and the
    most words it may have (``max_words``); no labels: check it with ``metrics.contains`` and ``metrics.word_count``.
    Raises ConfigurationError for another name.

    >>> rows = dn.load_dataset("topics")
    >>> len(rows), rows[0].topic, list(rows[0].inputs())
    (150, 'science', ['text'])
    """
    if name not in _INPUTS:
        raise ConfigurationError(
            f"there is no dataset {name!r}.{nearest(str(name), _INPUTS)} Datasets: {', '.join(_INPUTS)}"
        )
    with as_file(files("dspynb.evaluation") / "data" / f"{name}.jsonl") as path:
        return read_examples(path, inputs=_INPUTS[name])
