"""Scatters an image to functions and gathers their histograms; prints what came out, as JSON.

zipline run -- python driver.py            # functions of the engine
python driver.py --local                   # the same code in this process, without an engine
"""

import argparse
import itertools
import json

import histogram
import numpy
import zipline_sdk
from zipline_sdk import Client


def count(client, image, parts):
    """The histogram of an image, `parts` of it counted by as many invokes."""
    # Held once in this instance's memory, and retrieved from there by every function.
    buffer = client.create_array(image.shape, image.dtype)
    buffer.array[:] = image
    reference = client.put(buffer, retrievals=parts)

    edges = numpy.linspace(0, len(image), parts + 1).astype(int).tolist()
    tasks = [
        json.dumps({"image": str(reference), "first": first, "last": last}).encode()
        for first, last in itertools.pairwise(edges)
    ]
    answers = [
        response.raise_for_status().json()["counts"]
        for response in client.map("histogram", tasks, concurrency=4, content_type="application/json")
    ]

    # In any order, as they arrive from the memory of the functions that put them.
    total = numpy.zeros(256, dtype=int)
    for _, payload in client.get_many(answers):
        total += zipline_sdk.load(payload)
    return total


def local_client():
    """A client whose function is called in this process."""

    def function(request):
        answer = histogram.histogram(client, json.loads(bytes(request.payload)))
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    client = Client.local(functions={"histogram": function})
    return client


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--parts", type=int, default=8)
    arguments = parser.parse_args()

    image = numpy.random.default_rng(7).integers(0, 256, (2160, 3840), dtype="u1")
    with local_client() if arguments.local else Client(timeout=60) as client:
        total = count(client, image, arguments.parts)
        right = bool((total == numpy.bincount(image.ravel(), minlength=256)).all())
        print(
            json.dumps(
                {
                    "pixels": int(total.sum()),
                    "right": right,
                    "transport": client.transport,
                }
            )
        )


if __name__ == "__main__":
    main()
