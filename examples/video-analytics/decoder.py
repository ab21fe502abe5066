"""Decodes the first frames of an MP4, has each recognised, and gathers the labels in the order of the frames."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import cv2
import requests
from flask import Flask, request
from waitress import serve

RECOG = "http://recog.default.svc.cluster.local/"
SENDS_AT_ONCE = 8

app = Flask(__name__)


@app.post("/")
def decode():
    frames = request.args.get("frames", default=6, type=int)
    with tempfile.NamedTemporaryFile(suffix=".mp4") as fragment:
        fragment.write(request.get_data())
        fragment.flush()
        with ThreadPoolExecutor(SENDS_AT_ONCE) as senders:
            labels = list(senders.map(recognise, pictures(fragment.name, frames)))
    if not labels:
        return "no frame of this body could be decoded\n", 400
    return {"frames": labels}


def pictures(path, frames):
    """Yields the first frames of a video as JPEG."""
    video = cv2.VideoCapture(path)
    for _ in range(frames):
        there, picture = video.read()
        if not there:
            break
        _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        yield jpeg.tobytes()
    video.release()


def recognise(jpeg):
    answer = requests.post(RECOG, data=jpeg, headers={"Content-Type": "image/jpeg"}, timeout=60)
    answer.raise_for_status()
    return answer.json()["labels"]


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(os.environ["PORT"]), threads=4)
