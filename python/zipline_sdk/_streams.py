"""A payload as a file, for those who want it in pieces."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from ._connection import Stream

_PIECE = 1024 * 1024


class PayloadFile(io.RawIOBase):
    """A payload that arrives while it is read. A retrieval is spent once every byte was read.

    `readinto(buffer)` puts the bytes where they belong; `read`, iteration in pieces (`pieces`) and everything of
    `io.RawIOBase` work as well. Closing it early gives the retrieval back.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self.length = stream.length
        self.content_type = stream.content_type

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        return self._stream.readinto(memoryview(target).cast("B"))

    def pieces(self, size: int = _PIECE) -> Iterator[bytes]:
        """The rest, at most `size` bytes at a time."""
        while piece := self.read(size):
            yield piece

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
