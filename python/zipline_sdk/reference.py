"""References: what travels in a payload's place."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

# docs/protocol.md, sections 2 and 3.
_TEXT_MOST = 1024
_TEXT = re.compile(r"zl1\.[A-Za-z0-9_-]+")
_PUT_AT_MOST = 300
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Reference:
    """Names a payload that somebody holds in memory. Small, and good for any message.

    `str(reference)` is its text: put that into JSON, a header or a queue, and make a `Reference` of it on the other side. It can
    be pickled, compared and used as a key. Whoever has the text can read the payload within the namespace, so treat it as a
    secret: `repr` does not show it.

    Attributes:
        put_at: Where the payload was put, as "file:line in function", where that is known. It travels with a pickle, not with
            the text.
        length: Bytes of the payload, where this process put it.
        ttl: Seconds it lives from its put on, as really applies, where this process put it.
        bounded_by: What bounds `ttl`: "requested", "maximum" or "drain".
    """

    __slots__ = ("_text", "bounded_by", "length", "put_at", "ttl")

    def __init__(
        self,
        text: str,
        *,
        put_at: str | None = None,
        length: int | None = None,
        ttl: float | None = None,
        bounded_by: str | None = None,
    ) -> None:
        if isinstance(text, bytes):
            raise TypeError("a reference is text, not bytes: write Reference(text.decode())")
        if not isinstance(text, str):
            raise TypeError(f"a reference is made of text, not of {type(text).__name__}")
        if len(text) > _TEXT_MOST or not _TEXT.fullmatch(text):
            from .errors import ReferenceInvalidError

            start = "another prefix" if not text.startswith("zl1.") else "characters or a length that none has"
            raise ReferenceInvalidError(f"a text of {len(text)} characters is no reference: it has {start}")
        self._text = text
        self.put_at = put_at[:_PUT_AT_MOST] if put_at else None
        self.length = length
        self.ttl = ttl
        self.bounded_by = bounded_by

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        place = f", put at {self.put_at}" if self.put_at else ""
        return f"<zipline_sdk.Reference zl1.(secret){place}>"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Reference) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._text, self.put_at)


def _restored(text: str, put_at: str | None) -> Reference:
    return Reference(text, put_at=put_at)


def as_reference(reference: Reference | str) -> Reference:
    """Takes a reference or its text."""
    return reference if isinstance(reference, Reference) else Reference(reference)


def call_site() -> str | None:
    """The line of the program, outside this package, that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_PACKAGE):
            return f"{name}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return None
