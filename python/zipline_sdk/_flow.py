"""Both directions of one exchange at the same time.

A request's body is sent by a thread of its own while the caller reads the response: a function may answer while it is asked, and
neither body is ever kept whole. The thread ends with the body or with its connection, whichever is first.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import threading
from collections.abc import Callable, Iterable, Iterator
from socket import SHUT_RDWR
from socket import socket as Socket
from typing import Any

from ._call import Call, Cancelled
from .errors import RequestInvalidError

# At least so often a wait looks whether its call was given up.
_LOOK_MS = 500
_PIECE = 256 * 1024


def shut(link: Socket | None) -> None:
    """From another thread: ends whatever wait there is."""
    if link is not None:
        with contextlib.suppress(OSError):
            link.shutdown(SHUT_RDWR)


class SourceFailed(Exception):
    """The caller's own file or iterable raised `error`, or did not give what was said."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def framed(body: memoryview | Iterable[memoryview], length: int | None) -> Iterator[memoryview]:
    """A body as it is sent: with a length as it is, otherwise in chunks. Whatever its source raises is `SourceFailed`."""
    if isinstance(body, memoryview):
        yield body
        return
    left = length
    for piece in _told_apart(body):
        if left is None:
            yield memoryview(f"{len(piece):x}\r\n".encode())
            yield piece
            yield memoryview(b"\r\n")
            continue
        left -= len(piece)
        if left < 0:
            raise SourceFailed(RequestInvalidError(f"the body has more bytes than its length of {length}"))
        yield piece
    if left:
        raise SourceFailed(RequestInvalidError(f"the body ended {left} bytes before its length of {length}"))
    if left is None:
        yield memoryview(b"0\r\n\r\n")


def _told_apart(pieces: Iterable[memoryview]) -> Iterator[memoryview]:
    """Whatever the source raises is not taken for an error of the connection. An empty piece would end the body."""
    try:
        for piece in pieces:
            if len(piece):
                yield piece
    except Cancelled:
        raise
    except Exception as error:
        raise SourceFailed(error) from error


class Sender:
    """Sends the parts of a body. Give it the socket in non-blocking mode.

    Attributes:
        failure: What the source of the body raised.
        done: All of it was sent.
    """

    def __init__(self, link: Socket, parts: Iterator[memoryview], call: Call) -> None:
        self._link, self._parts, self._call = link, parts, call
        self._stopped = False
        self.failure: Exception | None = None
        self.done = False
        threading.Thread(target=self._run, name="zipline-sdk-body", daemon=True).start()

    def stop(self) -> None:
        """Nobody wants the rest. A source that can be called off is; one that blocks is waited for by nobody."""
        self._stopped = True
        if not self.done:
            shut(self._link)
            self._call.cancel()

    def _run(self) -> None:
        try:
            for part in self._parts:
                self._send(part)
            self.done = True
        except SourceFailed as failed:
            self.failure = failed.error
            # The function is not to take this for the end of its request, nor the caller to wait for its answer.
            shut(self._link)
        except (Cancelled, OSError):
            # The response says why nothing more is taken; or nobody is there any more.
            pass

    def _send(self, part: memoryview) -> None:
        while len(part):
            if self._stopped:
                raise Cancelled
            try:
                count = self._link.send(part[:_PIECE])
            except BlockingIOError:
                _wait(self._link.fileno(), select.POLLOUT, _LOOK_MS)
            else:
                self._call.moved()
                part = part[count:]


class _Raw(io.RawIOBase):
    """What comes on a non-blocking socket, waited for as long as its call allows."""

    def __init__(self, raw: Any, call: Call) -> None:
        self._raw, self._call = raw, call

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while (count := self._raw.readinto(target)) is None:
            left = self._call.remaining()
            _wait(self._raw.fileno(), select.POLLIN, _LOOK_MS if left is None else min(_LOOK_MS, left * 1000))
        self._call.moved()
        return int(count)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Flowing:
    """What `http.client` reads a response from."""

    def __init__(self, link: Socket, call: Call) -> None:
        self._link, self._call = link, call

    def makefile(self, *_: Any) -> io.BufferedReader:
        # The socket stays open as long as this file, also once its connection was let go.
        return io.BufferedReader(_Raw(self._link.makefile("rb", buffering=0), self._call), _PIECE)


def response_class(call: Call) -> Callable[..., http.client.HTTPResponse]:
    """Makes responses that wait as `call` does."""

    def make(link: Any, **others: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Flowing(link, call), **others)  # type: ignore[arg-type]

    return make


class FlowStream:
    """A response's body as it comes."""

    def __init__(self, response: http.client.HTTPResponse, exchange: Any, call: Call) -> None:
        self._response, self._exchange, self._call = response, exchange, call
        self._open = True
        self.length = response.length
        self._left = response.length
        self.content_type: str | None = response.headers["Content-Type"]
        self._failure: BaseException | None = None

    def readinto(self, target: memoryview) -> int:
        if self._failure is not None:
            # What broke off is not taken for its end, however often it is read.
            raise self._failure
        if not self._open or not len(target):
            return 0
        self._call.moved()
        try:
            piece = self._response.read1(min(len(target), _PIECE)) if self._left != 0 else b""
            if not piece and self._left:
                raise http.client.IncompleteRead(b"", self._left)
        except BaseException as error:
            self._open = False
            try:
                # It says what the error means, and leaves the connection.
                self._exchange.__exit__(type(error), error, error.__traceback__)
                raise
            except Exception as meaning:
                self._failure = meaning
                raise
        if not piece:
            self.close()
            return 0
        target[: len(piece)] = piece
        if self._left is not None:
            self._left -= len(piece)
        return len(piece)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._exchange.__exit__(None, None, None)


def _wait(descriptor: int, event: int, longest_ms: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll(max(1, longest_ms))
