"""Small datasets for tutorials and tests, written for dspynb (see data/README.md)."""

from __future__ import annotations

from importlib.resources import as_file, files

from dspynb.data import Example
from dspynb.errors import ConfigurationError, nearest
from dspynb.evaluation.data_io.reading import read_examples

__all__ = ["load_dataset"]

_INPUT_NAMES = {"captions": ("subject", "word", "max_words"), "topics": ("text",)}


def load_dataset(name: str) -> list[Example]:
    """Load a dataset that ships with dspynb, as rows with marked inputs.

    ``name``: ``topics`` or ``captions``. ``topics`` has 150 sentences of news (``text``) with the label ``topic``:
    sports, business or science, 50 of each. ``captions`` has 120 subjects to write a sentence about (``subject``), each
    with a word that the sentence must contain (``word``) and the largest number of words it may have (``max_words``).
    It has no labels: score a sentence with ``metrics.contains`` and ``metrics.word_count``.

    Raises ConfigurationError for another name.

    >>> rows = dn.load_dataset("topics")
    >>> len(rows), rows[0].topic, list(rows[0].inputs())
    (150, 'science', ['text'])
    """
    if name not in _INPUT_NAMES:
        raise ConfigurationError(
            f"there is no dataset {name!r}.{nearest(str(name), _INPUT_NAMES)} Datasets: {', '.join(_INPUT_NAMES)}"
        )
    with as_file(files("dspynb.evaluation") / "data" / f"{name}.jsonl") as path:
        return read_examples(path, inputs=_INPUT_NAMES[name])
