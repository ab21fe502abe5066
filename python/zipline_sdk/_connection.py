"""What a client asks of whatever holds payloads: a queue-proxy, or this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from . import _native
from ._call import Call
from ._native import Payload

#: docs/protocol.md, section 2.
TTL_DEFAULT, TTL_MOST = 60.0, 3600.0
LINGER_MOST = 60.0
WAIT_DEFAULT, WAIT_MOST = 5.0, 60.0
RETRIEVALS_MOST = 1_000_000
CONTENT_TYPE_MOST = 255

NOTHING = memoryview(b"")

#: How a client reaches what holds payloads: shared memory with the queue-proxy, its HTTP API, or this process alone.
Transport = Literal["socket", "http", "local"]


@dataclass(frozen=True)
class PutOptions:
    """How a payload is held. Seconds; `retrievals` None: any number; `confirm`: the put is waited for in any case."""

    content_type: str | None = None
    retrievals: int | None = 1
    ttl: float = TTL_DEFAULT
    linger: float = 0.0
    wait: float = WAIT_DEFAULT
    confirm: bool = False

    def __post_init__(self) -> None:
        if self.retrievals is not None and not 1 <= self.retrievals <= RETRIEVALS_MOST:
            raise ValueError(f"retrievals={self.retrievals} is not 1 to {RETRIEVALS_MOST}, nor None for any number")
        checked_wait(self.wait)
        if not 0 <= self.linger <= LINGER_MOST:
            raise ValueError(f"linger={self.linger} is not 0 to {LINGER_MOST:.0f} seconds")
        if not self.ttl > 0:
            raise ValueError(f"ttl={self.ttl} is not a number of seconds above 0")
        if self.content_type is not None:
            checked_content_type(self.content_type)


def checked_wait(wait: float) -> float:
    """Refuses a wait for memory that no queue-proxy allows."""
    if not 0 <= wait <= WAIT_MOST:
        raise ValueError(f"wait={wait} is not 0 to {WAIT_MOST:.0f} seconds")
    return wait


def life(options: PutOptions) -> tuple[float, str]:
    """Seconds that a put with these options lives where nothing else bounds it, and what bounds them."""
    ttl = min(options.ttl, TTL_MOST)
    return ttl, "requested" if ttl == options.ttl else "maximum"


def checked_content_type(text: str) -> None:
    """Refuses what no header can carry."""
    if not text or len(text) > CONTENT_TYPE_MOST or not text.isascii() or not text.isprintable():
        raise ValueError(
            f"content_type={text!r} is not 1 to {CONTENT_TYPE_MOST} printable ASCII characters, as in 'image/png'"
        )


@dataclass(frozen=True)
class Held:
    """A put's answer."""

    reference: str
    length: int
    ttl: float
    bounded_by: str


@dataclass(frozen=True)
class Request:
    """A request to a function. The body: bytes at once, pieces (of `length` bytes in all, if that is known), or the payload that
    a reference names."""

    service: str
    namespace: str
    path: str
    method: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: memoryview | Iterable[memoryview] = NOTHING
    reference: str | None = None
    length: int | None = None


@dataclass(frozen=True)
class Answer:
    """A function's response, whatever its status."""

    status: int
    headers: list[tuple[str, str]]
    payload: Payload


class Stream(Protocol):
    """Bytes that are read in pieces; `length` None: nobody knows."""

    length: int | None
    content_type: str | None

    def readinto(self, target: memoryview) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class StreamedAnswer:
    """A function's response, whatever its status, whose body is still to be read."""

    status: int
    headers: list[tuple[str, str]]
    body: Stream


class Connection(Protocol):
    """All waits end with their `Call`. Errors are those of `zipline_sdk.errors`."""

    @property
    def transport(self) -> Transport: ...
    def put(self, view: memoryview, options: PutOptions, call: Call) -> Held: ...
    def put_pieces(
        self, pieces: Iterable[memoryview], options: PutOptions, call: Call, length: int | None = None
    ) -> Held: ...
    def allocate(self, size: int, wait: float, call: Call) -> memoryview: ...
    def put_buffer(self, buffer: _native.Buffer, options: PutOptions, call: Call) -> Held: ...
    def get(self, reference: str, call: Call) -> Payload: ...
    def open(self, reference: str, call: Call) -> Stream: ...
    def release(self, reference: str, call: Call) -> None: ...
    def settle(self, call: Call) -> None: ...
    def invoke(self, request: Request, call: Call) -> Answer: ...
    def invoke_stream(self, request: Request, call: Call) -> StreamedAnswer: ...
    def close(self) -> None: ...


Handler = Callable[..., object]
Pieces = Iterator[memoryview]
