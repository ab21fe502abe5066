import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from fake_socket import FakeSocket

from zipline_sdk import Client, LocalPlatform, TransportWarning

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import engine as engines  # noqa: E402

# The programs of the wheel that these tests run in.
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """An engine that runs the functions of `app`, started by the program in the wheel."""
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    os.environ["PATH"] = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    with engines.Engine(PROGRAMS / "zipline", [HERE / "app" / "services.yaml"], log=log) as running:
        running.wait_until_ready()
        yield running


@contextlib.contextmanager
def guest(engine):
    """The variables of a process under `zipline run`: a queue-proxy of its own."""
    command = ["run", "--", sys.executable, str(HERE / "app" / "guest.py")]
    process = engine.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


@pytest.fixture(scope="session")
def sender_environment(engine):
    with guest(engine) as environment:
        yield environment


@pytest.fixture(scope="session")
def receiver_environment(engine):
    with guest(engine) as environment:
        yield environment


def client_of(environment, make=Client, **others):
    return make(socket=environment["ZIPLINE_SOCKET"], token=environment["ZIPLINE_TOKEN"], timeout=60, **others)


@pytest.fixture(params=["local", "engine"])
def pair(request):
    """Sender and receiver: within this process, and with queue-proxies of their own."""
    with contextlib.ExitStack() as stack:
        if request.param == "local":
            platform = LocalPlatform()
            clients = [Client.local(platform=platform) for _ in range(2)]
        else:
            names = ("sender_environment", "receiver_environment")
            clients = [client_of(request.getfixturevalue(name)) for name in names]
        yield [stack.enter_context(client) for client in clients]


class FakeProxy:
    """A Unix socket where a test says byte for byte what is answered.

    `answer(link, file, head)` is called for each request, with a reader of its body; True: the connection goes on.
    """

    def __init__(self, path, answer):
        self.path, self.answer = str(path), answer
        self.connections = 0
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(16)
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(link,), daemon=True).start()

    def serve(self, link):
        with link, contextlib.suppress(OSError):
            if link.recv(1, socket.MSG_PEEK) == b"\0":
                # As a queue-proxy that does not speak the SDK's own protocol.
                return
            file = link.makefile("rb")
            self.connections += 1
            going = True
            while going:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = file.readline()
                    if not line:
                        return
                    head += line
                going = self.answer(link, file, head.decode())

    def client(self, make=Client, **others):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransportWarning)
            return make(socket=self.path, token="t" * 32, **others)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def fake(tmp_path):
    """Makes a `FakeProxy` of an answer."""
    with contextlib.ExitStack() as stack:

        def make(answer):
            return stack.enter_context(contextlib.closing(FakeProxy(tmp_path / "proxy.sock", answer)))

        yield make


@pytest.fixture
def fake_socket(tmp_path):
    """Makes a `FakeSocket` of an answer."""
    with contextlib.ExitStack() as stack:

        def make(answer):
            return stack.enter_context(contextlib.closing(FakeSocket(tmp_path / "proxy.sock", answer)))

        yield make


def respond(link, status, body=b"", **headers):
    """Sends one response; underscores in names stand for dashes."""
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    link.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return True
