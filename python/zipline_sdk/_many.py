"""What both clients say of many things done at once: how many, what becomes of errors, and payloads as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ._call import Call
from ._connection import Connection
from ._native import Many, Payload
from ._socket import SocketConnection
from .errors import Error
from .reference import Reference

Errors = Literal["raise", "return"]

#: Calls of one client that run in threads of its own at the same time, unless it was told otherwise, and at most.
CONCURRENCY = 8
THREADS = 32
#: Payloads on their way at the same time where the queue-proxy is asked for many: unless it was told otherwise, and at most.
IN_FLIGHT = 32
IN_FLIGHT_MOST = 64


def checked_concurrency(concurrency: int, most: int) -> int:
    if not 1 <= concurrency <= most:
        raise ValueError(f"concurrency={concurrency} is not 1 to {most}")
    return concurrency


def keeps(errors: Errors) -> bool:
    """Whether errors are yielded in place of results."""
    if errors not in ("raise", "return"):
        raise ValueError(f"errors={errors!r} is neither 'raise' nor 'return'")
    return errors == "return"


class Arriving:
    """Payloads that the queue-proxy gets together."""

    def __init__(self, references: Sequence[Reference], many: Many, keep: bool) -> None:
        self._references, self._many, self._keep = references, many, keep

    def next(self, call: Call) -> tuple[int, Payload | Error] | None:
        """Waits for the next one; None after the last."""
        came = self._many.next(call)
        if came is None:
            return None
        index, result = came
        if isinstance(result, Error):
            result.reference = self._references[index]
            if not self._keep:
                raise result
        return index, result

    def close(self) -> None:
        """Gives up what did not come yet."""
        self._many.close()


def arriving(
    connection: Connection,
    references: Sequence[Reference],
    concurrency: int | None,
    keep: bool,
    timeout: float | None,
) -> Arriving | None:
    """None: the connection gets one payload at a time."""
    if not isinstance(connection, SocketConnection):
        return None
    in_flight = IN_FLIGHT if concurrency is None else checked_concurrency(concurrency, IN_FLIGHT_MOST)
    many = connection.get_many([str(reference) for reference in references], in_flight, timeout)
    return Arriving(references, many, keep)
