"""One 8 MB message by grpcio, and what came back in the trailers."""

import hashlib
import json
import random
import sys

import grpc
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

BODY = random.Random(1).randbytes(8_000_000)

with grpc.insecure_channel(sys.argv[1]) as channel:
    call = channel.unary_unary(
        "/zipline.clients.Sums/Sum",
        request_serializer=BytesValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    answer, state = call.with_call(BytesValue(value=BODY), timeout=30)

trailers = dict(state.trailing_metadata())
digest = hashlib.sha256(BODY)
right = answer.value == digest.hexdigest()
right &= trailers.get("length") == str(len(BODY)) and trailers.get("digest-bin") == digest.digest()
print(json.dumps({"status": state.code().name, "right": right}))
sys.exit(0 if right else 1)
