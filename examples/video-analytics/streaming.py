"""The camera's end: sends the latest fragment of video to the decoder and answers with what was seen in it."""

import os
from pathlib import Path

import requests
from flask import Flask, request
from waitress import serve

DECODER = "http://decoder.default.svc.cluster.local/"
VIDEO = Path(os.environ["VIDEO"])

app = Flask(__name__)


@app.post("/")
def stream():
    frames = request.args.get("frames", default=6, type=int)
    answer = requests.post(
        DECODER,
        params={"frames": frames},
        data=VIDEO.read_bytes(),
        headers={"Content-Type": "video/mp4"},
        timeout=120,
    )
    return answer.content, answer.status_code, {"Content-Type": answer.headers.get("Content-Type", "text/plain")}


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(os.environ["PORT"]), threads=4)
