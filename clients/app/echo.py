"""Answers the SHA-256 of what it got; with ?back=1 the body itself, too."""

import hashlib
import os

from flask import Flask, request
from waitress import serve

app = Flask(__name__)


@app.post("/")
def echo():
    body = request.get_data()
    digest = hashlib.sha256(body).hexdigest()
    if request.args.get("back"):
        return body, 200, {"Content-Type": "application/octet-stream", "Digest": digest}
    return digest + "\n", 200, {"Content-Type": "text/plain"}


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(os.environ["PORT"]), threads=4)
