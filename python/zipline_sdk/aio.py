"""The client for asyncio: `zipline_sdk.aio.Client` has the methods of `zipline_sdk.Client`.

Each call waits in a thread of the client's own, so that neither waiting nor copying holds up the event loop. A call that is
cancelled, by its task or by `asyncio.timeout`, is given up at once: its connection is closed, and a retrieval that was not
complete is not spent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from ._call import Call, Cancelled, QuietCall
from ._connection import TTL_DEFAULT, WAIT_DEFAULT, Connection, PutOptions, Stream, StreamedAnswer, Transport
from ._core import ArrayBuffer, Buffer, Core, Response, Work, connect, merged, piece_views, refused
from ._local import Clock, Function, LocalConnection, LocalPlatform
from ._many import CONCURRENCY, THREADS, Arriving, Errors, arriving, checked_concurrency, keeps
from ._memory import bytes_view
from ._native import Payload
from .errors import Error
from .reference import Reference, as_reference, call_site

Result = TypeVar("Result")

_PIECE = 1024 * 1024
# Of a response that is an error, what its message shows.
_SAID = 1200


class _Arriving:
    """Bytes that arrive while they are read."""

    def __init__(self, client: Client, call: Call) -> None:
        self._client = client
        # One call for all of it.
        self._call = call
        self._stream: Stream | None = None
        self.length: int | None = None
        self.content_type: str | None = None

    def _begun(self, stream: Stream) -> None:
        self._stream = stream
        self.length, self.content_type = stream.length, stream.content_type

    async def __aexit__(self, *_: object) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    async def readinto(self, target: Any) -> int:
        """Reads some bytes into `target`, at least one until the end; how many."""
        stream = self._stream
        if stream is None:
            raise ValueError("the stream is closed: it is open within `async with`")
        view = memoryview(target).cast("B")
        self._call.moved()
        return await self._client._perform(lambda _: stream.readinto(view), self._call)

    async def pieces(self, size: int = _PIECE) -> AsyncIterator[bytes]:
        """The rest, at most `size` bytes at a time."""
        target = bytearray(size)
        while count := await self.readinto(target):
            yield bytes(memoryview(target)[:count])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pieces()


class PayloadStream(_Arriving):
    """A payload that arrives while it is read; `async with client.open(reference) as stream`."""

    def __init__(self, client: Client, work: Work[Stream], timeout: float | None) -> None:
        # Its timeout runs until the last byte was read.
        super().__init__(client, client._call(timeout, "open"))
        self._work = work

    async def __aenter__(self) -> Self:
        self._begun(await self._client._perform(self._work, self._call))
        return self


class ResponseStream(_Arriving):
    """A function's answer whose body arrives while it is read; `async with client.invoke_stream(...) as response`.

    As `zipline_sdk.ResponseFile`: `status`, `headers`, `ok` and `raise_for_status`, and the body as of `PayloadStream`.
    """

    def __init__(self, client: Client, service: str, work: Work[StreamedAnswer], call: Call) -> None:
        super().__init__(client, call)
        self._service, self._work = service, work
        self.status = 0
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        answer = await self._client._perform(self._work, self._call)
        self.status, self.headers = answer.status, merged(answer.headers)
        self._begun(answer.body)
        return self

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    async def raise_for_status(self) -> Self:
        """Raises `StatusError` unless the status is 200 to 299."""
        if not self.ok:
            said = b""
            async for piece in self.pieces(_SAID):
                said += piece
                if len(said) >= _SAID:
                    break
            raise refused(self._service, self.status, said.decode("utf-8", "replace"))
        return self


class Client:
    """Payloads and functions for asyncio. Belongs to one event loop. Arguments: see `zipline_sdk.Client`."""

    def __init__(
        self,
        *,
        socket: str | None = None,
        api: str | None = None,
        token: str | None = None,
        namespace: str = "default",
        timeout: float | None = None,
        _connection: Connection | None = None,
    ) -> None:
        self._core = Core(_connection or connect(socket, api, token), namespace)
        self._timeout = timeout
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "zipline-sdk")
        # A thread is free for whoever passes, so that a call never waits in the pool's own queue, where no timeout ends it.
        self._turn = asyncio.Semaphore(THREADS)

    @property
    def transport(self) -> Transport:
        """How payloads are reached; see `zipline_sdk.Client.transport`."""
        return self._core.connection.transport

    @classmethod
    def local(
        cls,
        functions: Mapping[str, Function] | None = None,
        *,
        platform: LocalPlatform | None = None,
        budget: int | None = None,
        clock: Clock = time.monotonic,
        timeout: float | None = None,
    ) -> Client:
        """A client without an engine; see `zipline_sdk.Client.local`. Functions run in threads."""
        if platform is None:
            limits: dict[str, Any] = {} if budget is None else {"budget": budget}
            platform = LocalPlatform(functions, clock=clock, **limits)
        return cls(timeout=timeout, _connection=LocalConnection(platform))

    def put(
        self,
        data: Any,
        *,
        content_type: str | None = None,
        retrievals: int | None = 1,
        ttl: float = TTL_DEFAULT,
        linger: float = 0.0,
        wait: float = WAIT_DEFAULT,
        confirm: bool = False,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, Reference]:
        """Holds bytes in memory; see `zipline_sdk.Client.put`."""
        options = PutOptions(content_type, retrievals, ttl, linger, wait, confirm)
        return self._run(self._core.put(data, options, call_site()), timeout, "put")

    def put_stream(
        self,
        source: Any,
        *,
        content_type: str | None = None,
        retrievals: int | None = 1,
        ttl: float = TTL_DEFAULT,
        linger: float = 0.0,
        wait: float = WAIT_DEFAULT,
        length: int | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, Reference]:
        """`put` of a file, an iterable or an async iterable of bytes; see `zipline_sdk.Client.put_stream`."""
        options = PutOptions(content_type, retrievals, ttl, linger, wait)
        return self._put_stream(source, length, options, call_site(), timeout)

    async def _put_stream(
        self, source: Any, length: int | None, options: Any, site: str | None, timeout: float | None
    ) -> Reference:
        call = self._call(timeout, "put_stream")
        if isinstance(source, AsyncIterable):
            pieces = _from_loop(aiter(source), asyncio.get_running_loop(), call)
        else:
            pieces = piece_views(source)
        return await self._perform(self._core.put_pieces(pieces, length, options, site), call)

    def put_object(
        self,
        value: Any,
        *,
        retrievals: int | None = 1,
        ttl: float = TTL_DEFAULT,
        linger: float = 0.0,
        wait: float = WAIT_DEFAULT,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, Reference]:
        """`put` of an object; see `zipline_sdk.Client.put_object`. Leave it alone until this is done."""
        options = PutOptions(retrievals=retrievals, ttl=ttl, linger=linger, wait=wait)
        return self._run(self._core.put_object(value, options, call_site()), timeout, "put_object")

    async def create(self, size: int, *, wait: float = WAIT_DEFAULT, timeout: float | None = None) -> Buffer:
        """Memory to write a payload into."""
        return await self._run(self._core.create(size, wait), timeout, "create")

    async def create_array(
        self,
        shape: int | Sequence[int],
        dtype: Any = "float64",
        *,
        order: Literal["C", "F"] = "C",
        wait: float = WAIT_DEFAULT,
        timeout: float | None = None,
    ) -> ArrayBuffer:
        """Memory for a NumPy array; write its `array`, then `put` it."""
        return await self._run(self._core.create_array(shape, dtype, order, wait), timeout, "create_array")

    async def get(self, reference: Reference | str, *, timeout: float | None = None) -> Payload:
        """Retrieves a payload; see `zipline_sdk.Client.get`."""
        return await self._run(self._core.get(reference), timeout, "get")

    async def get_object(
        self, reference: Reference | str, *, trust_sender: bool = False, timeout: float | None = None
    ) -> Any:
        """Retrieves an object; see `zipline_sdk.Client.get_object` for what `trust_sender` means."""
        return await self._run(self._core.get_object(reference, trust_sender), timeout, "get_object")

    def get_many(
        self,
        references: Iterable[Reference | str],
        *,
        concurrency: int | None = None,
        errors: Errors = "raise",
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[int, Any]]:
        """Retrieves many payloads; yields (index, payload) as they arrive, in any order; see `zipline_sdk.Client.get_many`."""
        named = [as_reference(reference) for reference in references]
        each = self._call(timeout, "get_many").timeout
        together = arriving(self._core.connection, named, concurrency, keeps(errors), each)
        if together is not None:
            return self._as_they_arrive(together)
        jobs = (self._core.get(reference) for reference in named)
        concurrency = CONCURRENCY if concurrency is None else concurrency
        return self._spread(jobs, timeout, "get_many", concurrency, errors, ordered=False)

    def open(self, reference: Reference | str, *, timeout: float | None = None) -> PayloadStream:
        """Retrieves a payload piece by piece: `async with client.open(reference) as stream`."""
        return PayloadStream(self, self._core.open(reference), timeout)

    async def release(self, reference: Reference | str, *, timeout: float | None = None) -> None:
        """Frees a payload that this instance put."""
        await self._run(self._core.release(reference), timeout, "release")

    async def settle(self, *, timeout: float | None = None) -> None:
        """Waits until every put that returned before its payload was held is through; see `zipline_sdk.Client.settle`."""
        await self._run(self._core.settle(), timeout, "settle")

    async def invoke(
        self,
        service: str,
        body: Any = None,
        *,
        obj: Any = None,
        path: str = "/",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        length: int | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Sends a request to a function; see `zipline_sdk.Client.invoke`. A cancelled invoke may run all the same."""
        call = self._call(timeout, f"the invoke of {service}")
        if isinstance(body, AsyncIterable):
            body = _from_loop(aiter(body), asyncio.get_running_loop(), call)
        about = {"path": path, "method": method, "headers": headers, "content_type": content_type, "length": length}
        return await self._perform(self._core.invoke(service, body, obj=obj, **about), call)

    def invoke_stream(
        self,
        service: str,
        body: Any = None,
        *,
        obj: Any = None,
        path: str = "/",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        length: int | None = None,
        timeout: float | None = None,
    ) -> ResponseStream:
        """`invoke`, whose response is read while it arrives: `async with client.invoke_stream(...) as response`.

        See `zipline_sdk.Client.invoke_stream`. The body may be an async iterable, too.
        """
        call = QuietCall(self._timeout if timeout is None else timeout, f"the invoke of {service}")
        if isinstance(body, AsyncIterable):
            body = _from_loop(aiter(body), asyncio.get_running_loop(), call)
        about = {"path": path, "method": method, "headers": headers, "content_type": content_type, "length": length}
        return ResponseStream(self, service, self._core.invoke_stream(service, body, obj=obj, **about), call)

    def submit(self, service: str, body: Any = None, **others: Any) -> asyncio.Task[Response]:
        """`invoke` as a task."""
        return asyncio.ensure_future(self.invoke(service, body, **others))

    async def wait(
        self, invocations: Iterable[Awaitable[Response]], *, count: int | None = None, timeout: float | None = None
    ) -> tuple[list[Any], list[Any]]:
        """Waits until `count` tasks are done (None: all), or the timeout passed; (done, not done)."""
        tasks = [asyncio.ensure_future(invocation) for invocation in invocations]
        wanted = len(tasks) if count is None else min(count, len(tasks))
        deadline = None if timeout is None else time.monotonic() + timeout
        while sum(task.done() for task in tasks) < wanted:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            running = [task for task in tasks if not task.done()]
            await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        done = [task for task in tasks if task.done()]
        return done, [task for task in tasks if task not in done]

    def map(
        self,
        service: str,
        bodies: Iterable[Any],
        *,
        concurrency: int = CONCURRENCY,
        errors: Errors = "raise",
        timeout: float | None = None,
        **others: Any,
    ) -> AsyncIterator[Any]:
        """Invokes a function once for each body; yields the responses in the order of the bodies."""
        jobs = (self._core.invoke(service, body, **others) for body in bodies)
        return self._spread(jobs, timeout, f"the invoke of {service}", concurrency, errors, ordered=True)

    async def close(self) -> None:
        """Closes connections. Payloads stay."""
        self._core.connection.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _call(self, timeout: float | None, what: str) -> Call:
        return Call(self._timeout if timeout is None else timeout, what)

    async def _run(self, work: Work[Result], timeout: float | None, what: str) -> Result:
        return await self._perform(work, self._call(timeout, what))

    async def _perform(self, work: Work[Result], call: Call) -> Result:
        """Runs one call in a thread; being cancelled ends it there too."""
        try:
            async with asyncio.timeout(call.remaining()):
                await self._turn.acquire()
        except TimeoutError:
            raise call.timed_out() from None
        future: asyncio.Future[Result] | None = None
        try:
            running = self._threads.submit(work, call)
            future = asyncio.wrap_future(running)
            loop = asyncio.get_running_loop()
            # The thread is free when the work is done, which for a cancelled call is a moment later.
            running.add_done_callback(lambda _: _in_loop(loop, self._turn.release))
        except BaseException:
            self._turn.release()
            raise
        try:
            return await future
        except asyncio.CancelledError:
            call.cancel()
            raise

    async def _as_they_arrive(self, together: Arriving) -> AsyncIterator[tuple[int, Any]]:
        try:
            while (came := await self._perform(together.next, Call(None, "get_many"))) is not None:
                yield came
        finally:
            together.close()

    def _spread(
        self,
        jobs: Iterator[Work[Any]],
        timeout: float | None,
        what: str,
        concurrency: int,
        errors: Errors,
        *,
        ordered: bool,
    ) -> AsyncIterator[Any]:
        """Runs jobs, `concurrency` at a time; yields results in order, or (index, result) as they come."""
        concurrency = checked_concurrency(concurrency, THREADS)
        return self._spreading(enumerate(jobs), timeout, what, concurrency, keeps(errors), ordered)

    async def _spreading(
        self,
        numbered: Iterator[tuple[int, Work[Any]]],
        timeout: float | None,
        what: str,
        concurrency: int,
        keep: bool,
        ordered: bool,
    ) -> AsyncIterator[Any]:
        running: list[tuple[int, asyncio.Task[Any]]] = []
        try:
            while True:
                while len(running) < concurrency and (following := next(numbered, None)) is not None:
                    index, job = following
                    running.append((index, asyncio.ensure_future(self._run(job, timeout, what))))
                if not running:
                    return
                if ordered:
                    await asyncio.wait([running[0][1]])
                else:
                    await asyncio.wait([task for _, task in running], return_when=asyncio.FIRST_COMPLETED)
                chosen = next(entry for entry in running if entry[1].done())
                chosen = running[0] if ordered else chosen
                running.remove(chosen)
                index, task = chosen
                try:
                    result = task.result()
                except Error as error:
                    if not keep:
                        raise
                    result = error
                yield result if ordered else (index, result)
        finally:
            for _, task in running:
                task.cancel()
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)


def _in_loop(loop: asyncio.AbstractEventLoop, what: Any) -> None:
    """A loop that has ended needs nothing any more."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(what)


def _from_loop(source: AsyncIterator[Any], loop: asyncio.AbstractEventLoop, call: Call) -> Iterator[memoryview]:
    """Takes an async iterator's pieces from another thread, one at a time."""

    async def following() -> Any:
        return await anext(source, None)

    while True:
        future = asyncio.run_coroutine_threadsafe(following(), loop)
        with call.stopped_by(future.cancel):
            try:
                piece = future.result(call.source_remaining())
            except concurrent.futures.CancelledError:
                raise Cancelled from None
            except TimeoutError:
                # Of the source itself, if it is done.
                if future.done():
                    raise
                future.cancel()
                raise call.timed_out() from None
        if piece is None:
            return
        yield bytes_view(piece)
