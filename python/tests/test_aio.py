"""The client for asyncio: the same methods, and calls that end when they are cancelled."""

import asyncio
import contextlib
import inspect
import threading

import numpy
import pytest
from conftest import client_of, respond
from test_http import silent

import zipline_sdk
from zipline_sdk import LocalPlatform, aio


@pytest.fixture(params=["local", "engine"])
def opened(request):
    """Makes sender and receiver within the test's own loop."""
    if request.param == "local":
        platform = LocalPlatform({"worker": lambda asked: asked.payload.view[::1]})
        return lambda: [aio.Client.local(platform=platform) for _ in range(2)]
    environments = [request.getfixturevalue(f"{name}_environment") for name in ("sender", "receiver")]
    return lambda: [client_of(environment, aio.Client) for environment in environments]


def run(opened, scene):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client) for client in opened()]
            async with asyncio.timeout(120):
                await scene(*clients)

    asyncio.run(main())


def test_both_clients_have_the_same_methods_with_the_same_arguments():
    def public(kind):
        methods = inspect.getmembers(kind, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
        return {name: set(inspect.signature(method).parameters) for name, method in methods if name[0] != "_"}

    blocking, asynchronous = public(zipline_sdk.Client), public(aio.Client)
    # Its tasks have timeouts of their own.
    blocking["submit"].discard("timeout")
    assert blocking == asynchronous


def test_put_get_release(opened):
    async def scene(sender, receiver):
        reference = await sender.put(b"hello", content_type="a/b", retrievals=None)
        payload = await receiver.get(str(reference))
        assert bytes(payload) == b"hello" and payload.content_type == "a/b"
        assert "test_aio.py" in reference.put_at and "scene" in reference.put_at
        await sender.release(reference)
        with pytest.raises(zipline_sdk.PayloadLostError, match=r"test_aio\.py"):
            await receiver.get(reference)
        with pytest.raises(TypeError, match="encode"):
            await sender.put("text")

    run(opened, scene)


def test_objects_and_memory_written_in_place(opened):
    async def scene(sender, receiver):
        array = numpy.arange(10_000.0)
        assert (await receiver.get_object(await sender.put_object(array)) == array).all()
        buffer = await sender.create_array((2, 2), "i4")
        buffer.array[:] = 7
        assert (await receiver.get_object(await sender.put(buffer))).tolist() == [[7, 7], [7, 7]]
        memory = await sender.create(3)
        memory.view[:] = b"abc"
        assert bytes(await receiver.get(await sender.put(memory))) == b"abc"
        with pytest.raises(zipline_sdk.UntrustedError):
            await receiver.get_object(await sender.put_object({}))

    run(opened, scene)


def test_many_at_once(opened):
    async def scene(sender, receiver):
        references = await asyncio.gather(*(sender.put(bytes([index]) * 5000) for index in range(50)))
        await sender.release(references[7])
        got = {index: payload async for index, payload in receiver.get_many(references, errors="return")}
        assert isinstance(got.pop(7), zipline_sdk.PayloadLostError)
        assert all(bytes(payload) == bytes([index]) * 5000 for index, payload in got.items()) and len(got) == 49
        with pytest.raises(zipline_sdk.PayloadLostError):
            async for _ in receiver.get_many([references[7]]):
                pass

    run(opened, scene)


def test_streams(opened):
    async def pieces():
        for index in range(5):
            yield bytes([index]) * 100_000

    async def scene(sender, receiver):
        content = b"".join([piece async for piece in pieces()])
        for source in (pieces(), iter([content])):
            async with receiver.open(await sender.put_stream(source, content_type="a/b")) as stream:
                assert (stream.length, stream.content_type) == (500_000, "a/b")
                assert b"".join([piece async for piece in stream]) == content

        async def failing():
            yield b"x"
            raise TimeoutError("the camera")

        with pytest.raises(TimeoutError, match="the camera"):
            await sender.put_stream(failing())

    run(opened, scene)


def test_invokes(opened):
    async def scene(client, _):
        assert bytes((await client.invoke("worker", b"abc")).payload) == b"abc"
        responses = [response async for response in client.map("worker", [b"1", b"2", b"3"], concurrency=2)]
        assert [response.text for response in responses] == ["1", "2", "3"]
        tasks = [client.submit("worker", b"x") for _ in range(3)]
        done, waiting = await client.wait(tasks)
        assert len(done) == 3 and not waiting and done[0].result().text == "x"

    run(opened, scene)


async def cancelled(proxy, asked, start):
    """A call is cancelled while the proxy is silent: both sides see the end of it."""
    async with proxy.client(aio.Client) as client:
        task = asyncio.ensure_future(start(client))
        await asyncio.to_thread(asked.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    "start",
    [
        lambda client: client.get("zl1.abc"),
        lambda client: client.put(b"x"),
        lambda client: client.invoke("f", b"x"),
        lambda client: client.release("zl1.abc"),
    ],
    ids=["get", "put", "invoke", "release"],
)
def test_a_cancelled_call_closes_its_connection(fake, start):
    asked, gone = threading.Event(), threading.Event()
    answer = silent(asked)

    def watched(link, file, head):
        answer(link, file, head)
        gone.set()
        return False

    asyncio.run(cancelled(fake(watched), asked, start))
    assert gone.wait(60)


def test_a_cancelled_put_leaves_a_source_that_says_nothing(fake):
    waited, left = threading.Event(), threading.Event()

    async def source():
        yield b"x"
        waited.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    asyncio.run(cancelled(fake(silent(threading.Event())), waited, lambda client: client.put_stream(source())))
    assert left.is_set()


def test_a_timeout_ends_a_call(fake):
    async def main(proxy):
        async with proxy.client(aio.Client) as client:
            with pytest.raises(zipline_sdk.DeadlineExceededError):
                await client.get("zl1.abc", timeout=0.05)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.get("zl1.abc")

    asyncio.run(main(fake(silent(threading.Event()))))


def test_a_timeout_ends_a_call_that_waits_for_its_turn(fake):
    asked = threading.Event()

    async def main(proxy):
        async with proxy.client(aio.Client) as client:
            before = [asyncio.ensure_future(client.get("zl1.abc")) for _ in range(40)]
            await asyncio.to_thread(asked.wait)
            with pytest.raises(zipline_sdk.DeadlineExceededError):
                await client.get("zl1.abc", timeout=0.05)
            for task in before:
                task.cancel()
            await asyncio.gather(*before, return_exceptions=True)

    asyncio.run(main(fake(silent(asked))))


def test_the_loop_runs_while_a_call_waits(fake):
    released = threading.Event()

    def answer(link, file, head):
        released.wait()
        return respond(link, 200, b"late")

    async def main(proxy):
        async with proxy.client(aio.Client) as client:
            task = asyncio.ensure_future(client.get("zl1.abc"))
            await asyncio.to_thread(released.set)
            assert bytes(await task) == b"late"

    asyncio.run(main(fake(answer)))
