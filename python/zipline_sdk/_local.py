"""Payloads within this process, without an engine: for tests, notebooks and first steps.

What `put`, `get` and `release` promise holds here as well: retrievals are counted, payloads expire, memory has a limit.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _native
from ._call import Call
from ._connection import Answer, Held, PutOptions, Request, StreamedAnswer, Transport, life
from ._memory import bytes_view, copied, fresh
from ._native import Payload
from .errors import (
    BufferFullError,
    DrainingError,
    NotFoundError,
    PayloadLostError,
    PayloadTooLargeError,
    ReferenceExpiredError,
    ReferenceInvalidError,
    RequestInvalidError,
    RetrievalsExhaustedError,
    UpstreamFailedError,
)

_ID_BYTES = 16
# As many names of payloads that are gone are remembered, to say why they are.
_GONE_MOST = 4096
_BUDGET = 1024 * 1024 * 1024
# A waiting put looks this often whether its call was given up.
_LOOK_SECONDS = 0.1

Function = Callable[["LocalRequest"], Any]
Clock = Callable[[], float]


@dataclass(frozen=True)
class LocalRequest:
    """What a function of `Client.local` is called with. It returns bytes, None, a str, or (status, headers, bytes)."""

    service: str
    path: str
    method: str
    headers: Mapping[str, str]
    payload: Payload


@dataclass
class _Kept:
    memory: memoryview
    content_type: str | None
    left: int | None
    expires: float
    linger: float
    spent_until: float | None = None


class LocalPlatform:
    """What stands in for engine and queue-proxies within this process. Several clients can share one."""

    def __init__(
        self,
        functions: Mapping[str, Function] | None = None,
        *,
        budget: int = _BUDGET,
        clock: Clock = time.monotonic,
    ) -> None:
        self.functions: dict[str, Function] = dict(functions or {})
        self._budget = budget
        self._clock = clock
        self._id = os.urandom(_ID_BYTES)
        self._kept: dict[bytes, _Kept] = {}
        self._gone: OrderedDict[bytes, type[Exception]] = OrderedDict()
        self._used = 0
        self._room = threading.Condition()

    @property
    def held_bytes(self) -> int:
        """Bytes of the payloads held now."""
        with self._room:
            self._expire()
            return self._used

    def put(self, memory: memoryview, options: PutOptions, call: Call) -> Held:
        length = len(memory)
        name = os.urandom(_ID_BYTES)
        ttl, bounded_by = life(options)
        with self._room:
            self._reserve(length, options.wait, call)
            expires = self._clock() + ttl
            self._kept[name] = _Kept(memory, options.content_type, options.retrievals, expires, options.linger)
            self._used += length
        return Held(self._text(name), length, ttl, bounded_by)

    def get(self, text: str) -> Payload:
        with self._room:
            name, kept = self._find(text)
            if kept.spent_until is None and kept.left is not None:
                kept.left -= 1
                if kept.left == 0 and kept.linger:
                    kept.spent_until = self._clock() + kept.linger
                elif kept.left == 0:
                    self._forget(name, RetrievalsExhaustedError)
        return Payload(kept.memory, kept.content_type)

    def release(self, text: str) -> None:
        with self._room:
            self._forget(self._find(text)[0], PayloadLostError)

    def invoke(self, request: Request, payload: Payload) -> Answer:
        function = self.functions.get(request.service)
        if function is None:
            known = ", ".join(sorted(self.functions)) or "none"
            raise NotFoundError(
                f"no function {request.service!r} was given to this local client (known: {known}): "
                "say Client.local(functions={name: function})"
            )
        headers = dict(request.headers)
        try:
            returned = function(LocalRequest(request.service, request.path, request.method, headers, payload))
        except Exception as error:
            raise UpstreamFailedError(f"the function {request.service!r} raised {error!r}") from error
        return _answer(request.service, returned)

    def _reserve(self, length: int, wait: float, call: Call) -> None:
        """Waits for room; the lock is held."""
        if length > self._budget:
            raise PayloadTooLargeError(
                f"a payload of {length} bytes can never be held: this local client has {self._budget} bytes"
            )
        until = self._clock() + wait
        while True:
            self._expire()
            if self._used + length <= self._budget:
                return
            now = self._clock()
            if now >= until:
                raise BufferFullError(
                    f"no room for {length} bytes came free within {wait} s: "
                    f"{self._used} of {self._budget} bytes are held by {len(self._kept)} payloads"
                )
            call.remaining()
            self._room.wait(min(until - now, _LOOK_SECONDS))

    def _find(self, text: str) -> tuple[bytes, _Kept]:
        name = self._name(text)
        self._expire()
        kept = self._kept.get(name)
        if kept is not None:
            return name, kept
        why = self._gone.get(name)
        if why is ReferenceExpiredError:
            raise ReferenceExpiredError("the payload's time is over")
        if why is RetrievalsExhaustedError:
            raise RetrievalsExhaustedError("every retrieval of the payload is used up")
        raise PayloadLostError("this process does not hold the payload: it was released, or never put here")

    def _expire(self) -> None:
        now = self._clock()
        for name, kept in list(self._kept.items()):
            if now >= kept.expires:
                self._forget(name, ReferenceExpiredError)
            elif kept.spent_until is not None and now >= kept.spent_until:
                self._forget(name, RetrievalsExhaustedError)

    def _forget(self, name: bytes, why: type[Exception]) -> None:
        self._used -= len(self._kept.pop(name).memory)
        self._gone[name] = why
        if len(self._gone) > _GONE_MOST:
            self._gone.popitem(last=False)
        self._room.notify_all()

    def _text(self, name: bytes) -> str:
        return "zl1." + base64.urlsafe_b64encode(self._id + name).rstrip(b"=").decode()

    def _name(self, text: str) -> bytes:
        try:
            raw = base64.urlsafe_b64decode(text[4:] + "=" * (-len(text) % 4))
        except ValueError:
            raw = b""
        if len(raw) != 2 * _ID_BYTES or raw[:_ID_BYTES] != self._id:
            raise ReferenceInvalidError(
                "the reference was not made by this local client or one that shares its platform"
            )
        return raw[_ID_BYTES:]


class LocalConnection:
    """A client's way to a `LocalPlatform`."""

    transport: Transport = "local"

    def __init__(self, platform: LocalPlatform) -> None:
        self._platform = platform
        self._closed = False

    def put(self, view: memoryview, options: PutOptions, call: Call) -> Held:
        self._check()
        return self._platform.put(copied(view), options, call)

    def put_pieces(
        self, pieces: Iterable[memoryview], options: PutOptions, call: Call, length: int | None = None
    ) -> Held:
        self._check()
        return self._platform.put(_joined(pieces, call, length), options, call)

    def allocate(self, size: int, wait: float, call: Call) -> memoryview:
        del wait, call
        self._check()
        return fresh(size)

    def put_buffer(self, buffer: _native.Buffer, options: PutOptions, call: Call) -> Held:
        self._check()
        return self._platform.put(buffer.view, options, call)

    def get(self, reference: str, call: Call) -> Payload:
        self._check()
        call.remaining()
        return self._platform.get(reference)

    def open(self, reference: str, call: Call) -> LocalStream:
        return LocalStream(self.get(reference, call), call)

    def release(self, reference: str, call: Call) -> None:
        self._check()
        call.remaining()
        self._platform.release(reference)

    def settle(self, call: Call) -> None:
        del call
        self._check()

    def invoke(self, request: Request, call: Call) -> Answer:
        self._check()
        content_type = next((v for k, v in request.headers.items() if k.lower() == "content-type"), None)
        if request.reference is not None:
            payload = self._platform.get(request.reference)
            if content_type is not None:
                payload = Payload(payload, content_type)
            elif payload.content_type is not None:
                headers = {**request.headers, "Content-Type": payload.content_type}
                request = dataclasses.replace(request, headers=headers)
        else:
            body = request.body if isinstance(request.body, memoryview) else _joined(request.body, call, request.length)
            payload = Payload(copied(body), content_type)
        answer = self._platform.invoke(request, payload)
        call.remaining()
        return answer

    def invoke_stream(self, request: Request, call: Call) -> StreamedAnswer:
        answer = self.invoke(request, call)
        return StreamedAnswer(answer.status, answer.headers, LocalStream(answer.payload, call))

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise DrainingError("this client was closed")


class LocalStream:
    """A payload of this process, read in pieces."""

    def __init__(self, payload: Payload, call: Call) -> None:
        self._view, self._call = payload.view, call
        self._at = 0
        self.length: int | None = len(payload)
        self.content_type = payload.content_type

    def readinto(self, target: memoryview) -> int:
        self._call.moved()
        self._call.remaining()
        piece = self._view[self._at : self._at + len(target)]
        _native.copy(target[: len(piece)], piece)
        self._at += len(piece)
        return len(piece)

    def close(self) -> None:
        self._at = len(self._view)


def _joined(pieces: Iterable[memoryview], call: Call, length: int | None) -> memoryview:
    grown = bytearray()
    for piece in pieces:
        call.remaining()
        grown += piece
        if length is not None and len(grown) > length:
            raise RequestInvalidError(f"the body has more bytes than its length of {length}")
    if length is not None and len(grown) < length:
        raise RequestInvalidError(f"the body ended {length - len(grown)} bytes before its length of {length}")
    return copied(memoryview(grown))


def _answer(service: str, returned: Any) -> Answer:
    """What a function's return value means as a response."""
    status, headers = 200, {}
    if isinstance(returned, tuple):
        status, headers, returned = returned
    if returned is None:
        returned = b""
    if isinstance(returned, str):
        headers = {"Content-Type": "text/plain; charset=utf-8", **headers}
        returned = returned.encode()
    try:
        body = copied(bytes_view(returned))
    except TypeError as error:
        raise UpstreamFailedError(f"the function {service!r} returned what is no response: {error}") from error
    content_type = next((v for k, v in headers.items() if k.lower() == "content-type"), None)
    return Answer(status, list(headers.items()), Payload(body, content_type))
