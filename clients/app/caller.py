"""Runs the command it is sent (a JSON list) in its own environment, as a function that uses that client would."""

import os
import subprocess

from flask import Flask, request
from waitress import serve

app = Flask(__name__)


@app.post("/")
def call():
    done = subprocess.run(request.get_json(), capture_output=True, text=True, timeout=60)
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(os.environ["PORT"]), threads=4)
