"""Client.local: the same promises without an engine."""

import pytest

import zipline_sdk
from zipline_sdk import Client, LocalPlatform


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_payloads_expire_by_the_clock_they_were_given():
    clock = Clock()
    client = Client.local(clock=clock)
    reference = client.put(b"x", ttl=5)
    clock.now = 4.9
    assert client.get(client.put(b"y"))
    clock.now = 5.0
    with pytest.raises(zipline_sdk.ReferenceExpiredError, match="longer ttl"):
        client.get(reference)


def test_a_spent_payload_lingers():
    clock = Clock()
    client = Client.local(clock=clock)
    reference = client.put(b"x", linger=3)
    for _ in range(3):
        assert bytes(client.get(reference)) == b"x"
    clock.now = 3
    with pytest.raises(zipline_sdk.RetrievalsExhaustedError):
        client.get(reference)


def test_memory_has_a_limit():
    platform = LocalPlatform(budget=1000)
    client = Client.local(platform=platform)
    with pytest.raises(zipline_sdk.PayloadTooLargeError, match="1001 bytes"):
        client.put(bytes(1001))
    first = client.put(bytes(600))
    assert platform.held_bytes == 600
    with pytest.raises(zipline_sdk.BufferFullError, match="600 of 1000 bytes are held by 1 payloads"):
        client.put(bytes(500), wait=0)
    client.release(first)
    client.put(bytes(500), wait=0)
    assert platform.held_bytes == 500


def test_a_put_is_a_copy():
    client = Client.local()
    data = bytearray(b"before")
    reference = client.put(data)
    data[:] = b"after!"
    assert bytes(client.get(reference)) == b"before"


def test_functions_are_called_with_the_request():
    def function(request):
        assert (request.service, request.path, request.method) == ("resize", "/small?q=1", "PUT")
        assert request.headers["Content-Type"] == request.payload.content_type == "image/png"
        return 201, {"X-Size": "3"}, bytes(request.payload)[:3]

    client = Client.local(functions={"resize": function})
    answer = client.invoke("resize", b"abcdef", path="small?q=1", method="put", content_type="image/png")
    assert (answer.status, answer.headers["x-size"], bytes(answer.payload)) == (201, "3", b"abc")


@pytest.mark.parametrize(
    ("returned", "body", "content_type"),
    [(None, b"", None), ("grüß", "grüß".encode(), "text/plain; charset=utf-8"), (bytearray(b"x"), b"x", None)],
)
def test_functions_return_what_is_easy(returned, body, content_type):
    answer = Client.local(functions={"f": lambda request: returned}).invoke("f")
    assert (answer.status, bytes(answer.payload), answer.content_type) == (200, body, content_type)


def test_a_function_that_fails_or_is_not_there():
    client = Client.local(functions={"f": lambda request: 1 / 0, "g": lambda request: {"a": 1}})
    with pytest.raises(zipline_sdk.UpstreamFailedError, match="ZeroDivisionError"):
        client.invoke("f")
    with pytest.raises(zipline_sdk.UpstreamFailedError, match="no response"):
        client.invoke("g")
    with pytest.raises(zipline_sdk.NotFoundError, match=r"'h'.*known: f, g"):
        client.invoke("h")


def test_a_reference_of_elsewhere_is_refused():
    reference = Client.local().put(b"x")
    with pytest.raises(zipline_sdk.ReferenceInvalidError, match="shares its platform"):
        Client.local().get(reference)


def test_the_plugin_gives_fixtures(zipline_client, zipline_platform):
    zipline_platform.functions["f"] = lambda request: bytes(zipline_client.get(str(request.payload.view, "ascii")))
    reference = zipline_client.put(b"payload")
    assert bytes(zipline_client.invoke("f", str(reference).encode()).payload) == b"payload"
