"""Bytes in, bytes out: what may be put, and where payloads lie."""

from __future__ import annotations

import mmap
from typing import Any

from . import _native

#: Memory of payloads starts at a multiple of this, and so do the buffers of the object formats.
ALIGNMENT = 64


def bytes_view(data: Any) -> memoryview:
    """The bytes of anything with the buffer protocol, as they lie in memory.

    Raises:
        TypeError: with what to do instead, if it has no bytes to look at or they do not lie in one piece.
    """
    name = type(data).__name__
    if isinstance(data, str):
        raise TypeError("a payload is bytes, not text: put text.encode()")
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"a {name} has no bytes to look at (no buffer protocol): use put_object for objects") from None
    except (ValueError, BufferError) as error:
        raise TypeError(f"the bytes of this {name} cannot be looked at ({error}): use put_object") from None
    if not view.c_contiguous:
        raise TypeError(
            f"this {name} does not lie in memory in one piece, row by row: "
            "put numpy.ascontiguousarray(it), or use put_object, which keeps shape and order"
        )
    # `cast` refuses some formats, and PickleBuffer.raw makes cycles that crash Python 3.11's garbage collector.
    return _native.Payload(data).view


def fresh(size: int) -> memoryview:
    """Writable memory of the process's own, zeroed, aligned, and freed with the last view on it."""
    if size == 0:
        return memoryview(bytearray())
    return memoryview(mmap.mmap(-1, size))


def copied(view: memoryview) -> memoryview:
    """A copy in memory of the process's own."""
    target = fresh(len(view))
    _native.copy(target, view)
    return target


def checked_size(size: Any) -> int:
    """A size in bytes."""
    try:
        size = size.__index__()
    except AttributeError:
        raise TypeError(f"a size is a whole number of bytes, not {type(size).__name__}") from None
    if size < 0:
        raise ValueError(f"a size of {size} bytes is below 0")
    return int(size)
