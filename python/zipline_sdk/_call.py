"""One call: how long it may take, and the way to give it up from another thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from .errors import DeadlineExceededError


class Cancelled(Exception):
    """The call was given up. Whoever gave it up is not there to see this."""


class Call:
    """Runs in one thread; `cancel` may come from another at any time."""

    def __init__(self, timeout: float | None, what: str) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout={timeout} is not a number of seconds above 0")
        self._what = what
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._lock = threading.Lock()
        self._cancelled = False
        self._stops: list[Callable[[], object]] = []

    def remaining(self) -> float | None:
        """Seconds left; None: as long as it takes. Raises once there are none, or the call was cancelled."""
        if self._cancelled:
            raise Cancelled
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self.timed_out()
        return left

    def moved(self) -> None:
        """A byte moved, or a new wait began. The time of this call is that of all of it, so that changes nothing."""

    def source_remaining(self) -> float | None:
        """Seconds left for the caller's own source, as of `remaining`."""
        return self.remaining()

    def timed_out(self) -> DeadlineExceededError:
        return DeadlineExceededError(f"{self._what} was not done within its timeout of {self._timeout} s")

    @property
    def timeout(self) -> float | None:
        """Seconds it may take in all."""
        return self._timeout

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Ends the call's wait, if it waits, and every later one."""
        with self._lock:
            self._cancelled = True
            # Within the lock: what is stopped here is not given to another call meanwhile.
            for stop in self._stops:
                stop()

    @contextlib.contextmanager
    def stopped_by(self, stop: Callable[[], object]) -> Iterator[None]:
        """While this runs, `cancel` calls `stop`, which must not block."""
        with self._lock:
            if self._cancelled:
                raise Cancelled
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)


class QuietCall(Call):
    """A call without an end in sight: its timeout is that of each wait in which nothing moves."""

    def moved(self) -> None:
        if self._timeout is not None:
            self._deadline = time.monotonic() + self._timeout

    def source_remaining(self) -> float | None:
        """Whoever waits for the answer sees that nothing moves, and ends it; nobody else is in a hurry."""
        if self._cancelled:
            raise Cancelled
        return None

    def timed_out(self) -> DeadlineExceededError:
        return DeadlineExceededError(f"nothing moved of {self._what} for its timeout of {self._timeout} s")
