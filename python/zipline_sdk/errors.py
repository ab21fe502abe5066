"""Every error of this package. Each of Zipline's stable codes has a class of its own; all derive from `Error`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .reference import Reference


class Error(Exception):
    """Anything that went wrong in Zipline.

    Attributes:
        code: The stable code, the same in every door of Zipline; None where no code applies.
        detail: What happened, as the place where it happened says it.
        reference: The payload's reference, where there is one.
        put_at: Where the payload was put (file, line, function), where that is known.
    """

    code: str | None = None
    hint: ClassVar[str] = ""

    def __init__(self, detail: str, *, code: str | None = None, reference: Reference | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reference = reference
        if code is not None:
            self.code = code

    @property
    def put_at(self) -> str | None:
        return self.reference.put_at if self.reference is not None else None

    def __str__(self) -> str:
        text = f"{self.code}: {self.detail}" if self.code else self.detail
        if self.put_at:
            text += f"\n  The payload was put at {self.put_at}."
        if self.hint:
            text += f"\n  {self.hint}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        # By way of keywords, so that it survives the trip out of a process pool.
        return _restored, (type(self), self.detail, self.code, self.reference)


def _restored(kind: type[Error], detail: str, code: str | None, reference: Reference | None) -> Error:
    return kind(detail, code=code, reference=reference)


class TransportWarning(UserWarning):
    """The fastest way to the queue-proxy is closed, and a slower one is used."""


class ReferenceInvalidError(Error):
    """The reference is malformed, forged, of another kind, or its key never came."""

    code = "reference-invalid"
    hint = "Pass on the text of a Reference exactly as put returned it."


class ReferenceForbiddenError(Error):
    """The reference belongs to another tenant."""

    code = "reference-forbidden"
    hint = "Payloads can be retrieved within the namespace that put them only."


class ReferenceExpiredError(Error):
    """The payload's time is over."""

    code = "reference-expired"
    hint = "Put it with a longer ttl (at most 3600 s), or get it sooner."


class RetrievalsExhaustedError(Error):
    """Every retrieval of the payload is used up."""

    code = "retrievals-exhausted"
    hint = "Put it with retrievals=N for N receivers, or retrievals=None for any number; linger=SECONDS allows a retry."


class PayloadLostError(Error):
    """Its holder has gone, or no longer has the bytes."""

    code = "payload-lost"
    hint = "The instance that put it ended, or released it. Put it again."


class PayloadTooLargeError(Error):
    """Larger than the memory that may be held at all."""

    code = "payload-too-large"
    hint = "Put it in parts, or give the sender's instance more memory."


class BufferFullError(Error):
    """No memory for the payload within the time given."""

    code = "buffer-full"
    hint = "Release payloads that nobody needs, let receivers get theirs, or wait longer with wait=SECONDS."


class DeadlineExceededError(Error, TimeoutError):
    """A time limit passed."""

    code = "deadline-exceeded"
    hint = "Give the call a longer timeout, or find out what it waits for with `zipline payloads` and `zipline status`."


class DrainingError(Error):
    """The instance is about to end and takes nothing new."""

    code = "draining"
    hint = "It is being scaled down; try again on another instance."


class RequestInvalidError(Error):
    """The call itself is wrong."""

    code = "request-invalid"


class TokenMissingError(Error):
    """The local API's token is missing or wrong."""

    code = "token-missing"
    hint = "ZIPLINE_TOKEN must be that of this very instance; it changes with every start."


class RangeInvalidError(Error):
    """The range lies outside the payload."""

    code = "range-invalid"


class NotFoundError(Error):
    """No such function or path."""

    code = "not-found"
    hint = "`zipline status` lists the functions there are."


class ReceiverUnprovenError(Error):
    """The receiver did not prove that it opened the reference."""

    code = "receiver-unproven"
    hint = "Something between the two functions answered in the receiver's place. The function may have run."


class UpstreamFailedError(Error):
    """The function, or the way to it, broke."""

    code = "upstream-failed"
    hint = "`zipline logs` shows what functions wrote. A function that was invoked may have run."


class NotConnectedError(Error):
    """There is no queue-proxy to talk to."""

    hint = (
        "In a function Zipline sets ZIPLINE_SOCKET and ZIPLINE_TOKEN. For a script or notebook use "
        "`zipline run -- python SCRIPT`; for tests Client.local()."
    )


class StatusError(Error):
    """A function answered with a status outside 200-299."""

    def __init__(self, detail: str, *, status: int = 0, **others: Any) -> None:
        super().__init__(detail, **others)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored_status, (self.detail, self.status)


def _restored_status(detail: str, status: int) -> StatusError:
    return StatusError(detail, status=status)


class FormatError(Error, ValueError):
    """The payload is not what its content type says."""


class UntrustedError(FormatError):
    """The payload is a pickle, and the call did not say that its sender is trusted."""

    hint = "Unpickling runs whatever code the sender chose. If you trust the sender, say trust_sender=True."


BY_CODE: dict[str, type[Error]] = {kind.code: kind for kind in Error.__subclasses__() if isinstance(kind.code, str)}


def from_code(code: str, detail: str, reference: Reference | None = None) -> Error:
    """The error for a code; a code that this version does not know makes an `Error` that has it."""
    kind = BY_CODE.get(code)
    if kind is None:
        return Error(detail, code=code, reference=reference)
    return kind(detail, reference=reference)
