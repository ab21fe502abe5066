"""The local HTTP API (docs/openapi.yaml) of this process's queue-proxy.

Used for invokes and streams, and for everything where the queue-proxy speaks nothing faster. Bytes go from the caller's memory
to the socket and from the socket to the payload's memory; the GIL is free while they do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from socket import (
    AF_UNIX,
    IPPROTO_TCP,
    SO_SNDTIMEO,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    create_connection,
)
from socket import socket as Socket
from typing import Any
from urllib.parse import quote, urlsplit

from . import _native
from ._call import Call, Cancelled
from ._connection import NOTHING, Answer, Held, PutOptions, Request, StreamedAnswer, Transport
from ._flow import FlowStream, Sender, SourceFailed, framed, response_class, shut
from ._memory import copied, fresh
from ._native import Payload
from .errors import Error, NotConnectedError, PayloadLostError, UpstreamFailedError, from_code

_CONNECT_SECONDS = 3
_IDLE_MOST = 16
# Between two looks at the clock and at cancellation.
_PIECE = 8 * 1024 * 1024
_PROBLEM_MOST = 64 * 1024
# A body up to this length is sent before its answer is read.
_AT_ONCE = 64 * 1024
_BROKEN = (http.client.HTTPException, OSError)


@dataclass(frozen=True)
class Address:
    """Where the local API is: a Unix socket's path (or "@" and an abstract name), or a host and port."""

    token: str
    socket: str | None = None
    api: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Address:
        path, api = environment.get("ZIPLINE_SOCKET"), environment.get("ZIPLINE_API")
        token = environment.get("ZIPLINE_TOKEN")
        if not path and not api:
            raise NotConnectedError("there is no queue-proxy here: neither ZIPLINE_SOCKET nor ZIPLINE_API is set")
        if not token:
            raise NotConnectedError("ZIPLINE_TOKEN is not set, and the queue-proxy answers nobody without it")
        return cls(token=token, socket=path or None, api=api or None)

    def connect(self) -> Socket:
        try:
            if self.socket is not None:
                name = "\0" + self.socket[1:] if self.socket.startswith("@") else self.socket
                opened = Socket(AF_UNIX, SOCK_STREAM)
                # The kernel's own limit: with Python's, a queue-proxy that is behind with accepting would be an error at once.
                opened.setsockopt(SOL_SOCKET, SO_SNDTIMEO, struct.pack("ll", _CONNECT_SECONDS, 0))
                opened.connect(name)
                opened.setsockopt(SOL_SOCKET, SO_SNDTIMEO, struct.pack("ll", 0, 0))
                return opened
            url = urlsplit(self.api or "")
            if url.scheme != "http" or url.hostname is None:
                raise NotConnectedError(f"ZIPLINE_API={self.api} is not an address like http://127.0.0.1:8030")
            opened = create_connection((url.hostname, url.port or 80), _CONNECT_SECONDS)
            opened.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            return opened
        except OSError as error:
            place = self.socket or self.api
            raise NotConnectedError(f"the queue-proxy at {place} cannot be reached: {error}") from error


class _Link(http.client.HTTPConnection):
    """One connection, for one request at a time."""

    def __init__(self, address: Address) -> None:
        super().__init__("localhost")
        self._address = address

    def connect(self) -> None:
        self.sock = self._address.connect()

    def is_stale(self) -> bool:
        """Whether the other side has closed it, or said something that nobody asked for."""
        if self.sock is None:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))


class HttpConnection:
    """Safe to use from many threads; each call has a connection of its own from a bounded pool."""

    transport: Transport = "http"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[_Link] = []
        self._lock = threading.Lock()
        self._closed = False

    def open_one(self) -> None:
        """Has a connection ready, or raises `NotConnectedError`."""
        self._give_back(self._take(), True)

    def put(self, view: memoryview, options: PutOptions, call: Call) -> Held:
        return self.put_pieces(view, options, call)

    def put_pieces(
        self,
        pieces: memoryview | Iterable[memoryview],
        options: PutOptions,
        call: Call,
        length: int | None = None,
    ) -> Held:
        retrievals = "unlimited" if options.retrievals is None else str(options.retrievals)
        query = f"retrievals={retrievals}&ttl={_ms(options.ttl)}&linger={_ms(options.linger)}&wait={_ms(options.wait)}"
        headers = {"Content-Type": options.content_type} if options.content_type else {}
        with self._exchange(call, "POST", f"/v1/payloads?{query}", headers, pieces, length) as response:
            document = json.loads(response.read())
        return Held(document["reference"], document["length"], document["ttl_seconds"], document["bounded_by"])

    def allocate(self, size: int, wait: float, call: Call) -> memoryview:
        del wait, call
        return fresh(size)

    def put_buffer(self, buffer: _native.Buffer, options: PutOptions, call: Call) -> Held:
        return self.put(buffer.view, options, call)

    def get(self, reference: str, call: Call) -> Payload:
        with self._exchange(call, "GET", "/v1/payload", {"Zipline-Reference": reference}) as response:
            return Payload(_body(response, call), response.headers["Content-Type"])

    def open(self, reference: str, call: Call) -> HttpStream:
        # Its response lives longer than this function, so it leaves the connection when the stream is closed.
        exchange = self._exchange(call, "GET", "/v1/payload", {"Zipline-Reference": reference})
        return HttpStream(exchange.__enter__(), exchange, call)

    def release(self, reference: str, call: Call) -> None:
        with self._exchange(call, "DELETE", "/v1/payload", {"Zipline-Reference": reference}):
            pass

    def settle(self, call: Call) -> None:
        """Every put was waited for."""
        del call

    def invoke(self, request: Request, call: Call) -> Answer:
        with self._invoked(request, call) as response:
            payload = Payload(_body(response, call), response.headers["Content-Type"])
            return Answer(response.status, response.getheaders(), payload)

    def invoke_stream(self, request: Request, call: Call) -> StreamedAnswer:
        # Its response lives longer than this function, so it leaves the connection when the stream is closed.
        exchange = self._invoked(request, call)
        response = exchange.__enter__()
        return StreamedAnswer(response.status, response.getheaders(), FlowStream(response, exchange, call))

    def _invoked(self, request: Request, call: Call) -> contextlib.AbstractContextManager[http.client.HTTPResponse]:
        path = quote(request.path, safe="/?&=%:+,;@!$'()*~-._")
        target = f"/v1/invoke/{request.service}.{request.namespace}{path}"
        headers = dict(request.headers)
        if request.reference is not None:
            headers["Zipline-Body"] = request.reference
        return self._exchange(call, request.method, target, headers, request.body, request.length, ours=False)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    @contextlib.contextmanager
    def _exchange(
        self,
        call: Call,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: memoryview | Iterable[memoryview] = NOTHING,
        length: int | None = None,
        ours: bool = True,
    ) -> Iterator[http.client.HTTPResponse]:
        """One request and its response; the connection is used again if the response was read to its end.

        Of an invoke both directions go on at the same time.
        """
        link = self._take()
        opened = link.sock
        sender: Sender | None = None
        whole = False
        try:
            with call.stopped_by(lambda: shut(opened)):
                _limit(link, call)
                headers = {**headers, "Zipline-Token": self._address.token}
                if isinstance(body, memoryview):
                    length = len(body)
                _head(link, method, target, headers, length)
                if ours:
                    response = _sent(link, call, framed(body, length))
                else:
                    sender = _beside(link, call, body, length)
                    response = link.getresponse()
                _refuse(response, ours)
                yield response
                if response.length == 0:
                    response.read()
                whole = response.isclosed() and not response.will_close and (sender is None or sender.done)
        except SourceFailed as failed:
            raise failed.error from None
        except (Error, *_BROKEN) as error:
            if sender is not None and sender.failure is not None:
                raise sender.failure from None
            if isinstance(error, Error):
                raise
            raise _meaning(error, call, method, target) from error
        finally:
            if sender is not None:
                sender.stop()
            self._give_back(link, whole)

    def _take(self) -> _Link:
        while True:
            with self._lock:
                if self._closed:
                    raise NotConnectedError("this client was closed")
                link = self._idle.pop() if self._idle else None
            if link is None:
                link = _Link(self._address)
                link.connect()
                return link
            if not link.is_stale():
                return link
            link.close()

    def _give_back(self, link: _Link, whole: bool) -> None:
        with self._lock:
            if whole and not self._closed and len(self._idle) < _IDLE_MOST:
                self._idle.append(link)
                return
        link.close()


class HttpStream:
    """A response's body, piece by piece."""

    def __init__(self, response: http.client.HTTPResponse, exchange: Any, call: Call) -> None:
        self._response, self._exchange, self._call = response, exchange, call
        self._open = True
        self._left = response.length or 0
        self.length: int | None = self._left
        self.content_type = response.headers["Content-Type"]

    def readinto(self, target: memoryview) -> int:
        if not self._open:
            raise ValueError("this stream was closed")
        if not self._left or not len(target):
            return 0
        try:
            self._call.remaining()
            count = self._response.readinto(target[: min(len(target), _PIECE)])
            if count == 0:
                raise http.client.IncompleteRead(b"", self._left)
        except BaseException as error:
            self._open = False
            # It says what the error means, and leaves the connection.
            if not self._exchange.__exit__(type(error), error, error.__traceback__):
                raise
            raise AssertionError("an exchange swallows no error") from error
        self._left -= count
        return count

    def close(self) -> None:
        if self._open:
            self._open = False
            self._exchange.__exit__(None, None, None)


def _ms(seconds: float) -> str:
    return f"{max(0, round(seconds * 1000))}ms"


def _limit(link: _Link, call: Call) -> None:
    opened = link.sock
    if opened is not None:
        opened.settimeout(call.remaining())


def _head(link: _Link, method: str, target: str, headers: Mapping[str, str], length: int | None) -> None:
    """Sends a request's head; a body of no known length comes in chunks."""
    link.response_class = http.client.HTTPResponse
    link.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        link.putheader(name, value)
    if length is None:
        link.putheader("Transfer-Encoding", "chunked")
    elif length or method not in ("GET", "HEAD", "DELETE"):
        link.putheader("Content-Length", str(length))
    link.endheaders()


def _sent(link: _Link, call: Call, parts: Iterator[memoryview]) -> http.client.HTTPResponse:
    """Sends a body; then the response is asked for."""
    try:
        for part in parts:
            _send_view(link, call, part)
    except (BrokenPipeError, ConnectionResetError):
        # It may have been refused before it was read: then the answer is there.
        with contextlib.suppress(*_BROKEN):
            return link.getresponse()
        raise
    _limit(link, call)
    return link.getresponse()


def _beside(link: _Link, call: Call, body: memoryview | Iterable[memoryview], length: int | None) -> Sender | None:
    """Who sends a body while the response is read; None: it is short, and was sent."""
    at_once = isinstance(body, memoryview) and len(body) <= _AT_ONCE
    if at_once:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _send_view(link, call, body)  # type: ignore[arg-type]
    opened = link.sock
    assert opened is not None, "a head was sent on it"
    opened.setblocking(False)
    link.response_class = response_class(call)  # type: ignore[assignment]
    return None if at_once else Sender(opened, framed(body, length), call)


def _send_view(link: _Link, call: Call, view: memoryview) -> None:
    for start in range(0, len(view), _PIECE):
        _limit(link, call)
        link.send(view[start : start + _PIECE])


def _refuse(response: http.client.HTTPResponse, ours: bool) -> None:
    """Raises what the queue-proxy refused; of an invoke's response only what is not the function's own."""
    code = response.headers["Zipline-Error"]
    if code is None and (not ours or 200 <= response.status < 300):
        return
    text = response.read(_PROBLEM_MOST)
    try:
        detail = str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"status {response.status}"
    if code is None:
        raise UpstreamFailedError(f"the local API answered like no queue-proxy: {detail}")
    raise from_code(code, detail)


def _body(response: http.client.HTTPResponse, call: Call) -> memoryview:
    """The whole body: of a known length straight into its place."""
    if response.length is None:
        return _growing_body(response, call)
    target = fresh(response.length)
    done = 0
    while done < len(target):
        call.remaining()
        count = response.readinto(target[done : done + _PIECE])
        if count == 0:
            raise http.client.IncompleteRead(b"", len(target) - done)
        done += count
    return target


def _growing_body(response: http.client.HTTPResponse, call: Call) -> memoryview:
    grown = bytearray()
    while piece := response.read1(_PIECE):
        call.remaining()
        grown += piece
    # Its place may be anywhere; payloads are aligned.
    return copied(memoryview(grown)) if grown else fresh(0)


def _meaning(error: Exception, call: Call, method: str, target: str) -> Exception:
    """What a broken exchange means to the caller."""
    if call.cancelled:
        return Cancelled()
    if isinstance(error, TimeoutError):
        return call.timed_out()
    what = f"{method} {target.partition('?')[0]}"
    if isinstance(error, http.client.IncompleteRead) and target == "/v1/payload":
        return PayloadLostError(f"the payload broke off, {error.expected} bytes before its end")
    if isinstance(error, http.client.IncompleteRead):
        return UpstreamFailedError(f"the answer to {what} broke off before its end")
    return UpstreamFailedError(
        f"the connection to the queue-proxy broke during {what}: {error or type(error).__name__}"
    )
