"""A function that uses the SDK: what it does stands in the path."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import zipline_sdk

client = zipline_sdk.Client(timeout=30)


def echo(body, content_type):
    return 200, content_type or "application/octet-stream", body


def double(body, content_type):
    """Doubles an array that came as the request's body."""
    doubled = zipline_sdk.dump(zipline_sdk.load(body, content_type) * 2)
    return 200, doubled.content_type, doubled


def total(body, content_type):
    """Adds up an array that a reference names, from the memory of whoever put it."""
    array = client.get_object(body.decode())
    return 200, "application/json", json.dumps({"sum": float(array.sum()), "mean": float(array.mean())}).encode()


def produce(body, content_type):
    """Puts a payload of as many bytes and answers its reference."""
    buffer = client.create(int(body))
    buffer.view[:] = b"z" * len(buffer)
    return 200, "text/plain", str(client.put(buffer, retrievals=2)).encode()


def refuse(body, content_type):
    return 422, "text/plain", b"no such picture"


WORK = {"/": echo, "/double": double, "/total": total, "/produce": produce, "/refuse": refuse}


class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.body()
        status, content_type, answer = WORK[self.path.partition("?")[0]](body, self.headers["Content-Type"])
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("X-Query", self.path.partition("?")[2])
        self.end_headers()
        self.wfile.write(answer)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Worker).serve_forever()
