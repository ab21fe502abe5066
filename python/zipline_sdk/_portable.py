"""Objects as bytes, for those who receive or answer requests themselves."""

from __future__ import annotations

from typing import Any

from . import _objects
from ._memory import bytes_view, fresh
from ._native import Payload


def dump(value: Any) -> Payload:
    """An object as bytes: answer a request with `bytes(dumped)`, or any buffer of it, and its `content_type`."""
    plan = _objects.plan(value)
    memory = fresh(plan.size)
    plan.write(memory)
    return Payload(memory, plan.content_type)


def load(data: Any, content_type: str | None = None, *, trust_sender: bool = False) -> Any:
    """The object in a request's body, as `Client.invoke(obj=...)` sends it; arrays are read-only views on `data`.

    Args:
        data: The body: anything with the buffer protocol, or a `Payload`.
        content_type: The request's Content-Type; that of a `Payload` is known.
        trust_sender: Take pickles too, which run whatever code the sender chose; see `Client.get_object`.

    Raises:
        UntrustedError, FormatError: as `Client.get_object`.
    """
    if content_type is None and isinstance(data, Payload):
        content_type = data.content_type
    return _objects.load(Payload(bytes_view(data), content_type), trust_sender)
