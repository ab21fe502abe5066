"""What is said to a queue-proxy over its own socket, and what is made of its answers."""

import asyncio
import contextlib

import pytest
from fake_socket import (
    CANCEL,
    DRAIN,
    GET,
    GRANT,
    ISSUE,
    MAXIMUM,
    PUT_INLINE,
    PUT_ISSUED_INLINE,
    RELEASE,
    SETTLE,
)

import zipline_sdk
from zipline_sdk import Client, aio

REFERENCES = [f"zl1.ref{index:03}" for index in range(200)]


def index_of(reference):
    return REFERENCES.index(reference)


# --- waits and lives ---


def full(proxy, frame):
    """No memory, for anybody."""
    proxy.error(frame.request, "buffer-full", "no memory")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.create(10, wait=0.25),
        lambda client: client.create_array((2, 2), wait=0.25),
        lambda client: client.put(bytes(100_000), wait=0.25),
        lambda client: client.put_object(bytes(100_000), wait=0.25),
    ],
    ids=["create", "create_array", "put", "put_object"],
)
def test_memory_is_waited_for_as_long_as_was_asked(fake_socket, call):
    proxy = fake_socket(full)
    with proxy.client(Client) as client:
        assert client.transport == "socket"
        with pytest.raises(zipline_sdk.BufferFullError):
            call(client)
    assert [frame.wait for frame in proxy.of_kind(GRANT)] == [0.25]


@pytest.mark.parametrize("wait", [-1, 61, float("nan")])
def test_a_wait_out_of_bounds_is_named(zipline_client, wait):
    with pytest.raises(ValueError, match="wait="):
        zipline_client.create(1, wait=wait)
    with pytest.raises(ValueError, match="wait="):
        zipline_client.create_array(1, wait=wait)


def test_a_timeout_ends_a_wait_for_memory_that_is_longer(fake_socket):
    proxy = fake_socket(lambda proxy, frame: None)
    with proxy.client(Client) as client:
        for call in (lambda: client.create(10, wait=60, timeout=0.05), lambda: client.put(b"x", wait=60, timeout=0.05)):
            with pytest.raises(zipline_sdk.DeadlineExceededError):
                call()


def test_a_put_whose_answer_comes_too_late_is_released(fake_socket):
    late = []

    def answer(proxy, frame):
        if frame.kind == PUT_INLINE and not late:
            late.append(frame.request)
        elif frame.kind == PUT_INLINE:
            proxy.put_done(late[0], "zl1.late")
            proxy.put_done(frame.request, "zl1.intime")

    proxy = fake_socket(answer)
    with proxy.client(Client) as client:
        with pytest.raises(zipline_sdk.DeadlineExceededError):
            client.put(b"x", wait=60, timeout=0.05)
        assert str(client.put(b"x")) == "zl1.intime"
        proxy.hears(RELEASE)


def test_what_really_bounds_a_life_is_said(fake_socket):
    lives = iter([(7.5, DRAIN, "drain"), (3600, MAXIMUM, "maximum")])
    said = []

    def answer(proxy, frame):
        ttl, bound, word = next(lives)
        said.append((ttl, word))
        proxy.put_done(frame.request, "zl1.abc", ttl, bound)

    with fake_socket(answer).client(Client) as client:
        found = [client.put(b"x", confirm=True) for _ in range(2)]
    assert [(reference.ttl, reference.bounded_by) for reference in found] == said


# --- many ---


class Holder:
    """Answers gets in an order of its own: what is `slow` only when everything else was asked for and answered."""

    def __init__(self, slow=(), fails=()):
        self.slow, self.fails = set(slow), set(fails)
        self.waiting, self.answered, self.in_flight, self.most = [], 0, 0, 0

    def __call__(self, proxy, frame):
        if frame.kind != GET:
            return
        asked = [(frame.request, at, index_of(reference)) for at, reference in enumerate(frame.references)]
        self.in_flight += len(asked)
        self.most = max(self.most, self.in_flight)
        self.waiting += [one for one in asked if one[2] in self.slow]
        quick = [one for one in asked if one[2] not in self.slow]
        for one in reversed(quick):
            self.give(proxy, one)
        if self.answered == 100 - len(self.slow):
            for one in self.waiting:
                self.give(proxy, one)

    def give(self, proxy, one):
        request, at, index = one
        self.answered += 1
        self.in_flight -= 1
        if index in self.fails:
            proxy.error(request, "payload-lost", "gone", at)
        else:
            proxy.got(request, at, bytes([index]))


def got_by(make, proxy, **options):
    """What `get_many` of 100 references yields, in order."""

    async def asynchronous():
        async with proxy.client(aio.Client) as client:
            return [one async for one in client.get_many(REFERENCES[:100], **options)]

    if make is aio.Client:
        return asyncio.run(asynchronous())
    with proxy.client(Client) as client:
        return list(client.get_many(REFERENCES[:100], **options))


@pytest.fixture(params=[Client, aio.Client], ids=["blocking", "asyncio"])
def make(request):
    return request.param


@pytest.mark.parametrize("concurrency", [None, 2, 7, 64])
def test_slow_payloads_hold_up_nobody_else(fake_socket, make, concurrency):
    # At least one of those in flight is quick.
    holder = Holder(slow=[0])
    got = got_by(make, fake_socket(holder), concurrency=concurrency)
    assert sorted(index for index, _ in got) == list(range(100))
    assert all(bytes(payload) == bytes([index]) for index, payload in got)
    place = [index for index, _ in got].index(0)
    assert place >= 100 - (concurrency or 32), "it came when the last others did"


def test_small_ones_share_frames(fake_socket, make):
    proxy = fake_socket(Holder())
    got_by(make, proxy)
    assert len(proxy.of_kind(GET)[0].references) == 32
    assert len(proxy.of_kind(GET)) <= 8


def test_no_more_are_in_flight_than_was_said(fake_socket, make):
    proxy = fake_socket(lambda proxy, frame: None)
    if make is Client:
        with proxy.client(Client) as client, pytest.raises(zipline_sdk.DeadlineExceededError):
            # The fake answers nothing, not even that the time is over.
            next(client.get_many(REFERENCES, concurrency=5, timeout=0.05))
    else:

        async def main():
            async with proxy.client(aio.Client) as client:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await anext(client.get_many(REFERENCES, concurrency=5))

        asyncio.run(main())
    proxy.hears(CANCEL)
    assert [len(frame.references) for frame in proxy.of_kind(GET)] == [5]


def test_what_nobody_takes_is_not_asked_for(fake_socket):
    proxy = fake_socket(Holder())
    with proxy.client(Client) as client, contextlib.closing(client.get_many(REFERENCES[:100], concurrency=10)) as got:
        next(got)
        next(got)
    assert sum(len(frame.references) for frame in proxy.of_kind(GET)) <= 10


def test_errors_come_in_the_place_of_their_payloads(fake_socket, make):
    got = dict(got_by(make, fake_socket(Holder(fails=[3, 99])), errors="return"))
    assert {index for index, result in got.items() if isinstance(result, zipline_sdk.PayloadLostError)} == {3, 99}
    assert str(got[3].reference) == REFERENCES[3]


def test_the_first_error_ends_it(fake_socket, make):
    with pytest.raises(zipline_sdk.PayloadLostError) as caught:
        got_by(make, fake_socket(Holder(fails=[3, 4])))
    assert str(caught.value.reference) in (REFERENCES[3], REFERENCES[4])


def test_a_connection_that_breaks_loses_only_what_was_on_its_way(fake_socket):
    def answer(proxy, frame):
        if index_of(frame.references[0]) == 0:
            proxy.got(frame.request, 1, b"one")
            proxy.link.shutdown(2)
            return
        for at in range(len(frame.references)):
            proxy.got(frame.request, at, b"later")

    with fake_socket(answer).client(Client) as client:
        got = dict(client.get_many(REFERENCES[:12], concurrency=4, errors="return"))
    assert len(got) == 12 and bytes(got.pop(1)) == b"one"
    lost = {index for index, result in got.items() if isinstance(result, zipline_sdk.UpstreamFailedError)}
    assert lost == {0, 2, 3}
    assert all(bytes(got[index]) == b"later" for index in range(4, 12))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"errors": "ignore"}, "errors='ignore'"), ({"concurrency": 0}, "concurrency=0"), ({"timeout": 0}, "timeout=0")],
    ids=str,
)
def test_arguments_are_checked_before_anything_is_done(fake_socket, make, wrong, words):
    proxy = fake_socket(Holder())
    for client in (make.local(), proxy.client(make)):
        with pytest.raises(ValueError, match=words):
            client.get_many(REFERENCES[:1], **wrong)
        if "timeout" not in wrong:
            with pytest.raises(ValueError, match=words):
                client.map("f", [b""], **wrong)
    assert not proxy.frames


# --- references in advance ---


class Issuer:
    """Issues references, and answers puts that want one."""

    def __init__(self):
        self.issued = 0
        self.fails = False

    def __call__(self, proxy, frame):
        if frame.kind == ISSUE:
            start, self.issued = self.issued, self.issued + 32
            proxy.issued(frame.request, [(bytes([n]) * 16, f"zl1.issued{n}") for n in range(start, self.issued)])
        elif frame.kind == PUT_INLINE:
            proxy.put_done(frame.request, "zl1.answered")
        elif frame.kind == PUT_ISSUED_INLINE and self.fails:
            proxy.error(frame.request, "buffer-full", "nothing was put: no memory")
        elif frame.kind == SETTLE:
            proxy.ok(frame.request)


def test_small_puts_of_a_kind_that_comes_again_are_not_waited_for(fake_socket):
    proxy = fake_socket(Issuer())
    with proxy.client(Client) as client:
        put = [client.put(bytes([index]), content_type="a/b") for index in range(20)]
        client.settle()
    names = [str(reference) for reference in put]
    assert names[:2] == ["zl1.answered"] * 2
    assert names[2:] == [f"zl1.issued{n}" for n in range(18)], "each has one of its own"
    sent = proxy.of_kind(PUT_ISSUED_INLINE)
    assert [(frame.payload, frame.data) for frame in sent] == [(bytes([n]) * 16, bytes([n + 2])) for n in range(18)]
    (issue,) = proxy.of_kind(ISSUE)
    assert issue.terms == proxy.of_kind(PUT_INLINE)[0].terms == (1, 60.0, 0.0, 5.0, "a/b")
    assert (put[5].length, put[5].ttl, put[5].bounded_by) == (1, 60, "requested") and "test_frames.py" in put[5].put_at


def test_puts_are_waited_for_where_that_was_asked_and_where_keys_may_not_last(fake_socket):
    proxy = fake_socket(Issuer())
    with proxy.client(Client) as client:
        for options in ({"confirm": True}, {"ttl": 3000}):
            assert {str(client.put(b"x", **options)) for _ in range(5)} == {"zl1.answered"}
        kinds = [{"content_type": f"x/{n}"} for n in range(5)]
        assert {str(client.put(b"x", **options)) for options in kinds} == {"zl1.answered"}
    assert not proxy.of_kind(ISSUE), "nothing is issued for puts that come once"


def test_after_a_put_that_failed_they_are_waited_for_and_settle_says_why(fake_socket):
    issuer = Issuer()
    proxy = fake_socket(issuer)
    with proxy.client(Client) as client:
        assert str([client.put(b"x") for _ in range(3)][-1]) == "zl1.issued0"
        issuer.fails = True
        client.put(b"x")
        with pytest.raises(zipline_sdk.BufferFullError, match="no memory"):
            client.settle()
        client.settle()
        issuer.fails = False
        assert str(client.put(b"x")) == "zl1.answered"
        assert str(client.put(b"x")) == "zl1.issued2"


def test_a_queue_proxy_that_issues_nothing_is_hardly_asked_again(fake_socket):
    class Refuser(Issuer):
        def __call__(self, proxy, frame):
            if frame.kind == ISSUE:
                return proxy.error(frame.request, "upstream-failed", "no key")
            return super().__call__(proxy, frame)

    proxy = fake_socket(Refuser())
    with proxy.client(Client) as client:
        assert {str(client.put(b"x")) for _ in range(50)} == {"zl1.answered"}
        client.settle()
    assert len(proxy.of_kind(ISSUE)) == 1
