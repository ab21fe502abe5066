"""Makes a payload and posts it to the receiver by its plain URL. Nothing here knows of Zipline: urllib obeys http_proxy."""

import hashlib
import json
import os
import random
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RECEIVER = "http://receiver.default.svc.cluster.local/"
MEGABYTES_MAX = 100


class Sender(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        try:
            megabytes = int(query.get("megabytes", ["10"])[0])
            if not 0 <= megabytes <= MEGABYTES_MAX:
                raise ValueError
        except ValueError:
            return self.answer(400, {"error": f"megabytes must be a whole number from 0 to {MEGABYTES_MAX}"})

        payload = random.randbytes(1_000_000) * megabytes
        request = urllib.request.Request(RECEIVER, data=payload, headers={"Content-Type": "application/octet-stream"})
        with urllib.request.urlopen(request, timeout=60) as response:
            received = json.load(response)
        right = received["sha256"] == hashlib.sha256(payload).hexdigest()
        self.answer(200, {"sent_bytes": len(payload), "received": received, "right": right})

    def answer(self, status, content):
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Sender).serve_forever()
