"""Invokes of functions that run in an engine, and functions that use the SDK themselves."""

import io
import json

import numpy
import pytest
from conftest import client_of

import zipline_sdk

BODY = bytes(range(256)) * 8192


@pytest.fixture
def client(sender_environment):
    with client_of(sender_environment) as client:
        yield client


def test_bodies_of_every_kind(client):
    buffer = client.create(len(BODY))
    buffer.view[:] = BODY
    for body in (BODY, memoryview(BODY), buffer, io.BytesIO(BODY), iter([BODY[:1000], BODY[1000:]])):
        response = client.invoke("worker", body, content_type="application/x-test")
        assert response.status == 200 and response.ok
        assert bytes(response.payload) == BODY and response.content_type == "application/x-test"
    assert len(client.invoke("worker").payload) == 0


def test_the_namespace_and_the_query_reach_the_function(client):
    response = client.invoke("worker.default", b"x", path="/?q=1&r=a%20b")
    assert response.headers["x-query"] == "q=1&r=a%20b"


def test_a_large_body_goes_from_memory_to_memory(client, engine):
    payloads, size = engine.received_deferred("worker")
    client.invoke("worker", bytes(5_000_000)).raise_for_status()
    after, after_size = engine.received_deferred("worker")
    assert after == payloads + 1 and after_size == size + 5_000_000


def test_an_object_as_request_and_response(client):
    array = numpy.arange(300_000.0)
    assert (client.invoke("worker", obj=array, path="/double").object() == array * 2).all()
    buffer = client.create_array(3, "i8")
    buffer.array[:] = [1, 2, 3]
    assert client.invoke("worker", buffer, path="/double").object().tolist() == [2, 4, 6]


def test_a_function_gets_what_was_put(client):
    array = numpy.ones(500_000)
    response = client.invoke("worker", str(client.put_object(array)).encode(), path="/total")
    assert response.json() == {"sum": 500_000, "mean": 1}


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_a_payload_that_was_put_is_a_body(client, size):
    for _ in range(4):
        # The later ones of the small ones have references that were issued in advance.
        reference = client.put(BODY[:1] * size, content_type="application/x-test")
        response = client.invoke("worker", reference)
        assert bytes(response.payload) == BODY[:1] * size and response.content_type == "application/x-test"
    with pytest.raises(zipline_sdk.RetrievalsExhaustedError, match=r"put at .*test_functions\.py"):
        client.invoke("worker", reference)
    again = client.put(b"x", content_type="a/b")
    assert client.invoke("worker", again, content_type="c/d").content_type == "c/d"


def test_a_payload_of_this_process_is_a_body(zipline_client, zipline_platform):
    zipline_platform.functions["echo"] = lambda request: (200, dict(request.headers), request.payload)
    reference = zipline_client.put(b"held", content_type="a/b")
    response = zipline_client.invoke("echo", reference)
    assert (response.text, response.content_type) == ("held", "a/b")
    with pytest.raises(zipline_sdk.RetrievalsExhaustedError, match=r"test_functions\.py"):
        zipline_client.invoke("echo", reference)
    again = zipline_client.put(b"held", content_type="a/b")
    assert zipline_client.invoke("echo", again, content_type="c/d").content_type == "c/d"


def test_a_function_puts_and_its_caller_gets(client):
    reference = client.invoke("worker", b"3000000", path="/produce").text
    assert bytes(client.get(reference)) == b"z" * 3_000_000
    with client.open(reference) as stream:
        assert stream.read(3) == b"zzz"
    with pytest.raises(zipline_sdk.RequestInvalidError, match="another instance"):
        client.release(reference)


def test_a_status_is_the_functions_own_affair(client):
    response = client.invoke("worker", path="/refuse")
    assert (response.status, response.ok, response.text) == (422, False, "no such picture")
    with pytest.raises(zipline_sdk.StatusError, match="status 422 and said: no such picture") as caught:
        response.raise_for_status()
    assert caught.value.status == 422


def test_a_function_that_is_not_there(client):
    with pytest.raises(zipline_sdk.Error) as caught:
        client.invoke("nobody").raise_for_status()
    assert "nobody" in str(caught.value)


def test_map_keeps_the_order(client):
    bodies = [json.dumps(index).encode() for index in range(20)]
    assert [response.json() for response in client.map("worker", iter(bodies), concurrency=5)] == list(range(20))
    with pytest.raises(ValueError, match="concurrency"):
        client.map("worker", bodies, concurrency=0)


def test_submit_and_wait(client):
    invocations = [client.submit("worker", bytes([index])) for index in range(5)]
    done, waiting = client.wait(invocations, count=2)
    assert len(done) >= 2 and len(done) + len(waiting) == 5
    done, waiting = client.wait(invocations)
    assert not waiting and [bytes(invocation.result().payload) for invocation in invocations] == [
        bytes([index]) for index in range(5)
    ]
    assert client.wait([]) == ([], [])
    with pytest.raises(TypeError, match="colour"):
        client.submit("worker", colour="red")


def test_an_invocation_that_is_given_up(client):
    invocation = client.submit("worker", b"x")
    invocation.cancel()
    done, _ = client.wait([invocation])
    assert done == [invocation]
