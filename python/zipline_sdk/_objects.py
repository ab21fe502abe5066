"""Objects as payloads: NumPy arrays, Arrow tables, and pickles whose buffers stay where they are.

docs/python.md describes the formats. Everything read here may come from somebody hostile: sizes are checked before they are
used, and what does not fit raises `FormatError`.
"""

from __future__ import annotations

import json
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import _native
from ._memory import ALIGNMENT
from ._native import Payload
from .errors import FormatError, UntrustedError

if TYPE_CHECKING:
    import numpy as np

ARRAY_TYPE = "application/vnd.zipline.array"
ARROW_TYPE = "application/vnd.apache.arrow.stream"
PICKLE_TYPE = "application/vnd.zipline.pickle"

# Magic, header's length, number of buffers; then where each buffer is.
_FIXED = struct.Struct(">8sQI4x")
_PLACE = struct.Struct(">QQ")
_ARRAY_MAGIC, _PICKLE_MAGIC = b"ZLARRAY1", b"ZLPICKL1"
_BUFFERS_MOST = 65_536
_ARRAY_HEADER_MOST = 65_536
# NumPy 1 takes 32, NumPy 2 64.
_DIMENSIONS_MOST = 64


@dataclass(frozen=True)
class Plan:
    """An object that is about to be a payload: its size, and how it is written into memory of that size."""

    content_type: str
    size: int
    write: Callable[[memoryview], None]


def plan(value: Any) -> Plan:
    """How to write `value`: as array, as Arrow stream, else as a pickle."""
    # Who never imported a library has no object of it.
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and not _has_objects(value.dtype):
        return _plan_array(value)
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(value, (arrow.Table, arrow.RecordBatch)):
        return _plan_arrow(value)
    return _plan_pickle(value)


def load(payload: Payload, trust_sender: bool) -> Any:
    """The object that a payload is; its large parts are read-only views on the payload.

    Raises:
        UntrustedError: it is a pickle, and `trust_sender` was not said.
        FormatError: it is none of the formats, or not what it says to be.
        ImportError: the library that the format needs is not installed.
    """
    content_type = (payload.content_type or "").partition(";")[0].strip().lower()
    if content_type == ARRAY_TYPE:
        return _load_array(payload)
    if content_type == ARROW_TYPE:
        return _load_arrow(payload, trust_sender)
    if content_type == PICKLE_TYPE:
        if not trust_sender:
            raise UntrustedError("the payload is a pickle, which is not opened unless its sender is trusted")
        return _load_pickle(payload)
    shown = payload.content_type or "none"
    raise FormatError(
        f"the payload's content type is {shown!r:.80}, which is no object put by put_object: take its bytes with get"
    )


# --- the common layout: fixed part, table of buffers, header, buffers, each of these aligned ---


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _layout(header: int, buffers: Sequence[int]) -> tuple[list[int], int]:
    """Where buffers of these lengths start, and where everything ends."""
    end = _FIXED.size + len(buffers) * _PLACE.size + header
    starts = []
    for length in buffers:
        start = _aligned(end)
        starts.append(start)
        end = start + length
    return starts, end


def _write_head(view: memoryview, magic: bytes, header: bytes, starts: Sequence[int], lengths: Sequence[int]) -> None:
    _FIXED.pack_into(view, 0, magic, len(header), len(starts))
    offset = _FIXED.size
    for start, length in zip(starts, lengths, strict=True):
        _PLACE.pack_into(view, offset, start, length)
        offset += _PLACE.size
    view[offset : offset + len(header)] = header
    # Memory may hold what an earlier payload left in it, and the gaps travel with this one.
    end = offset + len(header)
    for start, length in zip(starts, lengths, strict=True):
        view[end:start] = bytes(start - end)
        end = start + length


def _read_head(view: memoryview, magic: bytes) -> tuple[memoryview, list[memoryview]]:
    """Header and buffers."""
    total = len(view)
    if total < _FIXED.size:
        raise FormatError(f"the payload has {total} bytes, its format at least {_FIXED.size}")
    found, header, count = _FIXED.unpack_from(view)
    if found != magic:
        raise FormatError(f"the payload starts with {found!r}, its format with {magic!r}")
    if count > _BUFFERS_MOST:
        raise FormatError(f"the payload claims {count} buffers, at most {_BUFFERS_MOST} are taken")
    end = _FIXED.size + count * _PLACE.size
    if end + header > total:
        raise FormatError(f"the payload has {total} bytes, its head alone claims {end + header}")
    places = [_PLACE.unpack_from(view, _FIXED.size + index * _PLACE.size) for index in range(count)]
    head = view[end : end + header]
    end += header
    buffers = []
    for index, (start, length) in enumerate(places):
        if start % ALIGNMENT or start < end or start + length > total:
            raise FormatError(f"buffer {index} claims bytes {start} to {start + length} of {total}: out of place")
        buffers.append(view[start : start + length])
        end = start + length
    return head, buffers


# --- NumPy arrays ---


def _has_objects(dtype: np.dtype[Any]) -> bool:
    return bool(dtype.hasobject)


def array_plan(
    shape: int | Sequence[int], dtype: Any, order: Literal["C", "F"]
) -> tuple[Plan, Callable[[memoryview], np.ndarray[Any, Any]]]:
    """A plan for an array that is written later, and how to look at it in the planned memory."""
    import numpy

    dtype = numpy.dtype(dtype)
    if _has_objects(dtype):
        raise TypeError(f"an array of {dtype} holds pointers, not values: use put_object, which pickles it")
    if order not in ("C", "F"):
        raise ValueError(f"order={order!r} is neither 'C' (row by row) nor 'F' (column by column)")
    dimensions = (shape,) if not isinstance(shape, Sequence) else tuple(shape)
    dimensions = tuple(int(extent.__index__()) for extent in dimensions)
    if any(extent < 0 for extent in dimensions):
        raise ValueError(f"shape {dimensions} has an extent below 0")
    length = dtype.itemsize
    for extent in dimensions:
        length *= extent
    described = {"dtype": numpy.lib.format.dtype_to_descr(dtype), "shape": dimensions, "order": order}
    header = json.dumps(described).encode()
    if len(header) > _ARRAY_HEADER_MOST:
        raise ValueError(f"the dtype's description has {len(header)} bytes, at most {_ARRAY_HEADER_MOST} can be sent")
    (start,), size = _layout(len(header), [length])

    def write_head(view: memoryview) -> None:
        _write_head(view, _ARRAY_MAGIC, header, [start], [length])

    def look(view: memoryview) -> np.ndarray[Any, Any]:
        return numpy.ndarray(dimensions, dtype, buffer=view[start : start + length], order=order)

    return Plan(ARRAY_TYPE, size, write_head), look


def _plan_array(array: np.ndarray[Any, Any]) -> Plan:
    import numpy

    order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    empty, look = array_plan(array.shape, array.dtype, order)

    def write(view: memoryview) -> None:
        empty.write(view)
        # Releases the GIL, and takes strided arrays in one pass.
        numpy.copyto(look(view), array)

    return Plan(ARRAY_TYPE, empty.size, write)


def _load_array(payload: Payload) -> np.ndarray[Any, Any]:
    import numpy

    header, buffers = _read_head(payload.view, _ARRAY_MAGIC)
    if len(header) > _ARRAY_HEADER_MOST:
        raise FormatError(f"the array's description has {len(header)} bytes, at most {_ARRAY_HEADER_MOST} are read")
    if len(buffers) != 1:
        raise FormatError(f"an array is one buffer, not {len(buffers)}")
    try:
        described = json.loads(bytes(header))
        dtype = numpy.lib.format.descr_to_dtype(_descr(described["dtype"]))
        shape = tuple(described["shape"])
        order = described["order"]
    except (ValueError, KeyError, TypeError, RecursionError, SyntaxError, IndexError) as error:
        raise FormatError(f"the array's description cannot be read: {error}") from error
    if _has_objects(dtype):
        raise FormatError(f"an array of {dtype} holds pointers: it is never taken from a payload")
    if order not in ("C", "F") or len(shape) > _DIMENSIONS_MOST:
        raise FormatError(f"the array claims order {order!r:.20} and {len(shape)} dimensions")
    length = dtype.itemsize
    for extent in shape:
        if type(extent) is not int or extent < 0:
            raise FormatError(f"the array claims an extent of {extent!r:.40}")
        length *= extent
    if length != len(buffers[0]):
        raise FormatError(f"the array claims {length} bytes, its buffer has {len(buffers[0])}")
    try:
        return numpy.ndarray(shape, dtype, buffer=buffers[0], order=order)
    except (ValueError, TypeError) as error:
        raise FormatError(f"the array's description makes no array: {error}") from error


def _descr(described: Any) -> Any:
    """JSON knows no tuples, and NumPy's descriptions of fields are made of them."""
    if isinstance(described, str):
        return described
    if not isinstance(described, list):
        raise TypeError(f"a dtype is described by text or a list of fields, not {type(described).__name__}")
    fields = []
    for field in described:
        if not isinstance(field, list) or not 2 <= len(field) <= 3:
            raise TypeError("a field is described by name, dtype and perhaps shape")
        name = tuple(field[0]) if isinstance(field[0], list) else field[0]
        fields.append((name, _descr(field[1]), *(tuple(shape) for shape in field[2:])))
    return fields


# --- Arrow ---


def _plan_arrow(table: Any) -> Plan:
    import pyarrow

    def write_to(sink: Any) -> None:
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write(table)

    counter = pyarrow.MockOutputStream()
    write_to(counter)

    def write(view: memoryview) -> None:
        write_to(pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(view)))

    return Plan(ARROW_TYPE, counter.size(), write)


def _load_arrow(payload: Payload, trust_sender: bool) -> Any:
    import pyarrow

    try:
        with pyarrow.ipc.open_stream(pyarrow.py_buffer(payload.view)) as reader:
            table = reader.read_all()
        # Offsets that lead out of their buffers would crash whoever follows them.
        table.validate(full=not trust_sender)
    except (pyarrow.ArrowException, ValueError, OSError, MemoryError, EOFError) as error:
        raise FormatError(f"the payload is no Arrow stream: {error}") from error
    return table


# --- pickles ---


def _plan_pickle(value: Any) -> Plan:
    found: list[memoryview] = []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = Payload(buffer).view
        except ValueError:
            # It does not lie in one piece.
            return True
        if len(found) == _BUFFERS_MOST:
            return True
        found.append(view)
        return False

    header = pickle.dumps(value, protocol=5, buffer_callback=out_of_band)
    lengths = [len(view) for view in found]
    starts, size = _layout(len(header), lengths)

    def write(view: memoryview) -> None:
        _write_head(view, _PICKLE_MAGIC, header, starts, lengths)
        for start, source in zip(starts, found, strict=True):
            _native.copy(view[start : start + len(source)], source)

    return Plan(PICKLE_TYPE, size, write)


def _load_pickle(payload: Payload) -> Any:
    header, buffers = _read_head(payload.view, _PICKLE_MAGIC)
    try:
        return pickle.loads(header, buffers=buffers)
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise FormatError(f"the payload is no pickle that can be read here: {error}") from error
