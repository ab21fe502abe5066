"""A gRPC server without generated code: Sum answers one message's SHA-256, Running one for each message of a stream."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.wrappers_pb2 import BytesValue, StringValue


def sum_of(message, context):
    digest = hashlib.sha256(message.value).hexdigest()
    context.set_trailing_metadata((("length", str(len(message.value))), ("digest-bin", bytes.fromhex(digest))))
    return StringValue(value=digest)


def running(messages, context):
    total = hashlib.sha256()
    count = 0
    for message in messages:
        total.update(message.value)
        count += 1
        yield StringValue(value=total.hexdigest())
    context.set_trailing_metadata((("messages", str(count)),))


def serve():
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 64 << 20)])
    coding = {"request_deserializer": BytesValue.FromString, "response_serializer": StringValue.SerializeToString}
    methods = {
        "Sum": grpc.unary_unary_rpc_method_handler(sum_of, **coding),
        "Running": grpc.stream_stream_rpc_method_handler(running, **coding),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("zipline.clients.Sums", methods)])
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve()
