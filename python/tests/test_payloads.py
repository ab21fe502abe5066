"""put, get, release and what belongs to them, within a process and between two queue-proxies."""

import array
import gc
import io
import mmap
import weakref

import numpy
import pytest

import zipline_sdk
from zipline_sdk import Payload

MEGABYTE = bytes(range(256)) * 4096


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        bytearray(b"abc"),
        memoryview(b"0123456789")[2:5],
        array.array("d", [1.5, 2.5]),
        numpy.arange(6, dtype="i4").reshape(2, 3),
        numpy.zeros((0, 3)),
        MEGABYTE * 3,
    ],
    ids=lambda data: f"{type(data).__name__}-{memoryview(data).nbytes}",
)
def test_what_was_put_is_got(pair, data):
    sender, receiver = pair
    reference = sender.put(data, content_type="image/png")
    payload = receiver.get(str(reference))
    assert bytes(payload) == memoryview(data).tobytes()
    assert len(payload) == memoryview(data).nbytes == reference.length
    assert payload.content_type == "image/png"
    assert reference.ttl == 60 and reference.bounded_by == "requested"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("text", "encode"),
        (7, "put_object"),
        ({"a": 1}, "put_object"),
        (None, "put_object"),
        (numpy.arange(10)[::2], "ascontiguousarray"),
        (numpy.asfortranarray(numpy.ones((3, 4))), "ascontiguousarray"),
        (numpy.array(["2026-01-01"], "M8[D]"), "put_object"),
        (memoryview(b"abcdef")[::-1], "one piece"),
    ],
    ids=str,
)
def test_what_cannot_be_put_is_refused_with_a_way_out(pair, data, words):
    with pytest.raises(TypeError, match=words):
        pair[0].put(data)


def test_a_payload_is_read_only_and_outlives_everything_but_its_views(pair):
    sender, receiver = pair
    payload = receiver.get(sender.put(MEGABYTE))
    view = memoryview(payload)
    assert view.readonly and payload.view.readonly and view.contiguous and view.format == "B"
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises((BufferError, TypeError, ValueError)):
        numpy.frombuffer(payload, "u1")[0] = 1
    assert numpy.frombuffer(payload, "u1").ctypes.data % 64 == 0
    gone = weakref.ref(payload)
    del payload
    gc.collect()
    assert gone() is not None, "a view keeps it"
    assert view.tobytes() == MEGABYTE
    del view
    gc.collect()
    assert gone() is None


def test_nothing_keeps_memory_after_its_last_view(pair):
    sender, receiver = pair
    array = sender.create_array(10_000)
    kept = [sender.create(10_000), array, receiver.get_object(sender.put(array))]
    watched = [weakref.ref(each) for each in kept]
    del array, kept
    gc.collect()
    assert [each() for each in watched] == [None] * 3


class Cycle:
    def __init__(self, *of):
        self.of, self.itself = of, self


def test_cycles_of_views_are_collected(pair):
    sender, receiver = pair
    data = memoryview(bytearray(b"abc"))
    buffer = sender.create(10)
    cycle = Cycle(data, memoryview(data), buffer, buffer.view, receiver.get(sender.put(data)).view)
    watched = weakref.ref(cycle)
    del data, buffer, cycle
    gc.collect()
    assert watched() is None


def test_a_payload_wraps_any_memory_and_keeps_it():
    memory = mmap.mmap(-1, 4096)
    payload = Payload(memory, "a/b")
    with pytest.raises(BufferError):
        memory.close()
    assert "4096 bytes, a/b" in repr(payload)
    with pytest.raises(ValueError, match="contiguous"):
        Payload(numpy.arange(10, dtype="u1")[::2])


def test_what_is_written_in_place_is_put_once(pair):
    sender, receiver = pair
    buffer = sender.create(len(MEGABYTE))
    assert len(buffer) == len(MEGABYTE) and not buffer.view.readonly and "writable" in repr(buffer)
    array = numpy.frombuffer(buffer, "u1")
    assert array.ctypes.data % 64 == 0
    array[:] = numpy.frombuffer(MEGABYTE, "u1")
    reference = sender.put(buffer, retrievals=None)
    assert buffer.sealed and buffer.view.readonly and "a payload now" in repr(buffer)
    assert bytes(receiver.get(reference)) == MEGABYTE
    with pytest.raises(zipline_sdk.RequestInvalidError, match="already"):
        sender.put(buffer)
    # A view from before keeps the memory, whatever becomes of the payload.
    sender.release(reference)
    del buffer
    again = sender.create(len(MEGABYTE))
    again.view[:] = bytes(len(again))
    assert array.tobytes() == MEGABYTE


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_a_size_is_a_whole_number(pair, size, error):
    with pytest.raises(error, match="size"):
        pair[0].create(size)


def test_retrievals_are_counted_and_the_error_names_the_put(pair):
    sender, receiver = pair
    reference = sender.put(b"twice", retrievals=2)
    assert [bytes(receiver.get(reference)) for _ in range(2)] == [b"twice"] * 2
    with pytest.raises(zipline_sdk.RetrievalsExhaustedError) as caught:
        receiver.get(reference)
    assert caught.value.code == "retrievals-exhausted" and caught.value.reference is reference
    assert f"{__file__}:" in str(caught.value) and "in test_retrievals_are_counted" in str(caught.value)
    assert "retrievals=N" in str(caught.value)


def test_any_number_of_retrievals_until_release(pair):
    sender, receiver = pair
    reference = sender.put(b"often", retrievals=None)
    assert [bytes(receiver.get(reference)) for _ in range(3)] == [b"often"] * 3
    sender.release(reference)
    with pytest.raises(zipline_sdk.PayloadLostError):
        receiver.get(reference)


def test_a_longer_life_than_possible_is_cut_and_said(pair):
    reference = pair[0].put(b"x", ttl=7200)
    assert (reference.ttl, reference.bounded_by) == (3600, "maximum")


@pytest.mark.parametrize(
    "wrong",
    [
        {"retrievals": 0}, {"retrievals": 1_000_001}, {"ttl": 0}, {"linger": 61}, {"wait": -1}, {"timeout": 0},
        {"content_type": ""}, {"content_type": "a\r\nb: c"}, {"content_type": "x" * 256},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_bounds_are_named(pair, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        pair[0].put(b"x", **wrong)


def test_an_altered_reference_is_refused(pair):
    sender, receiver = pair
    text = str(sender.put(b"x"))
    for altered in (text[:-8], text[:20] + ("A" if text[20] != "A" else "B") + text[21:], "zl1.AAAA"):
        with pytest.raises((zipline_sdk.ReferenceInvalidError, zipline_sdk.ReferenceForbiddenError)):
            receiver.get(altered, timeout=10)


def test_streams(pair):
    sender, receiver = pair
    content = MEGABYTE * 3
    for source in (io.BytesIO(content), (content[at : at + 300_000] for at in range(0, len(content), 300_000))):
        reference = sender.put_stream(source, content_type="video/mp4")
        with receiver.open(reference) as stream:
            assert (stream.length, stream.content_type) == (len(content), "video/mp4")
            start = bytearray(10)
            assert stream.readinto(start) == 10
            assert bytes(start) + b"".join(stream.pieces(100_000)) == content
        with pytest.raises(zipline_sdk.RetrievalsExhaustedError):
            receiver.get(reference)


def test_a_source_that_fails_is_no_error_of_zipline(pair):
    sender, _ = pair

    def source():
        yield b"some"
        raise ConnectionResetError("the camera")

    with pytest.raises(ConnectionResetError, match="the camera"):
        sender.put_stream(source())
    assert bytes(sender.get(sender.put(b"goes on"))) == b"goes on"


def test_many_at_once(pair):
    sender, receiver = pair
    contents = [bytes([index]) * (index * 1000) for index in range(20)]
    references = [sender.put(content) for content in contents]
    got = dict(receiver.get_many(references, concurrency=4))
    assert [bytes(got[index]) for index in range(20)] == contents


def test_of_many_one_that_fails(pair):
    sender, receiver = pair
    references = [sender.put(b"x"), sender.put(b"y"), sender.put(b"z")]
    sender.release(references[1])
    kept = dict(receiver.get_many(references, errors="return"))
    assert isinstance(kept[1], zipline_sdk.PayloadLostError) and bytes(kept[2]) == b"z"
    with pytest.raises(zipline_sdk.PayloadLostError):
        list(receiver.get_many([references[1]]))
    assert list(receiver.get_many([])) == []


def test_a_closed_client_says_so(pair):
    sender, _ = pair
    sender.close()
    with pytest.raises(zipline_sdk.Error, match="closed"):
        sender.put(b"x")
