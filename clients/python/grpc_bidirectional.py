"""A stream both ways by grpcio: each message is sent only after the answer to the one before it has come."""

import hashlib
import json
import queue
import random
import sys

import grpc
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

SIZES = [10, 100_000, 1, 1_000_000, 50, 3_000_000]

with grpc.insecure_channel(sys.argv[1]) as channel:
    call = channel.stream_stream(
        "/zipline.clients.Sums/Running",
        request_serializer=BytesValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    outgoing = queue.Queue()
    answers = call(iter(outgoing.get, None), timeout=30)
    total = hashlib.sha256()
    right = True
    for size in SIZES:
        message = random.Random(size).randbytes(size)
        total.update(message)
        outgoing.put(BytesValue(value=message))
        right &= next(answers).value == total.hexdigest()
    outgoing.put(None)
    right &= next(answers, None) is None
    trailers = dict(answers.trailing_metadata())

right &= trailers.get("messages") == str(len(SIZES))
print(json.dumps({"status": answers.code().name, "right": right}))
sys.exit(0 if right else 1)
