"""Runs one binary the way a cluster does, in network and mount namespaces that the caller made, and prints what it saw.

The binary's root is read-only and holds nothing else but /etc/resolv.conf and /etc/hosts, as a kubelet mounts them, and three of the
devices that every container has. Ports are the fixed ones of Knative: nobody else is in these namespaces.
"""

from __future__ import annotations

import fcntl
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

UID = 123456
NAME = "hello.default.svc.cluster.local."
GREETING = b"hello from the function"
POD = {
    "CONTAINER_CONCURRENCY": "0",
    "QUEUE_SERVING_PORT": "8012",
    "QUEUE_SERVING_TLS_PORT": "8112",
    "USER_PORT": "8080",
    "REVISION_TIMEOUT_SECONDS": "300",
    "SERVING_LOGGING_CONFIG": "",
    "SERVING_LOGGING_LEVEL": "info",
    "SERVING_NAMESPACE": "default",
    "SERVING_SERVICE": "hello",
    "SERVING_CONFIGURATION": "hello",
    "SERVING_REVISION": "hello-00001",
    "SERVING_POD": "hello-00001-abc",
    "SERVING_POD_IP": "127.0.0.1",
    "SERVING_READINESS_PROBE": '{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}',
    "OBSERVABILITY_CONFIG": "{}",
}


def main() -> None:
    name, root = sys.argv[1], Path(sys.argv[2])
    loopback_up()
    mount_root(root)
    asked: list[str] = []
    serve_names(asked)
    serve_function()
    # The new root is entered as root, and every privilege is gone before the first instruction of the binary.
    # (Whole paths, since the environment is the pod's.)
    setpriv, chroot = shutil.which("setpriv"), shutil.which("chroot")
    command = [setpriv, "--no-new-privs", chroot, f"--userspec={UID}:{UID}", "--groups=", str(root), f"/{name}"]
    child = subprocess.Popen(
        command, env=POD if name == "zipline-queue-proxy" else {}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seen = look(child, root) if name == "zipline-queue-proxy" else {}
    try:
        log, _ = child.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        log, _ = child.communicate()
    print(json.dumps(seen | {"asked": asked, "exit": child.returncode, "log": log}))


def look(child: subprocess.Popen[str], root: Path) -> dict[str, object]:
    try:
        probe = wait_until_ready(child)
        if child.poll() is not None:
            return {"probe": probe}
        mounts = [line.split() for line in Path(f"/proc/{child.pid}/mountinfo").read_text().splitlines()]
        return {
            "probe": probe,
            "status": status(child.pid),
            "root": {
                "files": sorted(path.name for path in Path(f"/proc/{child.pid}/root").iterdir()),
                # mountinfo counts from the process' root.
                "read_only": all("ro" in fields[5].split(",") for fields in mounts if fields[4] == "/"),
            },
            "request": ask(8012, "/", {"Host": "hello.default"}),
            "by_name": ask(8030, "http://hello.default.svc/", {"Host": "hello.default.svc"} | PROXY),
        }
    finally:
        child.send_signal(signal.SIGTERM)


# zipline:pod
PROXY = {"Proxy-Authorization": "Basic emlwbGluZTpwb2Q="}


def wait_until_ready(child: subprocess.Popen[str]) -> list[object]:
    """The kubelet's probe, repeated as a kubelet repeats it."""
    headers = {"User-Agent": "kube-probe/1.34", "K-Network-Probe": "queue"}
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = ask(8012, "/", headers)
            if answer[0] == 200 or time.monotonic() > deadline:
                return answer
        except OSError:
            if child.poll() is not None or time.monotonic() > deadline:
                return [0, "no answer"]
        time.sleep(0.05)


def ask(port: int, target: str, headers: dict[str, str]) -> list[object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", target, headers=headers)
    response = connection.getresponse()
    return [response.status, response.read().decode()]


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
    # All of real, effective, saved and file-system ids.
    return {key: "/".join(sorted(set(fields[key]))) for key in ("Uid", "Gid", "CapEff", "NoNewPrivs")}


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0x1)
        fcntl.ioctl(control, 0x8914, request)


def mount_root(root: Path) -> None:
    etc = root / "etc"
    etc.mkdir()
    search = "search default.svc.cluster.local svc.cluster.local cluster.local\n"
    (etc / "resolv.conf").write_text(search + "nameserver 127.0.0.1\noptions ndots:5\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    devices = [Path("dev", name) for name in ("null", "random", "urandom")]
    (root / "dev").mkdir()
    for device in devices:
        (root / device).touch()
    for options in (["--bind", str(root), str(root)], ["-o", "remount,bind,ro", str(root)]):
        subprocess.run(["mount", *options], check=True)
    for device in devices:
        subprocess.run(["mount", "--bind", f"/{device}", str(root / device)], check=True)


def serve_names(asked: list[str]) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def run() -> None:
        while True:
            query, peer = server.recvfrom(512)
            name, at = "", 12
            while query[at]:
                name += query[at + 1 : at + 1 + query[at]].decode().lower() + "."
                at += 1 + query[at]
            is_a = query[at + 1 : at + 3] == b"\0\1"
            asked.append(name)
            known, found = name == NAME, name == NAME and is_a
            head = query[:2] + bytes([0x81, 0x80 if known else 0x83, 0, 1, 0, int(found), 0, 0, 0, 0])
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\x04\x7f\0\0\1" if found else b""
            server.sendto(head + query[12 : at + 5] + answer, peer)

    threading.Thread(target=run, daemon=True).start()


def serve_function() -> None:
    class Function(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(GREETING)))
            self.end_headers()
            self.wfile.write(GREETING)

        def log_message(self, *_: object) -> None:
            pass

    # The function itself, and the same as its Service's address.
    for port in (8080, 80):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Function)
        threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    os.umask(0o022)
    main()
