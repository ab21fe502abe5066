"""Recognises the objects in one JPEG frame and answers with their labels."""

import os

import cv2
import numpy as np
from flask import Flask, request
from waitress import serve

import vision

app = Flask(__name__)


@app.post("/")
def recognise():
    picture = cv2.imdecode(np.frombuffer(request.get_data(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        return "the body is no picture\n", 400
    return {"labels": vision.labels(picture)}


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(os.environ["PORT"]), threads=1)
