"""Zipline for Python: payloads between serverless functions, from memory to memory.

    from zipline_sdk import Client

    client = Client()
    reference = client.put(b"...")          # held in this instance's memory
    payload = client.get(reference)         # in whoever got the reference: read-only, without a copy

`zipline_sdk.aio.Client` does the same for asyncio. docs/python.md is the guide.
"""

from ._client import Client, Invocation
from ._core import ArrayBuffer, Buffer, Response
from ._local import LocalPlatform, LocalRequest
from ._native import Payload
from ._objects import ARRAY_TYPE, ARROW_TYPE, PICKLE_TYPE
from ._portable import dump, load
from ._streams import PayloadFile, ResponseFile
from .errors import (
    BufferFullError,
    DeadlineExceededError,
    DrainingError,
    Error,
    FormatError,
    NotConnectedError,
    NotFoundError,
    PayloadLostError,
    PayloadTooLargeError,
    RangeInvalidError,
    ReceiverUnprovenError,
    ReferenceExpiredError,
    ReferenceForbiddenError,
    ReferenceInvalidError,
    RequestInvalidError,
    RetrievalsExhaustedError,
    StatusError,
    TokenMissingError,
    TransportWarning,
    UntrustedError,
    UpstreamFailedError,
)
from .reference import Reference

__version__ = "0.1.0"

__all__ = [
    "ARRAY_TYPE",
    "ARROW_TYPE",
    "PICKLE_TYPE",
    "ArrayBuffer",
    "Buffer",
    "BufferFullError",
    "Client",
    "DeadlineExceededError",
    "DrainingError",
    "Error",
    "FormatError",
    "Invocation",
    "LocalPlatform",
    "LocalRequest",
    "NotConnectedError",
    "NotFoundError",
    "Payload",
    "PayloadFile",
    "PayloadLostError",
    "PayloadTooLargeError",
    "RangeInvalidError",
    "ReceiverUnprovenError",
    "Reference",
    "ReferenceExpiredError",
    "ReferenceForbiddenError",
    "ReferenceInvalidError",
    "RequestInvalidError",
    "Response",
    "ResponseFile",
    "RetrievalsExhaustedError",
    "StatusError",
    "TokenMissingError",
    "TransportWarning",
    "UntrustedError",
    "UpstreamFailedError",
    "dump",
    "load",
]
