"""Image and File: immutable values that become parts of a message."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote

from dspynb.errors import InputError, shorten
from dspynb.media.describe import describe_data, public_url
from dspynb.media.sources import detect_type, read_source

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

__all__ = ["File", "Image", "Medium"]

_MIME = re.compile(r"[a-z0-9][\w.+-]*/[a-z0-9][\w.+-]*", re.IGNORECASE | re.ASCII)
_DISPLAYED_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})  # none can contain a script
_MAX_DISPLAYED_BYTES = 1_000_000


class Medium:
    """The base class of Image and File: an immutable value. Media are equal if their type, content and name are."""

    __slots__ = ("data", "mime", "name", "url")
    kind: ClassVar[str]
    data: bytes | None
    url: str | None
    mime: str | None
    name: str | None

    def __init__(self, source: object, *, mime: str | None = None, name: str | None = None) -> None:
        data, url, known_mime, known_name = read_source(source, type(self).__name__)
        if name is None:
            name = known_name
        mime = mime or detect_type(data) or known_mime or mimetypes.guess_type(name or "")[0]
        if mime is not None and not _MIME.fullmatch(mime):
            raise InputError(f"{type(self).__name__}: mime is written as in 'image/png', got {shorten(repr(mime), 80)}")
        for slot, value in {"data": data, "url": url, "mime": self._checked_type(mime), "name": name}.items():
            object.__setattr__(self, slot, value)

    def _checked_type(self, mime: str | None) -> str | None:
        raise NotImplementedError

    def part(self) -> dict[str, Any]:
        """The content part of a message, in the format of OpenAI's chat completions."""
        raise NotImplementedError

    @property
    def size(self) -> int | None:
        """The size of the content in bytes; None for a URL, which only the provider opens."""
        return None if self.data is None else len(self.data)

    @property
    def sha256(self) -> str | None:
        """The SHA-256 digest of the content in hexadecimal; None for a URL."""
        return None if self.data is None else hashlib.sha256(self.data).hexdigest()

    @property
    def description(self) -> str:
        """A short line without the content: ``<image/png, 12.3 kB, sha256 ab12cd34>``."""
        if self.data is None:
            return f"<{self.mime or self.kind}, {public_url(self.url or '')}>"
        return describe_data(self.mime or self.kind, self.data, self.name)

    def whole(self) -> str:
        """A text from which the medium can be restored: its URL, or a data URL with its name."""
        if self.url:
            return self.url
        if not self.name:
            return self._data_url()
        return self._data_url().replace(";base64,", f";name={quote(self.name, safe='')};base64,", 1)

    def _data_url(self) -> str:
        return f"data:{self.mime};base64,{base64.b64encode(self.data or b'').decode()}"

    def __setattr__(self, name: str, _: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; {name!r} cannot be set")

    __delattr__ = __setattr__  # type: ignore[assignment]  # raises the same error

    def _key(self) -> tuple[Any, ...]:
        return (type(self), self.data, self.url, self.mime, self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Medium) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.data, self.url, self.mime, self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.description})"

    def _repr_html_(self) -> str:
        if self.data is None or self.mime not in _DISPLAYED_TYPES or len(self.data) > _MAX_DISPLAYED_BYTES:
            return f"<code>{escape(repr(self))}</code>"
        return f"<img src='{self._data_url()}' alt='{escape(self.description)}' style='max-width:100%'>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> Any:
        from pydantic_core import core_schema

        serialization = core_schema.plain_serializer_function_ser_schema(_serialize, info_arg=True)
        return core_schema.no_info_plain_validator_function(cls._validated, serialization=serialization)

    @classmethod
    def _validated(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        # A text may come from a model, which must not choose a file of this machine.
        if isinstance(value, str) and not value.startswith(("data:", "http://", "https://")):
            raise ValueError(f"a text is no {cls.kind}; for a file on disk, write dn.{cls.__name__}(path)")
        return cls(value)


class Image(Medium):
    """An image for a model that takes images: ``Image("photo.png")``.

    ``source``: a path, an ``https`` or ``data:`` URL, bytes, or a PIL image. A file is read at once; a URL is opened by
    the provider. Attributes: ``data`` (bytes or None), ``url`` (text or None), ``mime`` (such as ``image/png``),
    ``size`` (in bytes), ``sha256``. Raises InputError if the file cannot be read or is no image.

    >>> picture = dn.Image("https://example.org/cat.png")
    >>> picture
    Image(<image/png, https://example.org/cat.png>)
    >>> look = dn.Predict("picture: Image -> animal", lm=dn.ScriptedLM(["animal: a cat"]))
    >>> look.run_sync(picture=picture).animal
    'a cat'
    """

    __slots__ = ()
    kind = "image"

    def _checked_type(self, mime: str | None) -> str | None:
        if mime is None:
            return None
        if not mime.startswith("image/"):
            raise InputError(f"Image: the content is {mime}, not an image; use dn.File for other files")
        return mime

    def __init__(self, source: object, *, mime: str | None = None, name: str | None = None) -> None:
        super().__init__(source, mime=mime, name=name)
        if self.mime is None and self.data is not None:
            raise InputError("Image: cannot detect the type of these bytes; pass mime='image/…'")

    def part(self) -> dict[str, Any]:
        """``{"type": "image_url", "image_url": {"url": …}}``."""
        return {"type": "image_url", "image_url": {"url": self.url or self._data_url()}}


class File(Medium):
    """A file for a model that takes files: ``File("paper.pdf")``.

    ``source``: a path, an ``https`` or ``data:`` URL, or bytes (pass ``name`` with these). A URL is sent as the id of
    the file, which not every provider accepts. Attributes: ``name``, and those of Image. Raises InputError if the file
    cannot be read.

    >>> paper = dn.File(b"%PDF-1.7", name="paper.pdf")
    >>> paper.mime, paper.size
    ('application/pdf', 8)
    >>> read = dn.Predict("paper: File, question -> answer", lm=dn.ScriptedLM(["answer: 1.7"]))
    >>> read.run_sync(paper=paper, question="Which version of PDF is it?").answer
    '1.7'
    """

    __slots__ = ()
    kind = "file"

    def _checked_type(self, mime: str | None) -> str | None:
        return mime or "application/octet-stream"

    def part(self) -> dict[str, Any]:
        """``{"type": "file", "file": {"filename": …, "file_data": …}}``, or with ``file_id`` for a URL."""
        if self.url:
            return {"type": "file", "file": {"file_id": self.url}}
        return {"type": "file", "file": {"filename": self.name or "file", "file_data": self._data_url()}}


def _serialize(medium: Medium, info: Any) -> str:
    """The description, for run files; with the context ``{"whole": True}`` the whole content, for saved programs."""
    return medium.whole() if (info.context or {}).get("whole") else medium.description


def _restored(cls: type[Medium], *values: object) -> Medium:
    medium = object.__new__(cls)
    for slot, value in zip(("data", "url", "mime", "name"), values, strict=True):
        object.__setattr__(medium, slot, value)
    return medium
