"""Answers the length and the SHA-256 of what it is sent. The request is an ordinary one, however its body travelled."""

import hashlib
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = 1 << 20


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = self.headers.get("Content-Length")
        if length is None:
            self.close_connection = True
            return self.answer(411, {"error": "the length of the body must be known"})
        left, digest = int(length), hashlib.sha256()
        while left:
            chunk = self.rfile.read(min(left, CHUNK))
            if not chunk:
                # The sender broke off: there is nobody to answer.
                self.close_connection = True
                return None
            digest.update(chunk)
            left -= len(chunk)
        return self.answer(200, {"bytes": int(length), "sha256": digest.hexdigest()})

    def answer(self, status, content):
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Receiver).serve_forever()
