"""Every client of docs/clients.md, from a function and under `zipline run`: it reaches a function by plain URL, and its payload
goes from memory to memory. Those said not to obey http_proxy are seen not to."""

import json
import subprocess
from pathlib import Path

import requests

import matrix

# What the gateway may see of one deferred request: a reference and the two heads.
GATEWAY_BYTES = 65_536


class Watch:
    """What one call moved: payload bytes that reached the service deferred, and bytes that crossed the gateway."""

    def __init__(self, zipline, service):
        self.zipline, self.service = zipline, service

    def __enter__(self):
        self.payloads, self.bytes = self.zipline.received_deferred(self.service)
        self.gateway = self.zipline.gateway_bytes()
        return self

    def __exit__(self, *_):
        payloads, size = self.zipline.received_deferred(self.service)
        gateway = self.zipline.gateway_bytes()
        self.payloads, self.bytes = payloads - self.payloads, size - self.bytes
        self.gateway = sum(gateway.values()) - sum(self.gateway.values())


def as_a_function(zipline, command):
    """Runs the command in the environment of the function `caller`."""
    answer = requests.post(
        f"http://{zipline.gateway}/",
        json=command,
        headers={"Host": "caller.default.localhost"},
        timeout=90,
    )
    assert answer.status_code == 200, answer.text
    done = answer.json()
    return subprocess.CompletedProcess(command, done["status"], done["stdout"], done["stderr"])


def under_zipline_run(zipline, command):
    """Runs the command by `zipline run --`."""
    return zipline.command("run", "--", *command)


def check(client, done, watch, body):
    assert done.returncode == 0, done.stderr
    if client.name == "curl":
        assert done.stdout.strip() == body
    else:
        assert json.loads(done.stdout)["right"]
    assert watch.payloads == 1
    # A gRPC message carries a few bytes around its value.
    assert client.payload_bytes <= watch.bytes < client.payload_bytes + 64
    assert watch.gateway < GATEWAY_BYTES


def test_from_a_function(zipline, reaching, body):
    with Watch(zipline, reaching.service) as watch:
        done = as_a_function(zipline, reaching.command)
    check(reaching, done, watch, body)


def test_under_zipline_run(zipline, reaching, body):
    with Watch(zipline, reaching.service) as watch:
        done = under_zipline_run(zipline, reaching.command)
    check(reaching, done, watch, body)


def test_does_not_obey_as_it_comes(zipline, not_reaching):
    with Watch(zipline, not_reaching.service) as watch:
        done = as_a_function(zipline, not_reaching.command)
    assert done.returncode != 0
    assert watch.payloads == 0


def test_grpc_streams_both_ways(zipline):
    command = matrix.python("grpc_bidirectional") + [matrix.SUMS]
    done = as_a_function(zipline, command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"status": "OK", "right": True}
    done = under_zipline_run(zipline, command)
    assert done.returncode == 0, done.stderr


def test_the_document_names_every_client(reaching):
    assert f"| {reaching.name} |" in document()


def test_the_document_names_those_that_do_not_obey(not_reaching):
    assert f"| {not_reaching.name} |" in document()


def document():
    return (Path(matrix.ROOT) / "docs" / "clients.md").read_text()
