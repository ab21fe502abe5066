"""A queue-proxy that speaks the SDK's own protocol (docs/protocol.md, section 8), frame by frame as a test wants it."""

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field

PREFACE = b"\0zl-sdk1\n"
HELLO, GRANT, PUT, PUT_INLINE, PUT_ISSUED, PUT_ISSUED_INLINE, ISSUE, GET, DONE, RELEASE = range(1, 11)
SETTLE, CANCEL = 12, 13
WELCOME, _, PUT_DONE, ISSUED, GOT_INLINE = range(64, 69)
OK, ERROR = 71, 72
REQUESTED, MAXIMUM, DRAIN = range(3)


@dataclass
class Frame:
    """What a client said. `fields` are those of its kind."""

    kind: int
    request: int = 0
    wait: float = 0.0
    terms: tuple = ()
    payload: bytes = b""
    data: bytes = b""
    references: list = field(default_factory=list)


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(value)) + value


class FakeSocket:
    """`answer(proxy, frame)` is called for each frame, in a thread of its connection; it answers with the methods below."""

    def __init__(self, path, answer):
        self.path, self.answer = str(path), answer
        self.frames = []
        self.heard = threading.Condition()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(4)
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(link,), daemon=True).start()

    def serve(self, link):
        with link, contextlib.suppress(OSError, EOFError):
            self.link, self.file = link, link.makefile("rb")
            assert self.read(len(PREFACE)) == PREFACE
            while True:
                frame = self.frame()
                if frame.kind == HELLO:
                    self.say(WELCOME, bytes([1]) + bytes(16) + text("default") + struct.pack(">IQ", 65536, 1 << 28))
                    continue
                with self.heard:
                    self.frames.append(frame)
                    self.heard.notify_all()
                self.answer(self, frame)

    def read(self, count):
        found = self.file.read(count)
        if len(found) < count:
            raise EOFError
        return found

    def frame(self):
        length, kind = struct.unpack(">IB", self.read(5))
        body = self.read(length)
        frame = Frame(kind)
        if kind in (HELLO, DONE):
            return frame
        (frame.request,), rest = struct.unpack(">I", body[:4]), body[4:]
        if kind == GRANT:
            _, wait = struct.unpack(">QI", rest)
            frame.wait = wait / 1000
        elif kind == PUT_INLINE:
            frame.terms, frame.data = self.terms(rest)
        elif kind == PUT_ISSUED_INLINE:
            frame.payload, frame.data = rest[:16], rest[16:]
        elif kind == ISSUE:
            frame.terms, _ = self.terms(rest[2:])
        elif kind == GET:
            (count,), rest = struct.unpack(">H", rest[5:7]), rest[7:]
            for _ in range(count):
                (size,) = struct.unpack(">H", rest[:2])
                frame.references.append(rest[2 : 2 + size].decode())
                rest = rest[2 + size :]
        return frame

    @staticmethod
    def terms(rest):
        """Retrievals, ttl, linger, wait in seconds, content type; and what follows."""
        retrievals, *times, has_type = struct.unpack(">IIIIB", rest[:17])
        rest, content_type = rest[17:], None
        if has_type:
            (size,) = struct.unpack(">H", rest[:2])
            content_type, rest = rest[2 : 2 + size].decode(), rest[2 + size :]
        return (retrievals, *(time / 1000 for time in times), content_type), rest

    def say(self, kind, body):
        self.link.sendall(struct.pack(">IB", len(body), kind) + body)

    def put_done(self, request, reference, ttl=60.0, bound=REQUESTED):
        self.say(PUT_DONE, struct.pack(">IQB", request, int(ttl * 1000), bound) + text(reference))

    def issued(self, request, references):
        pairs = b"".join(payload + text(reference) for payload, reference in references)
        self.say(ISSUED, struct.pack(">IH", request, len(references)) + pairs)

    def got(self, request, index, data):
        self.say(GOT_INLINE, struct.pack(">IBB", request, index, 0) + b"\0" + data)

    def ok(self, request):
        self.say(OK, struct.pack(">I", request))

    def error(self, request, code, detail, index=0):
        self.say(ERROR, struct.pack(">IB", request, index) + text(code) + text(detail))

    def hears(self, kind):
        """Waits for a frame of this kind."""
        with self.heard:
            heard = self.heard.wait_for(lambda: any(frame.kind == kind for frame in self.frames), 60)
            assert heard, f"no frame of kind {kind}"

    def of_kind(self, kind):
        return [frame for frame in self.frames if frame.kind == kind]

    def client(self, make, **others):
        return make(socket=self.path, token="t" * 32, **others)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
