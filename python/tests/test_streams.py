"""Invokes whose bodies go in pieces: against a server that says when, and functions of an engine."""

import asyncio
import io
import queue
import threading

import pytest
from conftest import client_of
from test_http import silent

import zipline_sdk
from zipline_sdk import Client, aio

BODY = bytes(range(256)) * 8192
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/x-a\r\nX-A: 1\r\nX-A: 2\r\n\r\n"


def chunk(file):
    """The next chunk of a request."""
    piece = file.read(int(file.readline(), 16))
    assert file.readline() == b"\r\n"
    return piece


def announced(head):
    return int(head.partition("Content-Length:")[2].split()[0])


def echo(link, file, head):
    """Answers each chunk with it, when it comes."""
    link.sendall(CHUNKED)
    going = True
    while going:
        piece = chunk(file)
        link.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        going = bool(piece)
    return True


def test_a_function_answers_while_it_is_asked(fake):
    said = queue.Queue()
    said.put(b"0")
    proxy = fake(echo)
    with proxy.client(timeout=60) as client:
        with client.invoke_stream("f", iter(said.get, None)) as response:
            assert (response.status, response.ok, response.content_type) == (200, True, "text/x-a")
            assert response.headers["x-a"] == "1, 2" and response.length is None
            for turn in range(20):
                assert response.read(100) == str(turn).encode()
                said.put(str(turn + 1).encode() if turn < 19 else None)
            assert response.read(100) == b"" and response.read(100) == b""
        with client.invoke_stream("f", iter([b"again"])) as response:
            assert b"".join(response.pieces()) == b"again"


def test_an_async_body_is_answered_while_it_is_given(fake):
    async def main(proxy):
        said = asyncio.Queue()
        await said.put(b"0")

        async def source():
            while (piece := await said.get()) is not None:
                yield piece

        async with (
            proxy.client(aio.Client, timeout=60) as client,
            client.invoke_stream("f", source()) as response,
        ):
            assert response.ok and response.content_type == "text/x-a" and response.length is None
            target = bytearray(10)
            for turn in range(20):
                count = await response.readinto(target)
                assert target[:count] == str(turn).encode()
                await said.put(str(turn + 1).encode() if turn < 19 else None)
            assert await response.readinto(target) == 0

    asyncio.run(main(fake(echo)))


def test_an_invoke_is_answered_before_it_was_heard(fake):
    """More than any socket takes, in both directions, whoever goes first."""

    def answer(link, file, head):
        length = announced(head)
        link.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + bytes(length - 1))
        lengths.append(len(file.read(length)))
        link.sendall(b"x")
        return True

    lengths = []

    proxy = fake(answer)
    with proxy.client(timeout=60) as client:
        assert len(client.invoke("f", bytes(20_000_000)).payload) == 20_000_000
        with client.invoke_stream("f", bytes(20_000_000)) as response:
            assert response.length == 20_000_000
            assert sum(len(piece) for piece in response.pieces()) == 20_000_000
    assert lengths == [20_000_000] * 2


@pytest.mark.parametrize("answered", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour", CHUNKED + b"4\r\nfour\r\n"])
def test_what_breaks_off_is_an_error_and_stays_one(fake, answered):
    def answer(link, file, head):
        link.sendall(answered)
        return False

    proxy = fake(answer)
    with proxy.client() as client:
        with client.invoke_stream("f") as response:
            assert response.read(4) == b"four"
            for _ in range(2):
                with pytest.raises(zipline_sdk.UpstreamFailedError, match="broke off"):
                    response.read(4)
        with client.invoke_stream("f") as response, pytest.raises(zipline_sdk.UpstreamFailedError):
            response.readall()

        async def main():
            async with proxy.client(aio.Client) as client, client.invoke_stream("f") as response:
                with pytest.raises(zipline_sdk.UpstreamFailedError):
                    _ = [piece async for piece in response]

        asyncio.run(main())


def test_a_source_that_fails_ends_the_request_not_its_body(fake):
    heard = queue.Queue()

    def answer(link, file, head):
        heard.put(file.read())
        return False

    def source():
        yield b"some"
        raise ConnectionResetError("the camera")

    proxy = fake(answer)
    with proxy.client(timeout=60) as client:
        for invoke in (client.invoke, client.invoke_stream):
            with pytest.raises(ConnectionResetError, match="the camera"):
                invoke("f", source())
            assert heard.get() == b"4\r\nsome\r\n"


@pytest.mark.parametrize(
    ("length", "words"), [(5, "1 bytes before its length of 5"), (3, "more bytes than its length of 3")]
)
def test_a_length_is_kept_to(fake, length, words):
    heads = queue.Queue()

    def answer(link, file, head):
        heads.put(head)
        file.read(announced(head))
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return True

    proxy = fake(answer)
    with proxy.client(timeout=60) as client:
        client.invoke("f", io.BytesIO(b"four"), length=4)
        head = heads.get()
        assert "Content-Length: 4\r\n" in head and "chunked" not in head
        for invoke in (
            client.invoke,
            client.invoke_stream,
            lambda _, body, **others: client.put_stream(body, **others),
        ):
            with pytest.raises(zipline_sdk.RequestInvalidError, match=words):
                invoke("f", io.BytesIO(b"four"), length=length)
        with pytest.raises(TypeError, match="length"):
            client.invoke("f", b"four", length=4)
    with pytest.raises(zipline_sdk.RequestInvalidError, match=words):
        Client.local().put_stream(io.BytesIO(b"four"), length=length)


def test_a_wait_in_which_nothing_moves_ends(fake):
    proxy = fake(silent(threading.Event()))
    with proxy.client(timeout=0.05) as client:
        for body in (b"x", iter([b"x"])):
            with pytest.raises(zipline_sdk.DeadlineExceededError, match=r"nothing moved of the invoke of f .* 0\.05 s"):
                client.invoke_stream("f", body)


def test_a_source_is_taken_no_faster_than_the_function_takes_it(fake):
    taken = [0]

    def endless():
        while True:
            taken[0] += 100_000
            yield bytes(100_000)

    waited = threading.Event()

    def answer(link, file, head):
        waited.wait()
        return False

    proxy = fake(answer)
    with proxy.client(timeout=0.3) as client:
        with pytest.raises(zipline_sdk.DeadlineExceededError):
            client.invoke_stream("f", endless())
        assert 0 < taken[0] < 32_000_000
    waited.set()


def test_a_response_that_is_closed_ends_the_exchange(fake):
    gone = threading.Event()

    def answer(link, file, head):
        try:
            link.sendall(CHUNKED + b"4\r\nfour\r\n")
            file.read()
        finally:
            gone.set()
        return False

    proxy = fake(answer)
    waited, stopped = threading.Event(), threading.Event()

    async def waiting():
        try:
            yield b"x"
            waited.set()
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with proxy.client() as client:
        with client.invoke_stream("f") as response:
            assert response.read(9) == b"four"
        assert gone.wait(60)
        with pytest.raises(ValueError, match="closed"):
            response.read(9)
    gone.clear()

    async def main():
        async with proxy.client(aio.Client) as client:
            async with client.invoke_stream("f", waiting()) as response:
                assert await response.readinto(bytearray(9)) == 4
                # Only a source that waits is called off.
                assert await asyncio.to_thread(waited.wait, 60)
            assert await asyncio.to_thread(gone.wait, 60) and await asyncio.to_thread(stopped.wait, 60)

    asyncio.run(main())


@pytest.fixture(params=["local", "engine"])
def client(request):
    if request.param == "engine":
        made = client_of(request.getfixturevalue("sender_environment"))
    else:

        def worker(asked):
            if asked.path == "/refuse":
                return 422, {}, "no such picture"
            return 200, dict(asked.headers), asked.payload.view[::1]

        made = Client.local({"worker": worker})
    with made as client:
        yield client


def test_bodies_of_every_kind(client):
    reference = client.put(BODY, content_type="a/b")
    for body, length in (
        (BODY, None),
        (io.BytesIO(BODY), None),
        (io.BytesIO(BODY), len(BODY)),
        (iter([BODY[:9], BODY[9:]]), None),
        (reference, None),
    ):
        with client.invoke_stream("worker", body, content_type="a/b", length=length) as response:
            assert response.status == 200 and response.content_type == "a/b" and response.length == len(BODY)
            assert response.raise_for_status() is response
            start = bytearray(10)
            count = response.readinto(start)
            assert bytes(start[:count]) + b"".join(response.pieces(100_000)) == BODY
    with client.invoke_stream("worker") as response:
        assert response.readall() == b""


def test_a_status_is_the_functions_own_affair(client):
    with client.invoke_stream("worker", path="/refuse") as response:
        assert response.status == 422 and not response.ok
        with pytest.raises(zipline_sdk.StatusError, match="status 422 and said: no such picture"):
            response.raise_for_status()
    with pytest.raises(zipline_sdk.Error, match="nobody"):
        client.invoke_stream("nobody").raise_for_status()


def test_what_zipline_refuses_is_raised(client):
    reference = client.put(b"x")
    client.release(reference)
    with pytest.raises(zipline_sdk.PayloadLostError, match=r"test_streams\.py"):
        client.invoke_stream("worker", reference)
