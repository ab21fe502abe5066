"""Each stable code of docs/protocol.md has a class, and an answer with that code raises it."""

import json
import pickle
import re
from pathlib import Path

import pytest
from conftest import respond

import zipline_sdk
from zipline_sdk import Error, Reference, StatusError, errors

PROTOCOL = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
# Never shown to functions.
BETWEEN_QUEUE_PROXIES = {"resend-inline"}


def codes():
    section = PROTOCOL.read_text().split("\n## 7. Errors", 1)[1].split("\n## ", 1)[0]
    found = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+|never)", section, re.MULTILINE))
    assert len(found) >= 15
    return {code: int(status) for code, status in found.items() if code not in BETWEEN_QUEUE_PROXIES}


@pytest.mark.parametrize(("code", "status"), codes().items())
def test_an_answer_with_a_code_raises_its_class(fake, code, status):
    problem = {"type": f"urn:zipline:error:{code}", "title": "t", "status": status, "detail": "what happened"}
    proxy = fake(lambda link, file, head: respond(link, status, json.dumps(problem).encode(), Zipline_Error=code))
    expected = "".join(word.title() for word in code.split("-")) + "Error"
    reference = Reference("zl1.abc", put_at="app.py:7 in main")
    with proxy.client() as client, pytest.raises(Error) as caught:
        client.get(reference)
    error = caught.value
    assert type(error).__name__ == expected and getattr(zipline_sdk, expected) is type(error)
    assert error.code == code and error.detail == "what happened" and error.put_at == "app.py:7 in main"
    assert str(error).startswith(f"{code}: what happened\n  The payload was put at app.py:7 in main.")
    assert "abc" not in str(error)


def test_there_is_no_class_without_a_code_of_the_protocol():
    assert set(errors.BY_CODE) == set(codes())


def test_a_code_of_a_later_version(fake):
    proxy = fake(lambda link, file, head: respond(link, 418, b"{}", Zipline_Error="new-code"))
    with proxy.client() as client, pytest.raises(Error, match="new-code: status 418") as caught:
        client.put(b"x")
    assert type(caught.value) is Error


def test_a_deadline_is_a_timeout_to_python():
    assert issubclass(zipline_sdk.DeadlineExceededError, TimeoutError)
    assert issubclass(zipline_sdk.FormatError, ValueError)


@pytest.mark.parametrize("kind", [*errors.BY_CODE.values(), errors.NotConnectedError, errors.UntrustedError])
def test_errors_survive_a_process_pool(kind):
    error = kind("detail", reference=Reference("zl1.abc", put_at="a.py:1"))
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is kind and str(other) == str(error) and other.reference == error.reference


def test_a_status_survives_too():
    other = pickle.loads(pickle.dumps(StatusError("d", status=404)))
    assert other.status == 404 and str(other) == "d"
