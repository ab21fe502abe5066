"""What every Python client of the matrix sends, and how it tells the outcome."""

import hashlib
import json
import random
import sys

URL = sys.argv[1]
BODY = random.Random(1).randbytes(1_000_000)


def report(status, answer):
    """Prints one line of JSON; the status of the process says whether the answer is right."""
    if isinstance(answer, bytes):
        answer = answer.decode()
    right = answer.strip() == hashlib.sha256(BODY).hexdigest()
    print(json.dumps({"status": status, "right": right}))
    sys.exit(0 if right else 1)
