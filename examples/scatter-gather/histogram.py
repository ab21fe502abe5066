"""The function: a histogram of some rows of an image that somebody else holds."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy
import zipline_sdk


def histogram(client, task):
    """Reads the image by its reference, and answers with a reference of what it counted."""
    image = client.get_object(task["image"])
    counts = numpy.bincount(image[task["first"] : task["last"]].ravel(), minlength=256)
    return {"counts": str(client.put_object(counts))}


class Handler(BaseHTTPRequestHandler):
    """What any HTTP framework does: JSON in, JSON out. References are text."""

    protocol_version = "HTTP/1.1"
    client = None

    def do_POST(self):
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(histogram(self.client, task)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    Handler.client = zipline_sdk.Client(timeout=30)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
