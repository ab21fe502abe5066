"""Everything the local API and the forward proxy offer, by curl alone."""

import hashlib
import json
import os
import random
import socket
import subprocess
import time
from pathlib import Path

import pytest

import matrix

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def guest(zipline):
    """The environment that `zipline run` gives its command, as long as the command runs."""
    running = zipline.popen("run", "--", "sh", "-c", "env -0; printf 'end\\0'; cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    environment = {}
    received = b""
    while not received.endswith(b"\0end\0"):
        chunk = running.stdout.read1(65_536)
        assert chunk, f"zipline run ended with status {running.wait()}"
        received += chunk
    for line in received.split(b"\0")[:-2]:
        name, _, value = line.decode().partition("=")
        environment[name] = value
    yield environment
    running.stdin.close()
    assert running.wait(timeout=20) == 0


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def upstream():
    """The address of an echo that is no function and knows no Zipline."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = Path(matrix.HERE) / "app"
    process = subprocess.Popen([matrix.PYTHON, "echo.py"], cwd=app, env=dict(os.environ, PORT=str(port)))
    while not listening(port):
        assert process.poll() is None
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Makes files of a given length, each once."""
    folder = tmp_path_factory.mktemp("payloads")

    def make(size):
        path = folder / f"{size}.bin"
        if not path.exists():
            path.write_bytes(random.Random(size).randbytes(size))
        return path

    return make


class Curl:
    """Runs curl in the guest's environment and keeps what came back."""

    def __init__(self, environment, folder):
        self.environment, self.folder = environment, folder

    def __call__(self, *arguments):
        body, head = self.folder / "body", self.folder / "head"
        body.write_bytes(b"")
        command = ["curl", "-sS", "--max-time", "60", "-o", body, "-D", head, "-w", "%{http_code}", *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.body = body.read_bytes()
        self.headers = {}
        for line in head.read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon:
                self.headers[name.lower()] = value.strip()
        return int(done.stdout)

    def api(self, path, *arguments):
        token = f"Zipline-Token: {self.environment['ZIPLINE_TOKEN']}"
        return self("-H", token, *arguments, self.environment["ZIPLINE_API"] + path)


@pytest.fixture
def curl(guest, tmp_path):
    return Curl(guest, tmp_path)


def digest(content):
    return hashlib.sha256(content).hexdigest()


def body(path, content_type="application/octet-stream"):
    # Not -T, which puts the file's name behind a URL that ends in a slash.
    return "-H", f"Content-Type: {content_type}", "--data-binary", f"@{path}"


def put(curl, path, query=""):
    assert curl.api(f"/v1/payloads{query}", *body(path, "text/x-test")) == 201
    answer = json.loads(curl.body)
    assert answer["reference"] == curl.headers["zipline-reference"]
    return f"Zipline-Reference: {answer['reference']}"


def test_put_get_and_a_second_get(curl, files):
    path = files(3 * MEGABYTE)
    reference = put(curl, path)
    assert curl.api("/v1/payload", "-H", reference) == 200
    assert curl.body == path.read_bytes()
    assert curl.headers["content-type"] == "text/x-test"
    assert curl.api("/v1/payload", "-H", reference) == 409
    assert curl.headers["zipline-error"] == "retrievals-exhausted"
    assert json.loads(curl.body)["type"] == "urn:zipline:error:retrievals-exhausted"


def test_a_range_spends_nothing(curl, files):
    path = files(3 * MEGABYTE)
    reference = put(curl, path, "?retrievals=1&ttl=30s")
    assert curl.api("/v1/payload", "-H", reference, "-r", "1000000-1000009") == 206
    assert curl.body == path.read_bytes()[1_000_000:1_000_010]
    assert curl.headers["content-range"] == "bytes 1000000-1000009/3000000"
    assert curl.api("/v1/payload", "-H", reference) == 200
    assert curl.body == path.read_bytes()


def test_what_was_deleted_is_gone(curl, files):
    reference = put(curl, files(3 * MEGABYTE), "?retrievals=unlimited")
    assert curl.api("/v1/payload", "-H", reference, "-X", "DELETE") == 204
    assert curl.api("/v1/payload", "-H", reference) == 424
    assert curl.headers["zipline-error"] == "payload-lost"


def test_invoke_by_path(curl, files):
    path = files(50 * MEGABYTE)
    assert curl.api("/v1/invoke/echo.default/", *body(path)) == 200
    assert curl.body.decode().strip() == digest(path.read_bytes())


def test_invoke_by_proxy(curl, files):
    path = files(50 * MEGABYTE)
    assert curl(*body(path), matrix.ECHO) == 200
    assert curl.body.decode().strip() == digest(path.read_bytes())


def test_a_plain_upstream_by_proxy(curl, files, upstream):
    path = files(50 * MEGABYTE)
    assert curl("--noproxy", "", *body(path), f"http://{upstream}/") == 200
    assert curl.body.decode().strip() == digest(path.read_bytes())


def test_large_answers_come_back(curl, files, upstream):
    path = files(20 * MEGABYTE)
    ways = [
        lambda: curl.api("/v1/invoke/echo.default/?back=1", *body(path)),
        lambda: curl(*body(path), f"{matrix.ECHO}?back=1"),
        lambda: curl("--noproxy", "", *body(path), f"http://{upstream}/?back=1"),
    ]
    for way in ways:
        assert way() == 200
        assert curl.body == path.read_bytes()
        assert curl.headers["digest"] == digest(curl.body)


def test_large_bodies_and_answers_do_not_cross_the_gateway(curl, files, zipline):
    path = files(50 * MEGABYTE)
    before = zipline.gateway_bytes()
    assert curl(*body(path), f"{matrix.ECHO}?back=1") == 200
    after = zipline.gateway_bytes()
    assert curl.body == path.read_bytes()
    assert sum(after.values()) - sum(before.values()) < 65_536


def test_the_local_api_wants_its_token(curl, guest):
    assert curl(guest["ZIPLINE_API"] + "/openapi.yaml") == 401
    assert curl.headers["zipline-error"] == "token-missing"
    assert curl.api("/openapi.yaml") == 200
    assert b"/v1/payloads" in curl.body
