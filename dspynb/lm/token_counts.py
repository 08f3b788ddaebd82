"""Exact numbers of tokens, for models whose tokenizer is known: those of OpenAI, with the vocabularies of litellm."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dspynb.lm.providers.litellm_files import litellm_file

if TYPE_CHECKING:
    import tiktoken

__all__ = ["token_counter"]

_VARIABLE = "TIKTOKEN_CACHE_DIR"
_VOCABULARIES = "litellm_core_utils/tokenizers"
_PROVIDERS = ("openai", "azure", "azure_ai", "openai_like", "openrouter")
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
"""The address of a vocabulary. tiktoken names its copy after it."""
_NAMES = ("chatgpt-", "ft:gpt-", "gpt-", "o1", "o3", "o4")
"""How the names of models begin whose tokenizer tiktoken may know."""
_LONGEST = 200_000
"""Characters of a text that is counted. A longer one takes tiktoken seconds if it has no blanks."""
_lock = threading.Lock()


def token_counter(model: str) -> Callable[[str], int | None] | None:
    """A function that counts the tokens of a text for ``provider/model``; None if the tokenizer is not known. It
    returns None for a text that is too long to be counted quickly. The first call loads a vocabulary, which takes about
    a second."""
    provider, _, name = model.partition("/")
    name = name.rpartition("/")[2]
    if provider not in _PROVIDERS or not name.startswith(_NAMES):
        return None

    def count(text: str) -> int | None:
        if len(text) > _LONGEST:
            return None
        encoding = _encoding(name)
        if encoding is None:
            return None
        try:
            return len(encoding.encode_ordinary(text))
        except UnicodeError:  # halves of surrogate pairs
            return None

    return count


@lru_cache(maxsize=256)
def _encoding(name: str) -> tiktoken.Encoding | None:
    """The tokenizer of a model of OpenAI. It is read from litellm's folder, and never downloaded; None if that does not
    have it."""
    folder = litellm_file(_VOCABULARIES)
    if folder is None or not folder.is_dir():
        return None
    try:
        import tiktoken

        encoding = tiktoken.encoding_name_for_model(name)
    except (ImportError, KeyError):
        return None
    if not _has_vocabulary(encoding, folder):
        return None
    with _lock:
        earlier = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = str(folder)
        try:
            return tiktoken.get_encoding(encoding)
        except Exception:  # a file that was changed is downloaded anew, which may fail in any way
            return None
        finally:
            if earlier is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = earlier


def _has_vocabulary(encoding: str, folder: Path) -> bool:
    address = _ADDRESS.format(name=encoding.replace("_harmony", "_base"))
    return (folder / hashlib.sha1(address.encode()).hexdigest()).is_file()  # noqa: S324  # a file name
