"""Redacting keys and other secrets in texts and values, before they are shown or written to disk."""

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
_MIN_LENGTH = 8
"""Minimum length of a secret. A shorter one could be a part of ordinary words."""
_MIN_START = 4
"""Minimum number of characters at the end of a text that count as the start of a secret."""
_ENVIRONMENT_TTL = 1.0
"""Seconds after which the secrets in the environment are read again."""

_PLAIN = frozenset({type(None), bool, int, float})
_registered: set[str] = set()
_known: tuple[float, frozenset[str]] = (-_ENVIRONMENT_TTL, frozenset())
"""When the secrets in the environment were read (``time.monotonic``), and all secrets known then."""

# Names of variables and settings are split into words: KEYBOARD_LAYOUT and TOKENIZERS_PARALLELISM hold no secret.
_ANYWHERE = re.compile(r"SECRET|PASSW|PASSPHRASE|APIKEY|CREDENTIAL|(?:API|ACCESS|AUTH)_?(?:KEYS|TOKENS)")
_WORDS = frozenset({"KEY", "TOKEN", "PASS", "PWD", "PAT", "AUTH", "AUTHORIZATION", "BEARER", "COOKIE"})
_ABOUT = frozenset(
    {"ID", "FILE", "PATH", "DIR", "SOCK", "SOCKET", "NAME", "TYPE", "URL", "URI", "LENGTH", "LEN", "SIZE", "LIMIT"}
    | {"ALGORITHM", "COUNT", "TIMEOUT", "HOST", "PORT", "USER", "ENDPOINT", "LAYOUT", "VERSION", "REGION", "PROVIDER"}
    | {"HELPER", "MODE", "TTL", "METHOD", "BACKEND", "DOMAIN", "ISSUER", "AUDIENCE", "SCOPE", "SCOPES", "ALGO"}
    | {"FORMAT", "ENABLED", "DISABLED", "REQUIRED", "EXPIRES", "EXPIRY", "SAMESITE", "STORE", "MANAGER"}
)
"""Last words of names that describe a secret without holding one, such as ``API_KEY_PATH``."""
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
    """Whether a setting of this name may hold a secret. Includes doubtful names such as ``headers``."""
    return _SECRET.search(name) is not None or _is_secret(name)


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    """Whether an environment variable, or a key of a dict in a setting, has the name of a secret."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).upper().replace("-", "_").split("_")
    if name in _NO_SECRET or words[-1] in _ABOUT:
        return False
    return _ANYWHERE.search("_".join(words)) is not None or not _WORDS.isdisjoint(words)


def key_names() -> list[str]:
    """The sorted names of the environment variables that hold secrets, judged by their names."""
    return sorted(name for name, value in os.environ.items() if value and _is_secret(name))


def keep_secret(*secrets: str | None) -> None:
    """Register secrets, so that they are redacted in everything that this process writes or shows.

    ``secrets``: keys, or values of headers (``Bearer KEY``, ``Basic …``, cookies). The secret part of a header is also
    redacted by itself.
    """
    for secret in secrets:
        if secret:
            _registered.update(part for part in _parts_of(secret) if len(part) >= _MIN_LENGTH)


def keep_address(address: str | None) -> None:
    """Register the user and password of an address, and keys in its query, so that they are redacted like secrets. The
    rest of the address stays visible."""
    if address:
        _registered.update(part for part in _parts_of_address(address) if len(part) >= _MIN_LENGTH)


def secrets_in(settings: object, *, inside: bool = False, depth: int = 20) -> list[str]:
    """The texts in settings, at any depth, whose names are those of secrets.

    ``inside``: whether ``settings`` is itself the value of a secret, so that all its texts are secret. ``depth``:
    maximum number of nested levels.
    """
    if isinstance(settings, Mapping) and depth:
        secrets: list[str] = []
        for name, value in settings.items():
            if not (inside and str(name).lower() in _PLAIN_HEADERS):
                is_secret = inside or _holds_secrets(str(name), value)
                secrets += secrets_in(value, inside=is_secret, depth=depth - 1)
        return secrets
    if isinstance(settings, list | tuple | set | frozenset) and depth:
        secrets = []
        for value in settings:
            secrets += secrets_in(value, inside=inside, depth=depth - 1)
        return secrets
    reveal = getattr(settings, "get_secret_value", None)  # pydantic's SecretStr
    if reveal is not None:
        return [str(reveal())]
    if not inside or not isinstance(settings, str | bytes | int) or isinstance(settings, bool):
        return []
    if isinstance(settings, bytes):
        return [settings.decode("utf-8", "replace")]
    return [str(settings)]


def without_secrets(settings: object, depth: int = 20) -> Any:
    """A copy of settings without those that hold secrets, at any depth."""
    if isinstance(settings, Mapping) and depth:
        return {
            name: without_secrets(value, depth - 1)
            for name, value in settings.items()
            if not _holds_secrets(str(name), value)
        }
    if isinstance(settings, list | tuple) and depth:
        return type(settings)(without_secrets(value, depth - 1) for value in settings)
    return settings


def _holds_secrets(name: str, value: object) -> bool:
    """Whether the whole value of a setting is secret. A dict of headers is; another dict is searched instead, since a
    schema may have a field that is named like a secret."""
    if isinstance(value, Mapping):
        return _HEADERS.search(name) is not None
    return _is_secret(name) or _HEADERS.search(name) is not None


def without_password(address: object) -> Any:
    """An address without its user and password; None if ``address`` is no text."""
    return _USER.sub("://", address) if isinstance(address, str) else None


def _parts_of(secret: str) -> set[str]:
    """The texts to redact for a secret: the secret, its lines, the key after a scheme (``Bearer KEY``), the password of
    basic authentication, and the values of cookies."""
    stripped = secret.strip()
    parts = {secret, stripped}
    for line in stripped.splitlines():
        if len(line) > 2 * _MIN_LENGTH and not line.startswith("-----"):
            parts.add(line.strip())
    match = _SCHEME.fullmatch(stripped)
    if match:
        scheme = match[1].lower()
        key = match[2].strip()
        looks_like_a_key = key.split() == [key] and re.search(r"\d", key)
        if scheme in _SCHEMES or looks_like_a_key:
            parts.add(key)
        if scheme == "basic":
            parts |= _parts_of_login(_base64_decoded(key))
    for cookie in stripped.split(";"):
        parts.add(cookie.partition("=")[2].strip())
    if "://" in stripped:
        parts |= _parts_of_address(stripped)
    return parts


def _parts_of_address(address: str) -> set[str]:
    """The texts to redact for ``scheme://user:password@host/path?key=K``: the password and ``user:password``, quoted
    and unquoted; a long user without a password, which is a key; and K."""
    parts: set[str] = set()
    for login in _USER.findall(address):
        user, _, password = login.partition(":")
        if password:
            parts |= {login, password, unquote(password)}
            parts |= _parts_of_login(f"{unquote(user)}:{unquote(password)}")
        elif len(user) >= 2 * _MIN_LENGTH:
            parts |= {user, unquote(user)}
    query = address.partition("?")[2].partition("#")[0]
    for name, value in parse_qsl(query):
        if _is_secret(name):
            parts.add(value)
    return parts


def _parts_of_login(login: str) -> set[str]:
    """The texts to redact for ``user:password``: the login, the password, and the login as a header encodes it."""
    _, colon, password = login.partition(":")
    if not colon:
        return set()
    return {login, password, base64.b64encode(login.encode("utf-8", "surrogatepass")).decode()}


def _base64_decoded(text: str) -> str:
    try:
        return base64.b64decode(text.strip(), validate=True).decode()
    except ValueError:
        return ""


def known_secrets() -> frozenset[str]:
    """All texts to redact: those of registered secrets and of secrets in the environment."""
    global _known  # noqa: PLW0603
    now = time.monotonic()
    if now - _known[0] >= _ENVIRONMENT_TTL or not _registered <= _known[1]:
        secrets = set(_registered)
        for name, value in os.environ.items():
            secrets |= _parts_of_variable(name, value)
        _known = now, frozenset(secrets)
    return _known[1]


@lru_cache(maxsize=4096)
def _parts_of_variable(name: str, value: str) -> frozenset[str]:
    """The texts to redact for an environment variable: its value if it has the name of a secret, and the passwords in
    addresses (``DATABASE_URL``) and connection strings. The path of an existing file is no secret."""
    if len(value) < _MIN_LENGTH:
        return frozenset()
    parts: set[str] = set()
    if "://" in value:
        parts |= _parts_of_address(value)
    if "=" in value:
        parts.update(_ASSIGNED.findall(value))
    is_path = value[0] in "/~." and os.path.exists(os.path.expanduser(value))  # noqa: PTH110, PTH111
    if _is_secret(name) and not is_path:
        parts |= _parts_of(value)
        if name.upper().endswith("S"):
            parts.update(value.split(","))
        parts |= _parts_of_json(value)
    return frozenset(part for part in parts if len(part) >= _MIN_LENGTH)


def _parts_of_json(text: str) -> set[str]:
    """The texts to redact for the content of a JSON file, such as Google's credentials."""
    parts: set[str] = set()
    if not text.lstrip().startswith("{"):
        return parts
    try:
        for secret in secrets_in(json.loads(text)):
            parts |= _parts_of(secret)
    except (ValueError, RecursionError):
        return set()
    return parts


@lru_cache(maxsize=8)
def _spellings(secrets: frozenset[str]) -> list[str]:
    """The spellings of secrets, longest first: as text, in JSON, in JSON inside of JSON, as a Python literal, in an
    address, and in HTML."""
    spellings: set[str] = set(secrets)
    for secret in secrets:
        if secret.isalnum() and secret.isascii():
            continue
        in_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
        spellings |= in_json
        spellings |= {json.dumps(text)[1:-1] for text in in_json}
        spellings |= {repr(secret)[1:-1], ascii(secret)[1:-1]}
        spellings |= _quoted_spellings(secret)
        spellings |= {escape(secret), escape(secret, quote=False)}
    return sorted(spellings, key=len, reverse=True)


@lru_cache(maxsize=8)
def _cores(secrets: frozenset[str]) -> tuple[list[str], list[bytes]]:
    """The longest run of letters and digits of each secret, as text and in UTF-8. All spellings of a secret contain its
    core, so that a text without the core needs no further search."""
    cores: dict[str, None] = {}
    for secret in secrets:
        runs = re.findall(r"[A-Za-z0-9]+", secret) or [""]
        cores[max(runs, key=len)] = None
    return list(cores), [core.encode() for core in cores]


def _may_hold(text: str) -> bool:
    return any(core in text for core in _cores(known_secrets())[0])


@lru_cache(maxsize=8)
def _encoded_spellings(secrets: frozenset[str]) -> list[bytes]:
    return [spelling.encode("utf-8", "surrogatepass") for spelling in _spellings(secrets)]


def _quoted_spellings(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    quoted = {quote(raw), quote(raw, safe=""), quote_plus(raw), quote(raw, safe=":/"), quote(raw, safe=":")}
    return quoted | {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), spelling) for spelling in quoted}


def redact_known(text: str) -> str:
    """Replace all known secrets in a text by ``***``, in any spelling, such as that of JSON."""
    if not _may_hold(text):
        return text
    for spelling in _spellings(known_secrets()):
        if spelling in text:
            text = text.replace(spelling, "***")
    return text


def holds_known(text: bytes) -> bool:
    """Whether ``redact_known`` would change a text, which is passed in UTF-8."""
    secrets = known_secrets()
    if not any(core in text for core in _cores(secrets)[1]):
        return False
    return any(spelling in text for spelling in _encoded_spellings(secrets))


def redact_growing(text: str) -> str:
    """Redact a text that is not complete yet: like ``redact_known``, and without an end that may start a secret."""
    text = redact_known(text)
    for spelling in _spellings(known_secrets()):
        for size in range(min(len(spelling) - 1, len(text)), _MIN_START - 1, -1):
            if text.endswith(spelling[:size]):
                return text[:-size]
    return text


def redact(text: str) -> str:
    """Replace all known secrets in a text, and anything that looks like a key, by ``***``."""
    return _SHAPES.sub("***", redact_known(text))


def error_text(error: BaseException, limit: int = 1000) -> str:
    """The type and message of an error on one line, without secrets, cut to about ``limit`` characters."""
    return shorten(redact(f"{type(error).__name__}: {error}"), limit)


def redact_values(value: Any, depth: int = 30) -> Any:
    """Redact the texts in a value made of dicts, lists and tuples; see ``redact_known``.

    Returns the same object if it contains no secret. A secret inside of an object of another type turns that object
    into its JSON form. ``depth``: maximum number of nested levels, since a list may contain itself.
    """
    if isinstance(value, str):
        return redact_known(value)
    if value is None or not depth or _is_clean(value) or isinstance(value, int | float):
        return value
    if hasattr(value, "__next__"):  # reading an iterator would exhaust it
        return value
    if isinstance(value, Mapping):
        return _redacted_mapping(value, depth - 1)
    if type(value) in (list, tuple):
        return type(value)(redact_values(item, depth - 1) for item in value)
    return _redacted_object(value)


def _redacted_mapping(values: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
    redacted: dict[Any, Any] = {}
    for name, item in values.items():
        key = redact_known(name) if isinstance(name, str) else name
        while key is not name and key != name and key in redacted:  # two keys that become equal
            key += "*"
        redacted[key] = redact_values(item, depth)
    return redacted


def _is_clean(value: object) -> bool:
    """Whether a value made of texts, numbers, dicts, lists and tuples contains no secret. False for a value of another
    type, which has to be examined further. All texts are searched at once, since nearly every value is clean."""
    secrets = known_secrets()
    if not secrets:
        return True
    texts: list[str] = []
    if not _gather_texts((value,), texts, 30):
        return False
    joined = "\n".join(texts)
    for core in _cores(secrets)[0]:  # a plain loop, since it runs three times in each model call
        if core in joined:
            return not any(spelling in joined for spelling in _spellings(secrets))
    return True


def _gather_texts(values: Iterable[Any], texts: list[str], depth: int) -> bool:
    """Append the texts in values to a list. Returns False for a value of another type, or one that is nested too
    deeply."""
    for value in values:
        kind = type(value)
        if kind is str:
            texts.append(value)
        elif kind is dict:
            if not depth:
                return False
            for key in value:
                if type(key) is str:
                    texts.append(key)
                elif type(key) not in _PLAIN:
                    return False
            if not _gather_texts(value.values(), texts, depth - 1):
                return False
        elif kind is tuple or kind is list:
            if not depth or not _gather_texts(value, texts, depth - 1):
                return False
        elif kind not in _PLAIN:
            return False
    return True


def _redacted_object(value: object) -> Any:
    from pydantic_core import to_jsonable_python

    try:
        plain = to_jsonable_python(value, fallback=repr)
    except BaseException as error:  # circular, nested too deeply, or its repr fails
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        return value
    redacted = redact_values(plain)
    return value if redacted == plain else redacted
