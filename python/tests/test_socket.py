"""The native way to a queue-proxy, here without one: memory that both sides map, and errors as they come from Rust."""

import gc
import socket
import threading
import weakref

import numpy
import pytest
from conftest import respond

import zipline_sdk.aio
from zipline_sdk import Client, _native
from zipline_sdk._http import Address
from zipline_sdk._socket import SocketConnection

BODY = bytes(range(256)) * 1024


@pytest.fixture
def client(tmp_path):
    link = _native.Link.local()
    with Client(_connection=SocketConnection(Address("t", str(tmp_path / "nothing.sock")), link)) as client:
        yield client


@pytest.mark.parametrize(
    "data", [b"", b"small", BODY, bytearray(BODY), numpy.arange(100_000.0)], ids=lambda data: str(len(data))
)
def test_what_was_put_is_got(client, data):
    reference = client.put(data, content_type="a/b")
    payload = client.get(reference)
    assert bytes(payload) == memoryview(data).tobytes() and payload.content_type == "a/b"
    assert payload.view.readonly and reference.length == len(payload)
    with pytest.raises(zipline_sdk.RetrievalsExhaustedError, match=r"put at .*test_socket\.py"):
        client.get(reference)


def test_memory_written_in_place_stays_while_there_are_views(client):
    buffer = client.create(len(BODY))
    array = numpy.frombuffer(buffer, "u1")
    assert array.ctypes.data % 64 == 0
    array[:] = numpy.frombuffer(BODY, "u1")
    payload = client.get(client.put(buffer))
    assert bytes(payload) == BODY and buffer.view.readonly
    del buffer
    gc.collect()
    again = client.create(len(BODY))
    again.view[:] = bytes(len(BODY))
    assert array.tobytes() == BODY == bytes(payload)
    with pytest.raises(zipline_sdk.RequestInvalidError):
        client.put(again)
        client.put(again)


def test_memory_that_was_never_put_goes_with_its_last_view(client):
    buffer = client.create(1000)
    view, gone = buffer.view, weakref.ref(buffer)
    view[:] = b"x" * 1000
    del buffer
    assert gone() is not None
    del view
    gc.collect()
    assert gone() is None


def test_objects(client):
    array = numpy.random.default_rng(1).random((300, 400))
    assert (client.get_object(client.put_object(array)) == array).all()
    buffer = client.create_array((3, 4), "i8")
    buffer.array[:] = 5
    assert client.get_object(client.put(buffer)).sum() == 60


def test_a_buffer_of_another_client_is_copied(client):
    buffer = Client.local().create(3)
    buffer.view[:] = b"abc"
    assert bytes(client.get(client.put(buffer))) == b"abc"


def test_many(client):
    references = [client.put(bytes([index]) * 100, retrievals=None) for index in range(40)]
    client.release(references[20])
    got = dict(client.get_many(references, errors="return"))
    assert isinstance(got.pop(20), zipline_sdk.PayloadLostError)
    assert all(bytes(payload) == bytes([index]) * 100 for index, payload in got.items()) and len(got) == 39
    with pytest.raises(zipline_sdk.PayloadLostError, match=r"test_socket\.py"):
        list(client.get_many(references))


def over_http(link, file, head):
    return respond(link, 200, b"over http")


@pytest.mark.parametrize("make", [Client, zipline_sdk.aio.Client])
def test_an_older_queue_proxy_is_asked_over_http_and_that_is_said(fake, make):
    with pytest.warns(zipline_sdk.TransportWarning, match=r"speaks HTTP alone \(.*\).*transport is 'http'") as warned:
        made = make(socket=fake(over_http).path, token="t")
    assert made.transport == "http" and len(warned) == 1
    if make is Client:
        with made as client:
            assert bytes(client.get("zl1.abc")) == b"over http"


def test_where_the_socket_cannot_be_reached_the_address_is_used(fake, tmp_path):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        link, _ = listener.accept()
        with link, link.makefile("rb") as file:
            while file.readline() != b"\r\n":
                pass
            respond(link, 200, b"by its address")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    api = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.warns(zipline_sdk.TransportWarning, match=rf"gone.sock cannot be reached.*{api} is used"):
        client = Client(socket=str(tmp_path / "gone.sock"), api=api, token="t")
    with client, listener:
        assert client.transport == "http" and bytes(client.get("zl1.abc")) == b"by its address"
    thread.join()


def test_who_names_only_an_address_is_not_warned(recwarn):
    with Client(api="http://127.0.0.1:1", token="t") as client:
        assert client.transport == "http"
    with Client.local() as client:
        assert client.transport == "local"
    assert not recwarn.list
