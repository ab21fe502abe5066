"""The queue-proxy's own socket: payloads lie in memory that this process and the queue-proxy both map.

Invokes and streams go over HTTP on the same socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _native
from ._call import Call
from ._connection import TTL_MOST, Held, PutOptions
from ._http import Address, HttpConnection
from ._native import Payload
from .errors import Error, NotConnectedError

# References of one exchange.
_AT_ONCE = 16


class SocketConnection(HttpConnection):
    """As `HttpConnection`, with the bytes of payloads in shared memory."""

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
        return self._link.create(call, call.remaining(), size)

    def put_buffer(self, buffer: Any, options: PutOptions, call: Call) -> Held:
        memory = buffer.memory
        if not isinstance(memory, _native.Segment):
            # Another client made it.
            return self.put(buffer.view, options, call)
        return _held(self._link.put_segment(call, call.remaining(), memory, options), len(memory), options)

    def get(self, reference: str, call: Call) -> Payload:
        return self._link.get(call, call.remaining(), reference)

    def get_many(self, references: list[str], call: Call) -> Iterator[tuple[int, Payload | Error]]:
        """In the order in which they come, some at a time."""
        for start in range(0, len(references), _AT_ONCE):
            got = self._link.get_many(call, call.remaining(), references[start : start + _AT_ONCE])
            for index, payload in got:
                yield start + index, payload

    def release(self, reference: str, call: Call) -> None:
        self._link.release(call, call.remaining(), reference)


def connect(address: Address) -> HttpConnection:
    """The fastest way that the queue-proxy speaks: older ones, and those reached by an address alone, have HTTP only."""
    if address.socket is None:
        return HttpConnection(address)
    try:
        return SocketConnection(address, _native.Link.connect(address.socket, address.token))
    except Error:
        # Whatever is wrong shows with the first call, in words that fit it.
        return HttpConnection(address)


def _held(reference: str, length: int, options: PutOptions) -> Held:
    ttl = min(options.ttl, TTL_MOST)
    return Held(reference, length, ttl, "requested" if ttl == options.ttl else "maximum")
