"""The application by itself, behind an ordinary forward proxy: it must not need Zipline, only be served by it."""

import http.client
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

import scene

HERE = Path(__file__).resolve().parent.parent


class Proxy(BaseHTTPRequestHandler):
    """Sends http://NAME.default.svc.cluster.local/ to the port where NAME listens."""

    protocol_version = "HTTP/1.1"
    ports = {}

    def do_POST(self):
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        function = http.client.HTTPConnection("127.0.0.1", self.ports[url.hostname.split(".")[0]])
        function.request("POST", f"{url.path}?{url.query}", body, {"Content-Type": self.headers["Content-Type"]})
        answer = function.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        function.close()

    def log_message(self, *_):
        pass


def wait_until_listening(process, port):
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.05)
    pytest.fail(f"{process.args} ended with status {process.returncode}")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    video = tmp_path_factory.mktemp("video") / "fragment.mp4"
    played = scene.Scene(3)
    scene.encode(played, video, frames=10)

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    functions = []
    for name in ("streaming", "decoder", "recog"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            Proxy.ports[name] = free.getsockname()[1]
        environment = dict(os.environ, PORT=str(Proxy.ports[name]), VIDEO=str(video))
        environment.update(http_proxy=f"http://127.0.0.1:{proxy.server_port}", no_proxy="127.0.0.1")
        functions.append(subprocess.Popen([sys.executable, f"{name}.py"], cwd=HERE, env=environment))
        wait_until_listening(functions[-1], Proxy.ports[name])
    yield played
    for function in functions:
        function.terminate()
        function.wait()
    proxy.shutdown()


def post(name, **arguments):
    with requests.Session() as session:
        session.trust_env = False
        return session.post(f"http://127.0.0.1:{Proxy.ports[name]}/", timeout=60, **arguments)


def test_labels_come_back_in_order_and_right(app):
    answer = post("streaming", params={"frames": 10})
    assert answer.status_code == 200
    assert answer.json()["frames"] == [app.truth(number) for number in range(10)]


def test_asking_for_more_frames_than_there_are_gives_those_there_are(app):
    assert len(post("streaming", params={"frames": 99}).json()["frames"]) == 10


@pytest.mark.parametrize("name", ["decoder", "recog"])
def test_a_body_of_the_wrong_kind_is_refused(app, name):
    assert post(name, data=b"no picture, no video").status_code == 400
