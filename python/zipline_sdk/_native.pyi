from typing import Self, TypeAlias, final

from typing_extensions import Buffer as _Bytes

from ._call import Call
from ._connection import PutOptions
from .errors import Error

def copy(target: _Bytes, source: _Bytes) -> None:
    """Copies contiguous bytes into a writable target of the same length; large copies release the GIL."""

@final
class Payload:
    """Read-only bytes without a copy. The memory lives as long as the payload or any view on it."""

    def __init__(self, memory: _Bytes, content_type: str | None = None) -> None: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def view(self) -> memoryview:
        """A read-only memoryview on all bytes."""

    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Buffer:
    """Memory to write a payload into."""

    def __new__(cls, memory: _Bytes) -> Self: ...
    @property
    def view(self) -> memoryview:
        """A memoryview on all bytes, writable until the buffer is a payload."""

    @property
    def sealed(self) -> bool:
        """Whether it is a payload now."""

    def _seal(self) -> bool: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Segment:
    """Memory shared with the queue-proxy, writable; held until the last view on it is gone."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Many:
    """Payloads of several references, in the order in which they arrive."""

    def next(self, call: Call) -> tuple[int, Payload | Error] | None: ...
    def close(self) -> None: ...

# The reference, and how many seconds it lives and what bounds them: None where the answer was not waited for.
_Held: TypeAlias = tuple[str, float | None, str | None]

@final
class Link:
    """The way to a queue-proxy over its own socket. `remaining` is what is left of the call's time, in seconds."""

    @staticmethod
    def connect(socket: str, token: str) -> Link: ...
    @staticmethod
    def local() -> Link: ...
    def put(self, call: Call, remaining: float | None, source: _Bytes, options: PutOptions) -> _Held: ...
    def create(self, call: Call, remaining: float | None, size: int, wait: float) -> Segment: ...
    def put_segment(self, call: Call, remaining: float | None, segment: Segment, options: PutOptions) -> _Held: ...
    def get(self, call: Call, remaining: float | None, reference: str) -> Payload: ...
    def get_many(self, references: list[str], in_flight: int, timeout: float | None) -> Many: ...
    def settle(self, call: Call, remaining: float | None) -> None: ...
    def release(self, call: Call, remaining: float | None, reference: str) -> None: ...
