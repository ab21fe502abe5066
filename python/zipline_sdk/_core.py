"""What both clients do, one call at a time, in the thread that waits for it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from . import _native, _objects
from ._call import Call
from ._connection import (
    Answer,
    Connection,
    Held,
    PutOptions,
    Request,
    Stream,
    StreamedAnswer,
    checked_content_type,
    checked_wait,
)
from ._http import Address
from ._memory import bytes_view, checked_size, fresh
from ._native import Payload
from ._socket import connect as connect_socket
from .errors import BufferFullError, Error, PayloadTooLargeError, RequestInvalidError, StatusError
from .reference import Reference, as_reference

if TYPE_CHECKING:
    import numpy as np

Result = TypeVar("Result")
Work = Callable[[Call], Result]


class Buffer(_native.Buffer):
    """Memory to write a payload into; giving it to `put` or `invoke` makes it one, without a copy where that can be.

    Write through `buffer.view`, or anything that takes a writable buffer: `numpy.frombuffer(buffer, dtype)`,
    `file.readinto(buffer)`. Once it is a payload, do not write it any more: receivers would see some of it.
    """

    memory: Any
    content_type: str | None

    def __new__(cls, memory: Any, *_: Any) -> Self:
        made = super().__new__(cls, memory)
        made.memory = memory
        made.content_type = None
        return made

    def __repr__(self) -> str:
        state = "a payload now" if self.sealed else "writable"
        return f"<zipline_sdk.{type(self).__name__} of {len(self)} bytes, {state}>"


class ArrayBuffer(Buffer):
    """A buffer that holds a NumPy array: write `buffer.array`, then `put` the buffer."""

    def __init__(self, memory: Any, look: Callable[[memoryview], np.ndarray[Any, Any]]) -> None:
        self.content_type = _objects.ARRAY_TYPE
        # Of the memory below this buffer: an array that kept the buffer would keep it for ever, unseen by the collector.
        self.array = look(memoryview(memory))

    def _seal(self) -> bool:
        self.array.flags.writeable = False
        return super()._seal()


class Response:
    """A function's answer.

    Attributes:
        status: As the function says it; errors of Zipline itself are raised in place of a response.
        headers: Names in lower case; of repeated ones the values, joined by commas.
        payload: The body.
    """

    def __init__(self, service: str, answer: Answer) -> None:
        self._service = service
        self.status = answer.status
        self.payload = answer.payload
        self.headers = merged(answer.headers)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str | None:
        return self.payload.content_type

    @property
    def view(self) -> memoryview:
        """The body, read-only and without a copy."""
        return self.payload.view

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return str(self.payload.view, "utf-8", "replace")

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(bytes(self.payload))

    def object(self, *, trust_sender: bool = False) -> Any:
        """The object that the function answered with; see `Client.get_object`."""
        return _objects.load(self.payload, trust_sender)

    def raise_for_status(self) -> Response:
        """Raises `StatusError` unless the status is 200 to 299."""
        if not self.ok:
            raise refused(self._service, self.status, self.text)
        return self

    def __repr__(self) -> str:
        return f"<zipline_sdk.Response {self.status} of {self._service}, {len(self.payload)} bytes>"


class Core:
    """A connection and how it is asked."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self._namespace = namespace

    def put(self, data: Any, options: PutOptions, site: str | None) -> Work[Reference]:
        """Bytes, or a buffer that `create` made."""
        if isinstance(data, Buffer):
            return lambda call: self._put_buffer(data, options, site, call)
        view = bytes_view(data)
        return lambda call: _named(self.connection.put(view, options, call), site)

    def _put_buffer(self, buffer: Buffer, options: PutOptions, site: str | None, call: Call) -> Reference:
        if buffer.sealed:
            raise RequestInvalidError("this buffer is a payload already: create another one, or use its reference")
        if options.content_type is None:
            options = dataclasses.replace(options, content_type=buffer.content_type)
        held = self.connection.put_buffer(buffer, options, call)
        buffer._seal()
        return _named(held, site)

    def put_pieces(
        self, pieces: Iterable[memoryview], length: Any, options: PutOptions, site: str | None
    ) -> Work[Reference]:
        length = None if length is None else checked_size(length)
        return lambda call: _named(self.connection.put_pieces(pieces, options, call, length), site)

    def put_object(self, value: Any, options: PutOptions, site: str | None) -> Work[Reference]:
        def work(call: Call) -> Reference:
            buffer = self._written(_objects.plan(value), options.wait, call)
            return self._put_buffer(buffer, options, site, call)

        return work

    def create(self, size: Any, wait: float) -> Work[Buffer]:
        size, wait = checked_size(size), checked_wait(wait)
        return lambda call: Buffer(self.connection.allocate(size, wait, call))

    def create_array(
        self, shape: int | Sequence[int], dtype: Any, order: Literal["C", "F"], wait: float
    ) -> Work[ArrayBuffer]:
        plan, look = _objects.array_plan(shape, dtype, order)
        checked_wait(wait)

        def work(call: Call) -> ArrayBuffer:
            memory = self.connection.allocate(plan.size, wait, call)
            plan.write(memoryview(memory))
            return ArrayBuffer(memory, look)

        return work

    def get(self, reference: Reference | str) -> Work[Payload]:
        named = as_reference(reference)
        return lambda call: _about(named, lambda: self.connection.get(str(named), call))

    def get_object(self, reference: Reference | str, trust_sender: bool) -> Work[Any]:
        named = as_reference(reference)
        return lambda call: _about(named, lambda: _objects.load(self.connection.get(str(named), call), trust_sender))

    def open(self, reference: Reference | str) -> Work[Stream]:
        named = as_reference(reference)
        return lambda call: _about(named, lambda: self.connection.open(str(named), call))

    def settle(self) -> Work[None]:
        return self.connection.settle

    def release(self, reference: Reference | str) -> Work[None]:
        named = as_reference(reference)
        return lambda call: _about(named, lambda: self.connection.release(str(named), call))

    def invoke(self, service: str, body: Any, **others: Any) -> Work[Response]:
        request = self._request(service, body, **others)
        return lambda call: request(call, lambda made: Response(service, self.connection.invoke(made, call)))

    def invoke_stream(self, service: str, body: Any, **others: Any) -> Work[StreamedAnswer]:
        request = self._request(service, body, **others)
        return lambda call: request(call, lambda made: self.connection.invoke_stream(made, call))

    def _request(
        self,
        service: str,
        body: Any,
        *,
        obj: Any = None,
        path: str = "/",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        length: Any = None,
    ) -> Callable[[Call, Callable[[Request], Result]], Result]:
        """Checks what can be checked at once; what it returns makes the request, and has it sent."""
        name, namespace = self._function(service)
        if not path.startswith("/"):
            path = "/" + path
        sent = dict(headers or {})
        if content_type is not None:
            checked_content_type(content_type)
            sent["Content-Type"] = content_type
        if obj is not None and body is not None:
            raise TypeError("invoke takes a body or an obj, not both")
        named = body if isinstance(body, Reference) else None
        pieces = body if named is None and _is_pieces(body) else None
        length = None if length is None else checked_size(length)
        if length is not None and pieces is None:
            raise TypeError("length is for a body that is a file or an iterable: this one has its own")
        made = Request(name, namespace, path, method.upper(), sent, length=length)
        if named is not None:
            made = dataclasses.replace(made, reference=str(named))
            return lambda call, send: _about(named, lambda: send(made))
        view = bytes_view(b"" if body is None else body) if pieces is None else None

        def work(call: Call, send: Callable[[Request], Result]) -> Result:
            payload: Any = view
            if pieces is not None:
                payload = piece_views(pieces)
            elif obj is not None:
                plan = _objects.plan(obj)
                sent.setdefault("Content-Type", plan.content_type)
                payload = self._written_at_once(plan, call).view
            elif isinstance(body, Buffer):
                if body.content_type is not None:
                    sent.setdefault("Content-Type", body.content_type)
                body._seal()
            return send(dataclasses.replace(made, body=payload))

        return work

    def _written(self, plan: _objects.Plan, wait: float, call: Call) -> Buffer:
        buffer = Buffer(self.connection.allocate(plan.size, wait, call))
        buffer.content_type = plan.content_type
        plan.write(buffer.view)
        return buffer

    def _written_at_once(self, plan: _objects.Plan, call: Call) -> Buffer:
        """In memory of this process where none is free: the payloads that are held are not in the way of an invoke."""
        try:
            return self._written(plan, 0.0, call)
        except (BufferFullError, PayloadTooLargeError):
            buffer = Buffer(fresh(plan.size))
            plan.write(buffer.view)
            return buffer

    def _function(self, service: str) -> tuple[str, str]:
        name, _, namespace = service.partition(".")
        namespace = namespace or self._namespace
        for part in (name, namespace):
            if not part or not part.isascii() or not part.replace("-", "").isalnum():
                raise ValueError(f"{service!r} is no function: write 'service' or 'service.namespace'")
        return name, namespace


def merged(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case; of repeated ones the values, joined by commas."""
    together: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        together[name] = f"{together[name]}, {value}" if name in together else value
    return together


def refused(service: str, status: int, text: str) -> StatusError:
    """The error of a response that says none itself."""
    said = text[:300].strip() or "nothing"
    return StatusError(f"{service} answered with status {status} and said: {said}", status=status)


def _named(held: Held, site: str | None) -> Reference:
    return Reference(held.reference, put_at=site, length=held.length, ttl=held.ttl, bounded_by=held.bounded_by)


def _about(reference: Reference, work: Callable[[], Result]) -> Result:
    """An error of `work` is about this reference."""
    try:
        return work()
    except Error as error:
        if error.reference is None:
            error.reference = reference
        raise


def _is_pieces(body: Any) -> bool:
    """Whether it is a file or an iterable of bytes, and not bytes."""
    if body is None or isinstance(body, (str, AsyncIterable)):
        return False
    try:
        memoryview(body)
    except (TypeError, ValueError, BufferError):
        return hasattr(body, "read") or isinstance(body, Iterator) or hasattr(body, "__iter__")
    return False


_READ_BYTES = 1024 * 1024


def piece_views(source: Any) -> Iterator[memoryview]:
    """The bytes of a file opened for reading, or of an iterable of bytes."""
    if hasattr(source, "read"):
        while piece := source.read(_READ_BYTES):
            yield bytes_view(piece)
        return
    try:
        pieces = iter(source)
    except TypeError:
        kind = type(source).__name__
        raise TypeError(f"a {kind} is neither a file nor an iterable of bytes") from None
    for piece in pieces:
        yield bytes_view(piece)


def connect(socket: str | None, api: str | None, token: str | None) -> Connection:
    """The queue-proxy of this process, or the one that the arguments name."""

    environment = dict(os.environ)
    if socket is not None or api is not None:
        # A queue-proxy that was named is not mixed up with that of the environment.
        environment.pop("ZIPLINE_SOCKET", None)
        environment.pop("ZIPLINE_API", None)
    for name, value in (("ZIPLINE_SOCKET", socket), ("ZIPLINE_API", api), ("ZIPLINE_TOKEN", token)):
        if value is not None:
            environment[name] = value
    return connect_socket(Address.from_environment(environment))
