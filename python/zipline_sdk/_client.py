"""The blocking client."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from ._call import Call, QuietCall
from ._connection import TTL_DEFAULT, WAIT_DEFAULT, Connection, PutOptions, Transport
from ._core import ArrayBuffer, Buffer, Core, Response, Work, connect, piece_views
from ._local import Clock, Function, LocalConnection, LocalPlatform
from ._many import CONCURRENCY, THREADS, Arriving, Errors, arriving, checked_concurrency, keeps
from ._native import Payload
from ._streams import PayloadFile, ResponseFile
from .errors import DeadlineExceededError, Error
from .reference import Reference, as_reference, call_site

Result = TypeVar("Result")

# Invokes that may wait for a thread.
_SUBMITTED_MOST = 1024


class Invocation:
    """An invoke that runs while you do something else."""

    def __init__(self, service: str, call: Call, future: concurrent.futures.Future[Response]) -> None:
        self._service, self._call, self._future = service, call, future

    def result(self, timeout: float | None = None) -> Response:
        """Waits for the response, or raises what the invoke raised.

        Raises:
            DeadlineExceededError: it is not there within `timeout` seconds; it goes on all the same.
        """
        done, _ = concurrent.futures.wait([self._future], timeout)
        if not done:
            raise DeadlineExceededError(f"the invoke of {self._service} was not done after {timeout} s more")
        return self._future.result()

    def done(self) -> bool:
        return self._future.done()

    def cancel(self) -> None:
        """Gives it up. The function may run all the same."""
        self._future.cancel()
        self._call.cancel()

    def __repr__(self) -> str:
        return f"<zipline_sdk.Invocation of {self._service}, {'done' if self.done() else 'running'}>"


class Client:
    """Payloads and functions, from any thread; every call waits for its result and lets other threads run meanwhile.

    Args:
        socket: The queue-proxy's Unix socket, or "@" and its abstract name. Default: ZIPLINE_SOCKET.
        api: Its address, as in "http://127.0.0.1:8030". Default: ZIPLINE_API.
        token: Default: ZIPLINE_TOKEN.
        namespace: Of functions that are named without one.
        timeout: Seconds of every call that names none; None: as long as it takes.

    Raises:
        NotConnectedError: nothing says where the queue-proxy is.
    """

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
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._submitted = threading.BoundedSemaphore(_SUBMITTED_MOST)

    @property
    def transport(self) -> Transport:
        """How payloads are reached: "socket" (memory shared with the queue-proxy), "http" (its HTTP API, a copy), "local"."""
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
        """A client without an engine: payloads stay in this process.

        Args:
            functions: What `invoke` runs, by name; each is called with a `LocalRequest`.
            platform: To share payloads and functions with other clients; then no other argument but `timeout` counts.
            budget: Bytes that may be held.
            clock: Seconds; tests put a clock of their own here to see payloads expire.
        """
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
    ) -> Reference:
        """Holds bytes in memory until they were retrieved, released, or expire.

        At most 64 KiB need no round trip: once puts with the same arguments come again, the queue-proxy has issued references for
        them in advance, and the put returns at once. If it fails after all (no memory within `wait`, the instance drains), a get
        of it ends as `PayloadLostError`, `settle` raises why, and further puts wait again until one was taken.

        Args:
            data: Anything with the buffer protocol whose bytes lie in one piece: bytes, bytearray, memoryview, a NumPy array in C
                order. A `Buffer` of `create` becomes the payload without a copy.
            content_type: Comes back with `get`.
            retrievals: How often it can be retrieved before it is freed; None: any number of times.
            ttl: Seconds until it expires; at most 3600 apply.
            linger: Seconds that it stays for a retry after its last retrieval; at most 60.
            wait: Longest wait for memory, in seconds; at most 60.
            confirm: Wait until the payload is held in any case.
            timeout: Seconds that the call may take.

        Raises:
            TypeError: `data` has no bytes to look at, or not in one piece.
            BufferFullError, PayloadTooLargeError, DrainingError: it is not held.
        """
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
    ) -> Reference:
        """`put` of a file opened for reading bytes, or of an iterable of bytes, without having all of it at once.

        Args:
            length: Its bytes, where they are known: then memory for all of them is there before the first is taken.

        Raises:
            RequestInvalidError: it has another length.
            Whatever the source raises, and what `put` raises.
        """
        options = PutOptions(content_type, retrievals, ttl, linger, wait)
        work = self._core.put_pieces(piece_views(source), length, options, call_site())
        return self._run(work, timeout, "put_stream")

    def put_object(
        self,
        value: Any,
        *,
        retrievals: int | None = 1,
        ttl: float = TTL_DEFAULT,
        linger: float = 0.0,
        wait: float = WAIT_DEFAULT,
        timeout: float | None = None,
    ) -> Reference:
        """`put` of an object: a NumPy array, an Arrow table or record batch, or anything that can be pickled.

        Its large parts are copied once, into the payload's memory. Receivers read it with `get_object`.
        """
        options = PutOptions(retrievals=retrievals, ttl=ttl, linger=linger, wait=wait)
        return self._run(self._core.put_object(value, options, call_site()), timeout, "put_object")

    def create(self, size: int, *, wait: float = WAIT_DEFAULT, timeout: float | None = None) -> Buffer:
        """Memory of `size` bytes to write a payload into; then `put` it. Its first content is undefined."""
        return self._run(self._core.create(size, wait), timeout, "create")

    def create_array(
        self,
        shape: int | Sequence[int],
        dtype: Any = "float64",
        *,
        order: Literal["C", "F"] = "C",
        wait: float = WAIT_DEFAULT,
        timeout: float | None = None,
    ) -> ArrayBuffer:
        """Memory for a NumPy array, as `numpy.empty`: write its `array`, then `put` it. Receivers use `get_object`."""
        return self._run(self._core.create_array(shape, dtype, order, wait), timeout, "create_array")

    def get(self, reference: Reference | str, *, timeout: float | None = None) -> Payload:
        """Retrieves a payload. It is read-only, without a copy, and stays as long as any view on it.

        Raises:
            ReferenceInvalidError, ReferenceForbiddenError: the reference is not good here.
            ReferenceExpiredError, RetrievalsExhaustedError, PayloadLostError: the payload is gone.
        """
        return self._run(self._core.get(reference), timeout, "get")

    def get_object(
        self, reference: Reference | str, *, trust_sender: bool = False, timeout: float | None = None
    ) -> Any:
        """Retrieves an object that `put_object` or `create_array` put; arrays come back as read-only views.

        Args:
            trust_sender: Take pickles too. Unpickling runs whatever code the sender chose: say it only where you would run the
                sender's code. It also leaves out the check of every value of Arrow tables.

        Raises:
            UntrustedError: it is a pickle, and `trust_sender` is False.
            FormatError: it is no object, or a broken one.
            Everything that `get` raises.
        """
        return self._run(self._core.get_object(reference, trust_sender), timeout, "get_object")

    def get_many(
        self,
        references: Iterable[Reference | str],
        *,
        concurrency: int | None = None,
        errors: Errors = "raise",
        timeout: float | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Retrieves many payloads; yields (index, payload) as they arrive, in any order.

        Args:
            concurrency: Retrievals at the same time; nothing more is asked for while nobody takes what came. Default: 32 over the
                queue-proxy's socket (at most 64), 8 over its HTTP API (at most 32), each in a thread.
            errors: "raise" ends with the first error; "return" yields it in the payload's place.
            timeout: Seconds of each retrieval.
        """
        named = [as_reference(reference) for reference in references]
        each = self._call(timeout, "get_many").timeout
        together = arriving(self._core.connection, named, concurrency, keeps(errors), each)
        if together is not None:
            return _as_they_arrive(together)
        jobs = (self._core.get(reference) for reference in named)
        concurrency = CONCURRENCY if concurrency is None else concurrency
        return self._spread(jobs, timeout, "get_many", concurrency, errors, ordered=False)

    def open(self, reference: Reference | str, *, timeout: float | None = None) -> PayloadFile:
        """Retrieves a payload piece by piece, as a file. The timeout runs until its last byte was read."""
        return PayloadFile(self._run(self._core.open(reference), timeout, "open"))

    def release(self, reference: Reference | str, *, timeout: float | None = None) -> None:
        """Frees a payload that this instance put, before anything else does."""
        self._run(self._core.release(reference), timeout, "release")

    def settle(self, *, timeout: float | None = None) -> None:
        """Waits until every put that returned before its payload was held is through.

        Raises:
            BufferFullError, DrainingError: the first of those that failed since this was asked last.
        """
        self._run(self._core.settle(), timeout, "settle")

    def invoke(
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
        """Sends a request to a function and waits for its response, whatever its status.

        Args:
            service: "service" or "service.namespace".
            body: Bytes (anything with the buffer protocol), a `Buffer`, a file, or an iterable of bytes; or a `Reference`, whose
                payload is sent from wherever it is held, without passing through this process. That is one of its retrievals.
            obj: In the body's place, an object as `put_object` takes it; the function reads it with `Response.object`'s twin,
                `zipline_sdk.load`.
            path: With a query, if there is one.
            length: Of a file or an iterable, its bytes where they are known; the function then sees a Content-Length.

        Raises:
            UpstreamFailedError, ReceiverUnprovenError: no response came; the function may have run.
        """
        about = {"path": path, "method": method, "headers": headers, "content_type": content_type, "length": length}
        return self._run(self._core.invoke(service, body, obj=obj, **about), timeout, f"the invoke of {service}")

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
    ) -> ResponseFile:
        """`invoke`, whose response is read while it arrives: `with client.invoke_stream(...) as response`.

        Takes the arguments of `invoke`. A body that is a file or an iterable is taken by a thread while the response is read, as
        fast as the function takes it: both bodies go on at the same time, and neither is ever kept whole. What it raises is
        raised in the response's place.

        Args:
            timeout: Seconds of each wait in which nothing moves.
        """
        about = {"path": path, "method": method, "headers": headers, "content_type": content_type, "length": length}
        work = self._core.invoke_stream(service, body, obj=obj, **about)
        call = QuietCall(self._timeout if timeout is None else timeout, f"the invoke of {service}")
        return ResponseFile(service, work(call))

    def submit(self, service: str, body: Any = None, *, timeout: float | None = None, **others: Any) -> Invocation:
        """`invoke`, without waiting for it; takes the same arguments. At most 1,024 wait at a time, then this waits."""
        work = self._core.invoke(service, body, **others)
        call = self._call(timeout, f"the invoke of {service}")
        self._submitted.acquire()
        try:
            future = self._pool().submit(work, call)
        except BaseException:
            self._submitted.release()
            raise
        future.add_done_callback(lambda _: self._submitted.release())
        return Invocation(service, call, future)

    def wait(
        self, invocations: Iterable[Invocation], *, count: int | None = None, timeout: float | None = None
    ) -> tuple[list[Invocation], list[Invocation]]:
        """Waits until `count` of the invocations are done (None: all), or the timeout passed; (done, not done)."""
        waiting = list(invocations)
        wanted = len(waiting) if count is None else min(count, len(waiting))
        deadline = None if timeout is None else time.monotonic() + timeout
        while sum(invocation.done() for invocation in waiting) < wanted:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            running = [invocation._future for invocation in waiting if not invocation.done()]
            concurrent.futures.wait(running, left, concurrent.futures.FIRST_COMPLETED)
        done = [invocation for invocation in waiting if invocation.done()]
        return done, [invocation for invocation in waiting if invocation not in done]

    def map(
        self,
        service: str,
        bodies: Iterable[Any],
        *,
        concurrency: int = CONCURRENCY,
        errors: Errors = "raise",
        timeout: float | None = None,
        **others: Any,
    ) -> Iterator[Any]:
        """Invokes a function once for each body, several at a time; yields the responses in the order of the bodies.

        Bodies are taken from the iterable as they are needed. `timeout` is that of each invoke; `errors="return"` yields errors
        in the responses' place. Further arguments are those of `invoke`.
        """
        jobs = (self._core.invoke(service, body, **others) for body in bodies)
        return self._spread(jobs, timeout, f"the invoke of {service}", concurrency, errors, ordered=True)

    def close(self) -> None:
        """Closes connections. Payloads that were put stay; payloads that were got stay too."""
        self._core.connection.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, timeout: float | None, what: str) -> Call:
        return Call(self._timeout if timeout is None else timeout, what)

    def _run(self, work: Work[Result], timeout: float | None, what: str) -> Result:
        return work(self._call(timeout, what))

    def _pool(self) -> concurrent.futures.ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "zipline-sdk")
            return self._threads

    def _spread(
        self,
        jobs: Iterator[Work[Any]],
        timeout: float | None,
        what: str,
        concurrency: int,
        errors: Errors,
        *,
        ordered: bool,
    ) -> Iterator[Any]:
        """Runs jobs, `concurrency` at a time; yields results in order, or (index, result) as they come."""
        concurrency = checked_concurrency(concurrency, THREADS)
        return self._spreading(enumerate(jobs), timeout, what, concurrency, keeps(errors), ordered)

    def _spreading(
        self,
        jobs: Iterator[tuple[int, Work[Any]]],
        timeout: float | None,
        what: str,
        concurrency: int,
        keep: bool,
        ordered: bool,
    ) -> Iterator[Any]:
        running: deque[tuple[int, Call, concurrent.futures.Future[Any]]] = deque()
        try:
            more = True
            while more or running:
                while more and len(running) < concurrency:
                    following = next(jobs, None)
                    if following is None:
                        more = False
                        break
                    index, job = following
                    call = self._call(timeout, what)
                    running.append((index, call, self._pool().submit(job, call)))
                if not running:
                    return
                chosen = running[0] if ordered else _first_done(running)
                index, _, future = chosen
                result = _outcome(future, keep)
                running.remove(chosen)
                yield result if ordered else (index, result)
        finally:
            for _, call, future in running:
                future.cancel()
                call.cancel()


def _as_they_arrive(together: Arriving) -> Iterator[tuple[int, Any]]:
    try:
        while (came := together.next(Call(None, "get_many"))) is not None:
            yield came
    finally:
        together.close()


def _first_done(running: Iterable[tuple[int, Call, concurrent.futures.Future[Any]]]) -> Any:
    concurrent.futures.wait([future for _, _, future in running], None, concurrent.futures.FIRST_COMPLETED)
    return next(entry for entry in running if entry[2].done())


def _outcome(future: concurrent.futures.Future[Any], keep: bool) -> Any:
    try:
        return future.result()
    except Error as error:
        if not keep:
            raise
        return error
