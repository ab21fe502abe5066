"""The object formats: what goes in comes out, without a copy, and nothing hostile does more than raise."""

import pickle
import random
import struct

import numpy
import pyarrow
import pytest

import zipline_sdk
from zipline_sdk import ARRAY_TYPE, ARROW_TYPE, PICKLE_TYPE, FormatError, Payload, UntrustedError

ARRAYS = {
    "doubles": numpy.arange(12.0).reshape(3, 4),
    "columns": numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
    "strided": numpy.arange(40).reshape(4, 10)[::2, ::3],
    "empty": numpy.zeros((0, 3), "f4"),
    "scalar": numpy.array(5),
    "times": numpy.array(["2026-01-01", "NaT"], "M8[s]"),
    "big-endian": numpy.arange(4, dtype=">i2"),
    "text": numpy.array(["ab", "c"]),
    "records": numpy.array([(1, [[1.0, 2.0]]), (2, [[3.0, 4.0]])], [("a", "i4"), ("b", "f8", (1, 2))]),
    "titled": numpy.zeros(2, [(("long", "a"), "i4")]),
    "padded": numpy.zeros(2, numpy.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "bools": numpy.array([True, False]),
    "complex": numpy.array([1j]),
    "large": numpy.random.default_rng(1).random((300, 400)),
}


def aligned(array):
    return array.ctypes.data % 64 == 0


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_come_back_as_views(pair, array):
    sender, receiver = pair
    payload = receiver.get(sender.put_object(array))
    assert payload.content_type == ARRAY_TYPE
    back = zipline_sdk.load(payload)
    assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()
    assert not back.flags.writeable and aligned(back)
    assert back.size == 0 or numpy.shares_memory(back, numpy.frombuffer(payload, "u1"))
    if array.flags.c_contiguous or array.flags.f_contiguous:
        assert back.flags.f_contiguous == array.flags.f_contiguous


def test_an_array_written_in_place(pair):
    sender, receiver = pair
    for order in ("C", "F"):
        buffer = sender.create_array((3, 4), "i8", order=order)
        assert buffer.array.shape == (3, 4) and aligned(buffer.array) and buffer.array.flags[f"{order}_CONTIGUOUS"]
        buffer.array[:] = numpy.arange(12).reshape(3, 4)
        reference = sender.put(buffer)
        assert not buffer.array.flags.writeable
        assert (receiver.get_object(reference) == numpy.arange(12).reshape(3, 4)).all()
    assert sender.create_array(5).array.dtype == "f8"


def test_arrays_that_cannot_be_written_in_place(pair):
    with pytest.raises(TypeError, match="put_object"):
        pair[0].create_array(3, object)
    with pytest.raises(ValueError, match="below 0"):
        pair[0].create_array((3, -1))
    with pytest.raises(ValueError, match="order"):
        pair[0].create_array(3, order="K")


def test_arrow_tables_come_back_without_a_copy(pair):
    sender, receiver = pair
    table = pyarrow.table({"x": numpy.arange(1000), "name": ["a", None, "ccc", "d"] * 250})
    payload = receiver.get(sender.put_object(table))
    assert payload.content_type == ARROW_TYPE
    back = zipline_sdk.load(payload)
    assert back.equals(table)
    start = numpy.frombuffer(payload, "u1").ctypes.data
    assert start <= back["x"].chunk(0).buffers()[1].address < start + len(payload)
    batch = table.to_batches()[0]
    assert receiver.get_object(sender.put_object(batch)).to_batches() == [batch]


def test_the_large_parts_of_pickles_stay_where_they_are(pair):
    sender, receiver = pair
    value = {
        "frame": numpy.arange(1000.0),
        "raw": pickle.PickleBuffer(bytearray(b"abc")),
        "label": "cat",
        "of": [1, None],
    }
    payload = receiver.get(sender.put_object(value))
    assert payload.content_type == PICKLE_TYPE
    back = zipline_sdk.load(payload, trust_sender=True)
    assert (back["frame"] == value["frame"]).all() and back["label"] == "cat" and back["of"] == [1, None]
    assert numpy.shares_memory(back["frame"], numpy.frombuffer(payload, "u1"))
    assert not back["frame"].flags.writeable and aligned(back["frame"])
    assert bytes(back["raw"]) == b"abc"


class Traitor:
    ran = False

    def __reduce__(self):
        return setattr, (Traitor, "ran", True)


def test_a_pickle_is_not_opened_unless_its_sender_is_trusted(pair):
    sender, receiver = pair
    Traitor.ran = False
    reference = sender.put_object(Traitor(), retrievals=None)
    with pytest.raises(UntrustedError, match="trust_sender=True"):
        receiver.get_object(reference)
    assert not Traitor.ran
    receiver.get_object(reference, trust_sender=True)
    assert Traitor.ran
    sender.release(reference)


def test_objects_of_pointers_are_pickled_never_viewed():
    dumped = zipline_sdk.dump(numpy.array([1, "a"], dtype=object))
    assert dumped.content_type == PICKLE_TYPE
    forged = array_of(b'{"dtype": "|O", "shape": [1], "order": "C"}', bytes(8))
    with pytest.raises(FormatError, match="pointers"):
        zipline_sdk.load(forged, ARRAY_TYPE)


def test_what_is_no_object(pair):
    sender, receiver = pair
    with pytest.raises(FormatError, match="'text/plain'"):
        receiver.get_object(sender.put(b"x", content_type="text/plain"))
    with pytest.raises(FormatError, match="take its bytes with get"):
        receiver.get_object(sender.put(b"x"))


def test_a_content_type_may_have_parameters_and_another_case():
    dumped = zipline_sdk.dump(numpy.ones(3))
    assert zipline_sdk.load(bytes(dumped), ARRAY_TYPE.upper() + "; version=1").sum() == 3


def array_of(header, data, *, start=None, length=None, magic=b"ZLARRAY1"):
    start = -(-(40 + len(header)) // 64) * 64 if start is None else start
    length = len(data) if length is None else length
    head = struct.pack(">8sQI4xQQ", magic, len(header), 1, start, length) + header
    return head.ljust(-(-len(head) // 64) * 64, b"\0") + data


GOOD = b'{"dtype": "<f8", "shape": [2], "order": "C"}'
HOSTILE = {
    "nothing": b"",
    "half a head": b"ZLARRAY1",
    "other magic": array_of(GOOD, bytes(16), magic=b"ZLARRAY2"),
    "too many buffers": struct.pack(">8sQI4x", b"ZLARRAY1", 0, 2**32 - 1),
    "no buffers": struct.pack(">8sQI4x", b"ZLARRAY1", len(GOOD), 0) + GOOD,
    "a header beyond the end": struct.pack(">8sQI4x", b"ZLARRAY1", 2**64 - 1, 0),
    "a buffer beyond the end": array_of(GOOD, bytes(16), length=2**64 - 1),
    "a buffer that starts beyond the end": array_of(GOOD, bytes(16), start=2**63),
    "a buffer over the head": array_of(GOOD, bytes(16), start=0),
    "an unaligned buffer": array_of(GOOD, bytes(16), start=129),
    "no JSON": array_of(b"{", bytes(16)),
    "deep JSON": array_of(b"[" * 60_000, bytes(16)),
    "no description": array_of(b"[]", bytes(16)),
    "no dtype": array_of(b'{"shape": [2], "order": "C"}', bytes(16)),
    "an unknown dtype": array_of(GOOD.replace(b"<f8", b"<q99"), bytes(16)),
    "code as dtype": array_of(GOOD.replace(b'"<f8"', b"\"__import__('os').abort()\""), bytes(16)),
    "a number as dtype": array_of(GOOD.replace(b'"<f8"', b"8"), bytes(16)),
    "fields of nothing": array_of(GOOD.replace(b'"<f8"', b"[[]]"), bytes(16)),
    "hidden pointers": array_of(GOOD.replace(b'"<f8"', b'[["a", "|O"], ["b", "<f8"]]'), bytes(32)),
    "a huge field": array_of(GOOD.replace(b'"<f8"', b'[["a", "<f8", [2147483648, 2147483648]]]'), bytes(16)),
    "more elements than bytes": array_of(GOOD.replace(b"[2]", b"[3]"), bytes(16)),
    "extents that overflow": array_of(GOOD.replace(b"[2]", b"[4294967296, 4294967296, 0]"), b""),
    "an extent below 0": array_of(GOOD.replace(b"[2]", b"[-1, -2]"), bytes(16)),
    "a fraction of elements": array_of(GOOD.replace(b"[2]", b"[2.0]"), bytes(16)),
    "true elements": array_of(GOOD.replace(b"[2]", b"[true, 2]"), bytes(16)),
    "too many dimensions": array_of(GOOD.replace(b"[2]", b"[2" + b", 1" * 70 + b"]"), bytes(16)),
    "dimensions of nothing": array_of(GOOD.replace(b"<f8", b"|V0").replace(b"[2]", b"[99999999999999999999]"), b""),
    "another order": array_of(GOOD.replace(b'"C"', b'"A"'), bytes(16)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_array_raises(data):
    with pytest.raises(FormatError):
        zipline_sdk.load(data, ARRAY_TYPE)


def test_the_head_alone_decides_how_much_is_allocated():
    assert zipline_sdk.load(array_of(GOOD, bytes(16)), ARRAY_TYPE).tolist() == [0, 0]


SAMPLES = {
    ARRAY_TYPE: numpy.array([(1, 2.5)] * 3, [("a", "i4"), ("b", "f8")]),
    ARROW_TYPE: pyarrow.table({"n": [1, 2, 3], "s": ["a", "bb", None], "l": [[1], [], [2, 3]]}),
}


@pytest.mark.parametrize("content_type", SAMPLES)
def test_damaged_objects_raise_or_are_read_but_never_crash(content_type):
    whole = bytes(zipline_sdk.dump(SAMPLES[content_type]))
    randomness = random.Random(3)
    damaged = [whole[:end] for end in range(0, len(whole), 7)]
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << randomness.randrange(8)
        damaged.append(bytes(changed))
    for data in damaged:
        try:
            loaded = zipline_sdk.load(data, content_type)
        except FormatError:
            continue
        # Whatever was read can be looked at.
        str(loaded.to_pydict() if content_type == ARROW_TYPE else loaded.tolist())


def test_a_damaged_head_of_a_pickle_raises():
    whole = bytes(zipline_sdk.dump({"a": numpy.arange(100)}))
    for data in (whole[:10], whole[:200], b"X" + whole[1:], whole[:24] + bytes(16) + whole[40:]):
        with pytest.raises(FormatError):
            zipline_sdk.load(data, PICKLE_TYPE, trust_sender=True)


def test_dump_and_load_take_any_memory():
    dumped = zipline_sdk.dump(numpy.arange(5))
    assert isinstance(dumped, Payload)
    for data in (bytes(dumped), bytearray(dumped.view), memoryview(dumped)):
        assert zipline_sdk.load(data, dumped.content_type).tolist() == [0, 1, 2, 3, 4]
    assert zipline_sdk.load(dumped).tolist() == [0, 1, 2, 3, 4]


def test_gaps_carry_nothing_of_what_lay_there_before():
    from zipline_sdk import _objects

    plan = _objects.plan({"a": numpy.arange(3), "b": numpy.arange(3)})
    clean, dirty = bytearray(plan.size), bytearray(b"\xee" * plan.size)
    plan.write(memoryview(clean))
    plan.write(memoryview(dirty))
    assert clean == dirty
