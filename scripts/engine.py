"""Starts and asks a standalone engine, for the demo and the client tests. Standard library only."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

# The engine's default (docs/protocol.md, section 2).
THRESHOLD_BYTES = 128 * 1024


class EngineError(Exception):
    """The engine could not be started or does not answer."""


def is_ready(function):
    """Whether as many instances serve as the manifest asks for at least."""
    ready = [instance for instance in function["instances"] if instance["state"] == "ready"]
    return len(ready) >= function["scale"]["min"]


class Engine:
    """`zipline up` with a state directory and a port of its own. A context manager: ends everything it started."""

    def __init__(self, binary, manifests, mode="on", log=None):
        self.binary = Path(binary).absolute()
        if not self.binary.is_file():
            raise EngineError(f"{self.binary} is not there: run `make build` or `make release`")
        # Sockets below it have long names, so it stands close to the root.
        self.state = Path(tempfile.mkdtemp(prefix="zl-", dir="/tmp"))
        self.log = open(log, "wb") if log else subprocess.DEVNULL
        self.process = self.popen(
            "up", *map(str, manifests), "--mode", mode, "--gateway", "127.0.0.1:0", stdout=self.log, stderr=self.log
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        finally:
            if self.log is not subprocess.DEVNULL:
                self.log.close()
            shutil.rmtree(self.state, ignore_errors=True)

    def popen(self, *arguments, **options):
        """Starts `zipline ARGUMENTS` against this engine."""
        environment = dict(os.environ, ZIPLINE_STATE_DIR=str(self.state))
        return subprocess.Popen([self.binary, *arguments], env=environment, **options)

    def command(self, *arguments, timeout=60):
        """Runs `zipline ARGUMENTS` against this engine to its end."""
        with self.popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            try:
                out, error = running.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                running.terminate()
                raise
        return subprocess.CompletedProcess(arguments, running.returncode, out, error)

    def answer(self, *arguments):
        """The JSON that a command prints."""
        done = self.command(*arguments, "--json")
        if done.returncode != 0:
            raise EngineError(f"zipline {' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def queue_proxies(self, service=None):
        """What each queue-proxy of a service, or of all, says about itself. Those of `zipline run` are left out."""
        entries = []
        for entry in self.answer("payloads")["instances"]:
            name = entry["function"].split(".")[0]
            if name in self.services and service in (None, name):
                entries.append(entry)
        silent = [f"{entry['instance']}: {entry['error']}" for entry in entries if not entry["status"]]
        if silent:
            raise EngineError(f"queue-proxies that do not answer: {'; '.join(silent)}")
        return [entry["status"] for entry in entries]

    def received_deferred(self, service):
        """How many payloads of requests, and bytes, came to a service from other queue-proxies' memory."""
        rows = [
            row
            for status in self.queue_proxies(service)
            for row in status["transfers"]["edges"]
            if row["direction"] == "received" and row["kind"] == "request" and row["way"] != "inline"
        ]
        return sum(row["count"] for row in rows), sum(row["bytes"] for row in rows)

    def gateway_bytes(self):
        """Bytes of bodies that have crossed the gateway, towards functions and back."""
        functions = self.answer("status")["functions"]
        return {
            "bytes_in": sum(function["received_bytes"] for function in functions),
            "bytes_out": sum(function["sent_bytes"] for function in functions),
        }

    def wait_until_ready(self, seconds=60):
        """Waits until every instance that was asked for serves."""
        deadline = time.monotonic() + seconds
        reason = "it does not answer"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise EngineError(f"zipline up ended with status {self.process.returncode}{self.last_words()}")
            try:
                status = self.answer("status")
            except EngineError as error:
                reason = str(error)
            else:
                waiting = [function["service"] for function in status["functions"] if not is_ready(function)]
                if not waiting:
                    self.gateway = status["engine"]["gateway"]
                    self.services = {function["service"] for function in status["functions"]}
                    return
                reason = f"not ready: {', '.join(waiting)}"
            time.sleep(0.1)
        raise EngineError(f"the engine was not ready within {seconds} s: {reason}{self.last_words()}")

    def last_words(self):
        """The end of the engine's output, for messages."""
        if self.log is subprocess.DEVNULL:
            return ""
        lines = Path(self.log.name).read_text(errors="replace").splitlines()[-15:]
        return "\n  " + "\n  ".join(lines)
