"""The way to a queue-proxy over HTTP, against a server that does what no queue-proxy should."""

import json
import signal
import threading

import pytest
from conftest import respond

import zipline_sdk
from zipline_sdk import Client


def silent(asked):
    """Answers nothing until the client has gone."""

    def answer(link, file, head):
        asked.set()
        while file.read(1):
            pass
        return False

    return answer


def test_a_timeout_names_itself_and_the_call(fake):
    proxy = fake(silent(threading.Event()))
    with proxy.client() as client, pytest.raises(zipline_sdk.DeadlineExceededError, match=r"get .* 0\.05 s"):
        client.get("zl1.abc", timeout=0.05)


def test_a_timeout_of_the_client_holds_for_every_call(fake):
    proxy = fake(silent(threading.Event()))
    with proxy.client(timeout=0.05) as client:
        for call in (lambda: client.put(b"x"), lambda: client.invoke("f"), lambda: client.release("zl1.abc")):
            with pytest.raises(TimeoutError):
                call()


@pytest.fixture
def interruptible():
    """SIGINT as in a terminal: whatever runs in the background of a shell starts with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_keyboard_interrupts_a_wait(fake, interruptible):
    asked = threading.Event()
    proxy = fake(silent(asked))
    main = threading.main_thread().ident

    def interrupt():
        asked.wait()
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with proxy.client() as client, pytest.raises(KeyboardInterrupt):
        client.get("zl1.abc")
    thread.join()


def test_other_threads_run_while_one_waits(fake):
    asked = threading.Event()
    done = threading.Event()

    def answer(link, file, head):
        asked.set()
        done.wait()
        return respond(link, 200, b"late")

    proxy = fake(answer)
    with proxy.client() as client:

        def other():
            asked.wait()
            done.set()

        thread = threading.Thread(target=other)
        thread.start()
        assert bytes(client.get("zl1.abc")) == b"late"
        thread.join()


def test_a_payload_that_breaks_off_is_lost(fake):
    def answer(link, file, head):
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        return False

    proxy = fake(answer)
    with proxy.client() as client:
        with pytest.raises(zipline_sdk.PayloadLostError, match="91 bytes before its end"):
            client.get("zl1.abc")
        with pytest.raises(zipline_sdk.PayloadLostError), client.open("zl1.abc") as stream:
            stream.readall()
        with pytest.raises(zipline_sdk.UpstreamFailedError, match=r"POST /v1/invoke/f.default/"):
            client.invoke("f")


def test_connections_are_used_again_and_closed_ones_are_not(fake):
    heads = []

    def answer(link, file, head):
        heads.append(head)
        respond(link, 200, b"x")
        return len(heads) < 3

    proxy = fake(answer)
    with proxy.client() as client:
        for _ in range(3):
            assert bytes(client.get("zl1.abc")) == b"x"
        assert proxy.connections == 1
    assert heads[0].startswith("GET /v1/payload HTTP/1.1\r\n")
    assert "Zipline-Reference: zl1.abc\r\n" in heads[0] and f"Zipline-Token: {'t' * 32}\r\n" in heads[0]
    assert "Host: localhost\r\n" in heads[0]


def test_a_put_that_is_refused_before_it_was_read(fake):
    def answer(link, file, head):
        body = json.dumps({"detail": "no memory"}).encode()
        respond(link, 507, body, Zipline_Error="buffer-full", Connection="close")
        return False

    proxy = fake(answer)
    with proxy.client() as client, pytest.raises(zipline_sdk.BufferFullError, match="no memory"):
        client.put(bytes(50_000_000))


def test_a_response_of_unknown_length(fake):
    def answer(link, file, head):
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
        link.sendall(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        return True

    proxy = fake(answer)
    with proxy.client() as client:
        response = client.invoke("f", iter([b"a", b"", b"b"]))
        assert bytes(response.payload) == b"abcde" and response.headers["x-a"] == "1, 2"
        assert response.ok and response.raise_for_status() is response


def test_what_no_queue_proxy_answers(fake):
    proxy = fake(lambda link, file, head: respond(link, 404, b"<html>"))
    with proxy.client() as client, pytest.raises(zipline_sdk.UpstreamFailedError, match="like no queue-proxy"):
        client.put(b"x")
    assert client.invoke  # A function's 404 is its own affair:
    with proxy.client() as client:
        assert client.invoke("f").status == 404


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "neither ZIPLINE_SOCKET nor ZIPLINE_API"),
        ({"ZIPLINE_SOCKET": "/s"}, "ZIPLINE_TOKEN is not set"),
    ],
)
def test_without_a_queue_proxy_the_way_out_is_named(monkeypatch, environment, words):
    for name in ("ZIPLINE_SOCKET", "ZIPLINE_API", "ZIPLINE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(zipline_sdk.NotConnectedError, match=words) as caught:
        Client()
    assert "zipline run" in str(caught.value) and "Client.local()" in str(caught.value)


def test_a_queue_proxy_that_is_gone(tmp_path):
    with pytest.raises(zipline_sdk.NotConnectedError, match="cannot be reached"):
        Client(socket=str(tmp_path / "nothing.sock"), token="t").get("zl1.abc")


@pytest.mark.parametrize("service", ["", "a b", "a/b", "a.b.c", ".ns", "a?"])
def test_what_is_no_function(zipline_client, service):
    with pytest.raises(ValueError, match="is no function"):
        zipline_client.invoke(service)
