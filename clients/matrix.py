"""Which clients there are, how each is run, and whether it obeys http_proxy as it comes."""

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHON = str(ROOT / ".venv" / "bin" / "python")
NODE = str(ROOT / "build" / "node" / "node_modules" / ".bin" / "node")
BUILT = ROOT / "build" / "clients"

ECHO = "http://echo.default.svc.cluster.local/"
SUMS = "sums.default.svc.cluster.local:80"
HTTP_BYTES = 1_000_000
GRPC_BYTES = 8_000_000


@dataclass(frozen=True)
class Client:
    """One way to send a payload. `name` is also its row in docs/clients.md."""

    name: str
    command: list = field(hash=False)
    target: str = ECHO

    @property
    def service(self):
        return self.target.removeprefix("http://").split(".")[0]

    @property
    def payload_bytes(self):
        return GRPC_BYTES if self.target == SUMS else HTTP_BYTES

    def __str__(self):
        return self.name


def python(script):
    return [PYTHON, str(HERE / "python" / f"{script}.py")]


def curl(body):
    return ["curl", "-sS", "--fail-with-body", "-H", "Content-Type: application/octet-stream", "--data-binary", f"@{body}", ECHO]


def clients(body):
    """(those that reach a function, those that do not as they come); curl sends the file `body`."""
    node = [NODE, str(HERE / "node" / "fetch.mjs"), ECHO]
    reaching = [
        Client("curl", curl(body)),
        Client("Python requests", python("requests_post") + [ECHO]),
        Client("Python httpx", python("httpx_post") + [ECHO]),
        Client("Python urllib.request", python("urllib_post") + [ECHO]),
        Client("Python urllib3 ProxyManager", python("urllib3_proxy") + [ECHO]),
        Client("Python aiohttp trust_env", python("aiohttp_proxy") + [ECHO]),
        Client("Python grpcio", python("grpc_unary") + [SUMS], SUMS),
        Client("Go net/http", [str(BUILT / "nethttp"), ECHO]),
        Client("Go grpc HTTPS_PROXY", [str(BUILT / "grpc"), "-proxy", SUMS], SUMS),
        Client("Node 24 fetch NODE_USE_ENV_PROXY", ["env", "NODE_USE_ENV_PROXY=1", *node]),
    ]
    not_reaching = [
        Client("Python urllib3", python("urllib3_plain") + [ECHO]),
        Client("Python aiohttp", python("aiohttp_plain") + [ECHO]),
        Client("Go grpc", [str(BUILT / "grpc"), SUMS], SUMS),
        Client("Node 24 fetch", node),
    ]
    return reaching, not_reaching
