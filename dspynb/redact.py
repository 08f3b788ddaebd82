"""Keeping keys out of what people read and what is written to disk."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from dspynb.errors import shorten
from dspynb.exits import is_exit

__all__ = [
    "error_text",
    "holds_known",
    "is_secret_name",
    "keep_address",
    "keep_secret",
    "key_names",
    "known_secrets",
    "redact",
    "redact_growing",
    "redact_known",
    "redact_values",
    "secrets_in",
    "without_password",
    "without_secrets",
]

_SHAPES = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{16,}|\bBearer\s+[A-Za-z0-9._\-]{16,}|://[^/\s:@]+:[^/\s:@]+@")
_SECRET = re.compile(r"key|secret|password|credential|header|auth|access_token|session_token|bearer", re.IGNORECASE)
_SHORTEST = 8  # a shorter value would be found in the middle of words
_FEWEST = 4  # characters at a text's end that are taken for the beginning of a secret
_LOOK_AGAIN = 1.0  # seconds between two looks at the environment

_PLAIN = frozenset({type(None), bool, int, float})
_kept: set[str] = set()
_seen: tuple[float, frozenset[str]] = (-_LOOK_AGAIN, frozenset())

# Names of variables and settings are compared by their words: KEYBOARD_LAYOUT and TOKENIZERS_PARALLELISM hold no key.
_ANYWHERE = re.compile(r"SECRET|PASSW|PASSPHRASE|APIKEY|CREDENTIAL|(?:API|ACCESS|AUTH)_?(?:KEYS|TOKENS)")
_WORDS = frozenset({"KEY", "TOKEN", "PASS", "PWD", "PAT", "AUTH", "AUTHORIZATION", "BEARER", "COOKIE"})
_ABOUT = frozenset(
    {"ID", "FILE", "PATH", "DIR", "SOCK", "SOCKET", "NAME", "TYPE", "URL", "URI", "LENGTH", "LEN", "SIZE", "LIMIT"}
    | {"ALGORITHM", "COUNT", "TIMEOUT", "HOST", "PORT", "USER", "ENDPOINT", "LAYOUT", "VERSION", "REGION", "PROVIDER"}
    | {"HELPER", "MODE", "TTL", "METHOD", "BACKEND", "DOMAIN", "ISSUER", "AUDIENCE", "SCOPE", "SCOPES", "ALGO"}
    | {"FORMAT", "ENABLED", "DISABLED", "REQUIRED", "EXPIRES", "EXPIRY", "SAMESITE", "STORE", "MANAGER"}
)
"""Last words of names that say something about a secret, and hold none."""
_NO_SECRET = frozenset({"PWD", "OLDPWD"})
_HEADERS = re.compile(r"header|cookie", re.IGNORECASE)
_PLAIN_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "anthropic-beta", "anthropic-version", "content-type"}
    | {"http-referer", "openai-beta", "referer", "user-agent", "x-title"}
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_-]{2,15})\s+(\S.*)", re.DOTALL)
_SCHEMES = frozenset({"bearer", "basic", "token", "key", "apikey", "api-key", "digest", "oauth", "negotiate"})
_USER = re.compile(r"://([^/?#@\s]*)@")
_ASSIGNED = re.compile(
    r"(?:password|passwd|pwd|accountkey|accesskey|secret|api[_-]?key|token)=([^;&\s]+)", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name may hold a secret."""
    return _SECRET.search(name) is not None or _is_secret(name)


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    """Whether a variable, or a key at any depth of a setting, is named like one that holds a secret."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).upper().replace("-", "_").split("_")
    if name in _NO_SECRET or words[-1] in _ABOUT:
        return False
    return _ANYWHERE.search("_".join(words)) is not None or not _WORDS.isdisjoint(words)


def key_names() -> list[str]:
    """The names of the environment variables that may hold keys and are set."""
    return sorted(name for name, value in os.environ.items() if value and _is_secret(name))


def keep_secret(*secrets: str | None) -> None:
    """Replace these, from now on, in everything this process writes or shows: keys, or values of headers (``Bearer
    KEY``, ``Basic …``, cookies), of which the part that is secret is replaced too where it stands alone."""
    for secret in secrets:
        if secret:
            _kept.update(part for part in _parts_of(secret) if len(part) >= _SHORTEST)


def keep_address(address: str | None) -> None:
    """Replace, from now on, the user and password in an address, and a key in its query; not the address."""
    if address:
        _kept.update(part for part in _of_address(address) if len(part) >= _SHORTEST)


def secrets_in(settings: Any, *, inside: bool = False, depth: int = 20) -> list[str]:
    """The texts in settings that have the name of a secret, at any depth; ``inside``: all texts."""
    if isinstance(settings, Mapping) and depth:
        found: list[str] = []
        for name, value in settings.items():
            if not (inside and str(name).lower() in _PLAIN_HEADERS):
                hidden = inside or _holds_secrets(str(name), value)
                found += secrets_in(value, inside=hidden, depth=depth - 1)
        return found
    if isinstance(settings, list | tuple | set | frozenset) and depth:
        return [text for value in settings for text in secrets_in(value, inside=inside, depth=depth - 1)]
    reveal = getattr(settings, "get_secret_value", None)  # pydantic's SecretStr
    if reveal is not None:
        return [str(reveal())]
    if not inside or not isinstance(settings, str | bytes | int) or isinstance(settings, bool):
        return []
    return [settings.decode("utf-8", "replace") if isinstance(settings, bytes) else str(settings)]


def without_secrets(settings: Any, depth: int = 20) -> Any:
    """Settings without those that hold secrets, at any depth."""
    if isinstance(settings, Mapping) and depth:
        kept = {name: value for name, value in settings.items() if not _holds_secrets(str(name), value)}
        return {name: without_secrets(value, depth - 1) for name, value in kept.items()}
    if isinstance(settings, list | tuple) and depth:
        return type(settings)(without_secrets(value, depth - 1) for value in settings)
    return settings


def _holds_secrets(name: str, value: Any) -> bool:
    """Whether what stands under a name is secret. A dict that is named like a key is looked into (it may be a part of
    a schema); one of headers is secret as a whole."""
    if isinstance(value, Mapping):
        return _HEADERS.search(name) is not None
    return _is_secret(name) or _HEADERS.search(name) is not None


def without_password(address: Any) -> Any:
    """An address without the user and password in it; None for none."""
    return _USER.sub("://", address) if isinstance(address, str) else None


def _parts_of(text: str) -> set[str]:
    """What in a secret value is secret: itself, its lines, the key after a scheme (``Bearer KEY``), the password in
    basic authentication, and the values of cookies."""
    whole = text.strip()
    lines = [line.strip() for line in whole.splitlines() if len(line) > 2 * _SHORTEST and not line.startswith("-----")]
    parts = {text, whole, *lines}
    if match := _SCHEME.fullmatch(whole):
        scheme, rest = match[1].lower(), match[2].strip()
        if scheme in _SCHEMES or (rest.split() == [rest] and re.search(r"\d", rest)):
            parts.add(rest)
        if scheme == "basic":
            parts |= _of_pair(_decoded(rest))
    parts.update(piece.partition("=")[2].strip() for piece in whole.split(";"))
    return parts | (_of_address(whole) if "://" in whole else set())


def _of_address(text: str) -> set[str]:
    """Of ``scheme://user:password@host/path?key=K``: the password and the pair, as they are and decoded; a long user
    without a password, which is a key; and K."""
    parts: set[str] = set()
    for user in _USER.findall(text):
        name, _, password = user.partition(":")
        if password:
            parts |= {user, password, unquote(password)} | _of_pair(f"{unquote(name)}:{unquote(password)}")
        elif len(name) >= 2 * _SHORTEST:
            parts |= {name, unquote(name)}
    query = text.partition("?")[2].partition("#")[0]
    return parts | {value for name, value in parse_qsl(query) if _is_secret(name)}


def _of_pair(pair: str) -> set[str]:
    """Of ``user:password``: both, the password, and what a server gets of them."""
    _, colon, password = pair.partition(":")
    encoded = base64.b64encode(pair.encode("utf-8", "surrogatepass")).decode()
    return {pair, password, encoded} if colon else set()


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text.strip(), validate=True).decode()
    except ValueError:
        return ""


def known_secrets() -> frozenset[str]:
    """The secrets that were named, and the keys in the environment."""
    global _seen  # noqa: PLW0603
    now = time.monotonic()
    if now - _seen[0] >= _LOOK_AGAIN or not _kept <= _seen[1]:
        keys = [part for name, value in os.environ.items() for part in _of_variable(name, value)]
        _seen = now, frozenset(keys) | _kept
    return _seen[1]


@lru_cache(maxsize=4096)
def _of_variable(name: str, value: str) -> frozenset[str]:
    """What is secret in an environment variable: its value where its name says so, else passwords of addresses
    (``DATABASE_URL``) and connection strings in it. A path that is there is none."""
    if len(value) < _SHORTEST:
        return frozenset()
    parts = _of_address(value) if "://" in value else set()
    parts.update(_ASSIGNED.findall(value) if "=" in value else ())
    is_path = value[0] in "/~." and os.path.exists(os.path.expanduser(value))  # noqa: PTH110, PTH111
    if _is_secret(name) and not is_path:
        parts |= _parts_of(value) | set(value.split(",") if name.upper().endswith("S") else ())
        parts |= set(_of_json(value))
    return frozenset(part for part in parts if len(part) >= _SHORTEST)


def _of_json(value: str) -> list[str]:
    """The secrets in the text of a JSON file, as Google's credentials are."""
    if not value.lstrip().startswith("{"):
        return []
    try:
        return [part for text in secrets_in(json.loads(value)) for part in _parts_of(text)]
    except (ValueError, RecursionError):
        return []


@lru_cache(maxsize=8)
def _written(secrets: frozenset[str]) -> list[str]:
    """The secrets as they may stand in text, in JSON, in JSON as a text in JSON, in an address, in a page and in what
    Python shows; the longest first."""
    forms: set[str] = set(secrets)
    for secret in secrets:
        if secret.isalnum() and secret.isascii():
            continue
        escaped = {json.dumps(secret, ensure_ascii=plain)[1:-1] for plain in (True, False)}
        forms |= escaped | {json.dumps(form)[1:-1] for form in escaped} | {repr(secret)[1:-1], ascii(secret)[1:-1]}
        forms |= _in_addresses(secret) | {escape(secret), escape(secret, quote=False)}
    return sorted(forms, key=len, reverse=True)


@lru_cache(maxsize=8)
def _cores(secrets: frozenset[str]) -> tuple[list[str], list[bytes]]:
    """Of each secret its longest run of letters and digits, which stands in all its forms: a text without it has none
    of them. As texts and in UTF-8."""
    runs = [max(re.findall(r"[A-Za-z0-9]+", secret) or [""], key=len) for secret in secrets]
    cores = list(dict.fromkeys(runs))
    return cores, [core.encode() for core in cores]


def _may_hold(text: str) -> bool:
    return any(core in text for core in _cores(known_secrets())[0])


@lru_cache(maxsize=8)
def _encoded(secrets: frozenset[str]) -> list[bytes]:
    return [form.encode("utf-8", "surrogatepass") for form in _written(secrets)]


def _in_addresses(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    encoded = {quote(raw), quote(raw, safe=""), quote_plus(raw), quote(raw, safe=":/"), quote(raw, safe=":")}
    return encoded | {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in encoded}


def redact_known(text: str) -> str:
    """``text`` without the secrets this process knows, also where they stand in JSON."""
    if not _may_hold(text):
        return text
    for secret in _written(known_secrets()):
        if secret in text:
            text = text.replace(secret, "***")
    return text


def holds_known(text: bytes) -> bool:
    """Whether ``redact_known`` would change a text that is given in UTF-8."""
    secrets = known_secrets()
    if not any(core in text for core in _cores(secrets)[1]):
        return False
    return any(secret in text for secret in _encoded(secrets))


def redact_growing(text: str) -> str:
    """``redact_known`` for a text that grows: without its end, where that may be the beginning of a secret."""
    text = redact_known(text)
    for secret in _written(known_secrets()):
        for size in range(min(len(secret) - 1, len(text)), _FEWEST - 1, -1):
            if text.endswith(secret[:size]):
                return text[:-size]
    return text


def redact(text: str) -> str:
    """The same, and without what has the shape of a key."""
    return _SHAPES.sub("***", redact_known(text))


def error_text(error: BaseException, limit: int = 1000) -> str:
    """An error as a record keeps it: its type and message on one line, cut to about ``limit``, without secrets."""
    return shorten(redact(f"{type(error).__name__}: {error}"), limit)


def redact_values(value: Any, depth: int = 30) -> Any:
    """A value with ``redact_known`` applied to the texts in its dicts, lists and tuples; itself where there are none
    to replace. A value of another type that holds a secret becomes what a file would hold of it. Looks ``depth`` levels
    deep: a list may hold itself."""
    if isinstance(value, str):
        return redact_known(value)
    if value is None or not depth or _is_clean(value) or isinstance(value, int | float):
        return value
    if hasattr(value, "__next__"):  # to look into an iterator would use it up
        return value
    if isinstance(value, Mapping):
        return _redacted_mapping(value, depth - 1)
    if type(value) in (list, tuple):
        return type(value)(redact_values(item, depth - 1) for item in value)
    return _redacted_object(value)


def _redacted_mapping(values: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
    clean: dict[Any, Any] = {}
    for name, item in values.items():
        shown = redact_known(name) if isinstance(name, str) else name
        while shown is not name and shown != name and shown in clean:  # two keys with one name
            shown += "*"
        clean[shown] = redact_values(item, depth)
    return clean


def _is_clean(value: Any) -> bool:
    """Whether no secret stands in a value made of texts, numbers, dicts, lists and tuples; False where it cannot tell.
    One search through all its texts: nearly every value is clean."""
    secrets = _written(known_secrets())
    if not secrets:
        return True
    texts: list[str] = []
    if not _gather((value,), texts, 30):
        return False
    whole = "\n".join(texts)
    return not _may_hold(whole) or not any(secret in whole for secret in secrets)


def _gather(values: Iterable[Any], texts: list[str], depth: int) -> bool:
    """Add the texts in values; False for a value of another type, or one that is too deep."""
    for value in values:
        kind = type(value)
        if kind is str:
            texts.append(value)
        elif kind is dict:
            if not depth or not _gather(value, texts, 0) or not _gather(value.values(), texts, depth - 1):
                return False
        elif kind is tuple or kind is list:
            if not depth or not _gather(value, texts, depth - 1):
                return False
        elif kind not in _PLAIN:
            return False
    return True


def _redacted_object(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    try:
        plain = to_jsonable_python(value, fallback=repr)
    except BaseException as error:  # circular, too deep, or it cannot be shown
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        return value
    return value if (clean := redact_values(plain)) == plain else clean
