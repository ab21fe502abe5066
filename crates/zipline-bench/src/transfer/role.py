"""One function of a transfer in Python; speaks what role/mod.rs describes. Its argument names the system."""

import base64
import json
import signal
import socket
import sys
import time

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)
MASK = (1 << 64) - 1


def words(seed, giver, payload, count):
    mixed = ((seed ^ (giver << 40) ^ (payload << 20)) * 0xD6E8FEB86659FD93) & MASK
    mixed ^= mixed >> 32
    with np.errstate(over="ignore"):
        return np.arange(count, dtype=np.uint64) * STEP + np.uint64(mixed)


def write(memory, seed, giver, payload):
    """Fills an array of bytes; sizes are multiples of 8 in everything that Python measures."""
    memory.view(np.uint64)[:] = words(seed, giver, payload, memory.nbytes // 8)


def verify(memory, seed, giver, payload, size):
    array = np.frombuffer(memory, dtype=np.uint64)
    if array.nbytes != size or not np.array_equal(array, words(seed, giver, payload, size // 8)):
        raise SystemExit(f"payload {payload} of giver {giver} arrived damaged")


class Arrays:
    """What is given out of this process's own memory, written anew for each run."""

    arrays = ()

    def write(self, payloads, size, fill):
        if len(self.arrays) != payloads or self.arrays[0].nbytes != size:
            self.arrays = [np.ones(size, dtype=np.uint8) for _ in range(payloads)]
        for payload, array in enumerate(self.arrays):
            fill(array, payload)

    def release(self):
        self.arrays = ()


class Redis(Arrays):
    def __init__(self, means, index):
        import redis

        (kind, at), = means["redis"]["at"].items()
        if kind == "unix":
            self.client = redis.Redis(unix_socket_path=at)
        else:
            host, port = at.rsplit(":", 1)
            self.client = redis.Redis(host=host, port=int(port))
        self.client.ping()
        self.index = index

    def give(self, payload, takers):
        key = f"{self.index}-{payload}"
        self.client.set(key, self.arrays[payload].data)
        return key

    def take(self, text):
        return self.client.get(text)

    def forget_given(self):
        for payload in range(len(self.arrays)):
            self.client.delete(f"{self.index}-{payload}")


class Ray(Arrays):
    """Giver and taker are programs of their own, as functions are; a reference travels as text."""

    def __init__(self, means, index):
        import ray
        import ray.cloudpickle
        from ray._private.worker import global_worker

        self.ray = ray
        ray.init(address=means["ray"]["at"], log_to_driver=False, configure_logging=False)
        # Its own handler prints a trace of an ordinary end.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.let_go = global_worker.core_worker.remove_object_ref_reference
        self.references = []

    def give(self, payload, takers):
        reference = self.ray.put(self.arrays[payload])
        self.references.append(reference)
        return base64.b64encode(self.ray.cloudpickle.dumps(reference)).decode()

    def take(self, text):
        return self.ray.get(self.ray.cloudpickle.loads(base64.b64decode(text)))

    def forget_given(self):
        # Of what is passed on as text Ray keeps one reference more, for ever: takers it knows nothing of may have it.
        for reference in self.references:
            self.let_go(reference)
        self.references = []


class Zipline:
    def __init__(self, means, index):
        import zipline_sdk

        zipline = means["zipline"]
        self.client = zipline_sdk.Client(socket=zipline["socket"], token=zipline["token"])
        self.in_place = zipline["put"] == "in-place"
        self.arrays = []
        self.buffers = []

    def write(self, payloads, size, fill):
        if self.in_place:
            self.buffers = [self.client.create(size) for _ in range(payloads)]
            for payload, buffer in enumerate(self.buffers):
                fill(np.frombuffer(buffer, dtype=np.uint8), payload)
            return
        if len(self.arrays) != payloads or self.arrays[0].nbytes != size:
            self.arrays = [np.ones(size, dtype=np.uint8) for _ in range(payloads)]
        for payload, array in enumerate(self.arrays):
            fill(array, payload)

    def give(self, payload, takers):
        given = self.buffers[payload] if self.in_place else self.arrays[payload]
        return str(self.client.put(given, retrievals=takers))

    def take(self, text):
        return np.frombuffer(self.client.get(text), dtype=np.uint8)

    def forget_given(self):
        self.buffers = []

    def release(self):
        self.arrays = []
        self.buffers = []


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def give(system, assignment):
    desk = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    index, folder = assignment["index"], assignment["desk"]
    addressees = []
    say("done")
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, dict) and "write" in order:
            told = order["write"]
            addressees = told["payloads"]
            fill = lambda memory, payload: write(memory, told["seed"], index, payload)
            system.write(len(addressees), told["bytes"], fill)
            say("done")
        elif order == "give":
            cpu, began = time.process_time_ns(), time.monotonic_ns()
            for payload, takers in enumerate(addressees):
                text = system.give(payload, len(takers))
                for taker in takers:
                    desk.sendto(f"{index} {payload} {text}".encode(), f"{folder}/{taker}.sock")
            ended = time.monotonic_ns()
            say({"given": {"began_ns": began, "ended_ns": ended, "cpu_ns": time.process_time_ns() - cpu}})
        elif order == "forget":
            system.forget_given()
            say("done")
        elif order == "release":
            system.release()
            say("done")


def take(system, assignment):
    desk = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    desk.bind(f"{assignment['desk']}/{assignment['index']}.sock")
    taken = []
    say("done")
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, dict) and "take" in order:
            told = order["take"]
            say("waiting")
            cpu, taking, readable = time.process_time_ns(), 0, 0
            while len(taken) < told["payloads"]:
                giver, payload, text = desk.recv(4096).decode().split(" ", 2)
                began = time.monotonic_ns()
                memory = system.take(text)
                readable = time.monotonic_ns()
                taking += readable - began
                taken.append((int(giver), int(payload), memory))
            cpu = time.process_time_ns() - cpu
            began = time.monotonic_ns()
            for giver, payload, memory in taken:
                verify(memory, told["seed"], giver, payload, told["bytes"])
            first_read = time.monotonic_ns() - began
            say({"taken": {"readable_ns": readable, "taking_ns": taking, "first_read_ns": first_read, "cpu_ns": cpu}})
        elif order in ("forget", "release"):
            memory = None
            taken = []
            if order == "release":
                system.release()
            say("done")


def main():
    assignment = json.loads(sys.stdin.readline())
    kind = {"redis-py": Redis, "ray": Ray}.get(sys.argv[1], Zipline)
    system = kind(assignment["means"], assignment["index"])
    {"giver": give, "taker": take}[assignment["side"]](system, assignment)


main()
