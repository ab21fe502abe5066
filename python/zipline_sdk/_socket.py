"""The queue-proxy's own socket: payloads lie in memory that this process and the queue-proxy both map.

Invokes and streams go over HTTP on the same socket.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from . import _native
from ._call import Call
from ._connection import Held, PutOptions, Transport, life
from ._http import Address, HttpConnection
from ._native import Payload
from .errors import Error, NotConnectedError, TokenMissingError, TransportWarning


class SocketConnection(HttpConnection):
    """As `HttpConnection`, with the bytes of payloads in shared memory."""

    transport: Transport = "socket"

    def __init__(self, address: Address, link: _native.Link) -> None:
        super().__init__(address)
        self._open: _native.Link | None = link

    @property
    def _link(self) -> _native.Link:
        if self._open is None:
            raise NotConnectedError("this client was closed")
        return self._open

    def close(self) -> None:
        # Payloads and buffers keep their connection for as long as they are there.
        self._open = None
        super().close()

    def put(self, view: memoryview, options: PutOptions, call: Call) -> Held:
        return _held(self._link.put(call, call.remaining(), view, options), len(view), options)

    def allocate(self, size: int, wait: float, call: Call) -> Any:
        return self._link.create(call, call.remaining(), size, wait)

    def put_buffer(self, buffer: Any, options: PutOptions, call: Call) -> Held:
        memory = buffer.memory
        if not isinstance(memory, _native.Segment):
            # Another client made it.
            return self.put(buffer.view, options, call)
        return _held(self._link.put_segment(call, call.remaining(), memory, options), len(memory), options)

    def get(self, reference: str, call: Call) -> Payload:
        return self._link.get(call, call.remaining(), reference)

    def get_many(self, references: list[str], in_flight: int, timeout: float | None) -> _native.Many:
        return self._link.get_many(references, in_flight, timeout)

    def settle(self, call: Call) -> None:
        self._link.settle(call, call.remaining())

    def release(self, reference: str, call: Call) -> None:
        self._link.release(call, call.remaining(), reference)


def connect(address: Address) -> HttpConnection:
    """The fastest way that the queue-proxy speaks.

    Older ones speak HTTP alone on their socket; where the socket cannot be reached, the address is tried. Whoever named a socket
    is warned of the slower way. What is wrong with both shows with the first call, in words that fit it.
    """
    if address.socket is None:
        return HttpConnection(address)
    try:
        return SocketConnection(address, _native.Link.connect(address.socket, address.token))
    except TokenMissingError:
        return HttpConnection(address)
    except Error as error:
        why = error.detail.partition(";")[0]
    connection = HttpConnection(address)
    try:
        connection.open_one()
    except NotConnectedError as error:
        if address.api is None:
            return connection
        _warn(f"{error.detail}; its HTTP API at {address.api} is used")
        return HttpConnection(dataclasses.replace(address, socket=None))
    _warn(f"the queue-proxy at {address.socket} speaks HTTP alone ({why}); payloads are copied through it")
    return connection


def _warn(why: str) -> None:
    # At the line that made the client, for which Python shows the same warning once.
    warnings.warn(f"{why}. Client.transport is 'http'.", TransportWarning, stacklevel=5)


def _held(answer: tuple[str, float | None, str | None], length: int, options: PutOptions) -> Held:
    reference, ttl, bounded_by = answer
    if ttl is None or bounded_by is None:
        # It was issued in advance, for these options.
        ttl, bounded_by = life(options)
    return Held(reference, length, ttl, bounded_by)
