"""Bytes that arrive while they are read, as files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Self

from ._connection import Stream, StreamedAnswer
from ._core import merged, refused

_PIECE = 1024 * 1024
# Of a response that is an error, what its message shows.
_SAID = 1200


class _Arriving(io.RawIOBase):
    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self.length = stream.length
        self.content_type = stream.content_type

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if self.closed:
            raise ValueError("this stream was closed")
        return self._stream.readinto(memoryview(target).cast("B"))

    def pieces(self, size: int = _PIECE) -> Iterator[bytes]:
        """The rest, at most `size` bytes at a time."""
        while piece := self.read(size):
            yield piece

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class PayloadFile(_Arriving):
    """A payload that arrives while it is read. A retrieval is spent once every byte was read.

    `readinto(buffer)` puts the bytes where they belong; `read`, iteration in pieces (`pieces`) and everything of
    `io.RawIOBase` work as well. Closing it early gives the retrieval back.
    """


class ResponseFile(_Arriving):
    """A function's answer whose body arrives while it is read; a file, as `PayloadFile` is.

    Whoever does not read is not sent more. A body that breaks off raises `UpstreamFailedError`, however often it is read.
    Closing it early ends the exchange; the function may go on all the same.

    Attributes:
        status: As the function says it; errors of Zipline itself are raised in place of a response.
        headers: Names in lower case; of repeated ones the values, joined by commas.
        length: Of the body; None: nobody knows.
    """

    def __init__(self, service: str, answer: StreamedAnswer) -> None:
        super().__init__(answer.body)
        self._service = service
        self.status = answer.status
        self.headers = merged(answer.headers)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def raise_for_status(self) -> Self:
        """Raises `StatusError` unless the status is 200 to 299; then it is closed."""
        if not self.ok:
            said = b""
            with self:
                while len(said) < _SAID and (piece := self.read(_SAID - len(said))):
                    said += piece
            raise refused(self._service, self.status, said.decode("utf-8", "replace"))
        return self

    def __repr__(self) -> str:
        return f"<zipline_sdk.ResponseFile {self.status} of {self._service}>"
