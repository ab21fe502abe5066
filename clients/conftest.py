import hashlib
import os
import random
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "scripts")]

import engine  # noqa: E402
import matrix  # noqa: E402

# curl sends this file; any user may read it, since functions may run under UIDs of their own.
BODY = ROOT / "build" / "clients" / "body.bin"
REACHING, NOT_REACHING = matrix.clients(BODY)


def pytest_generate_tests(metafunc):
    for name, values in (("reaching", REACHING), ("not_reaching", NOT_REACHING)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=str)


@pytest.fixture(scope="session")
def body():
    """The SHA-256 of what curl sends."""
    content = random.Random(2).randbytes(matrix.HTTP_BYTES)
    BODY.parent.mkdir(parents=True, exist_ok=True)
    BODY.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="session")
def zipline(tmp_path_factory):
    """An engine that runs the matrix's functions."""
    # CLIENTS_ZIPLINE names another binary than that of `make build`.
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    binary = Path(os.environ.get("CLIENTS_ZIPLINE", ROOT / "target" / "debug" / "zipline"))
    with engine.Engine(binary, [HERE / "app" / "services.yaml"], mode="on", log=log) as running:
        running.wait_until_ready()
        yield running
