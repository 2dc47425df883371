"""A loopback proxy before a registry that misbehaves as told, and counts what it carried.

    with flaky(registry.address) as proxy:
        proxy.fault = cut_after(1000)      # until it is changed again
        ...
        proxy.carried                      # bytes of blobs that went through to the client

A fault takes a request and the honest reply, and gives the reply to send. A refusal takes
the request alone, and gives the reply to send instead of passing it on. Requests come
whole: what breaks in the middle of one is relay.py's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from .web import Reply, Seen, forward, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .web import Site

Fault = Callable[[Seen, Reply], Reply]
Refusal = Callable[[Seen], Reply | None]


def none(seen: Seen, reply: Reply) -> Reply:
    return reply


def is_blob(seen: Seen) -> bool:
    return seen.method == "GET" and "/blobs/" in seen.path


def on_blobs(change: Callable[[Reply], Reply]) -> Fault:
    """*change* for blobs that are fetched, honesty for the rest."""
    return lambda seen, reply: change(reply) if is_blob(seen) and reply.status in (200, 206) else reply


def cut_after(count: int) -> Fault:
    """Every blob's connection breaks after *count* bytes."""
    return on_blobs(lambda reply: replace(reply, cut=count) if len(reply.body) > count else reply)


def stall_after(count: int) -> Fault:
    """Every blob's stream stops after *count* bytes, and the connection stays open."""
    return on_blobs(lambda reply: replace(reply, stall=count) if len(reply.body) > count else reply)


def corrupt_at(place: int) -> Fault:
    """One byte of every large enough blob is another."""

    def change(reply: Reply) -> Reply:
        if len(reply.body) <= place:
            return reply
        return replace(reply, body=reply.body[:place] + bytes([reply.body[place] ^ 1]) + reply.body[place + 1 :])

    return on_blobs(change)


def status(code: int, **headers: str) -> Fault:
    """Every blob is refused."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda seen, reply: Reply(status=code, headers=named) if is_blob(seen) else reply


def first(times: int, fault: Fault) -> Fault:
    """*fault* for the first *times* blobs only."""
    left = [times]

    def act(seen: Seen, reply: Reply) -> Reply:
        if is_blob(seen) and left[0] > 0:
            left[0] -= 1
            return fault(seen, reply)
        return reply

    return act


def nth(number: int, reply: Reply, *, times: int = 1) -> Refusal:
    """*reply* to the requests from the *number*-th on (from 0), *times* of them."""
    count = itertools.count()
    return lambda seen: reply if number <= next(count) < number + times else None


class FlakyProxy:
    """A running proxy; set `fault` or `refusal` to change its manners, `ignores_range` to make it deaf to Range."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.fault: Fault = none
        self.refusal: Refusal = lambda seen: None
        self.ignores_range = False
        self.carried = 0
        self.site: Site

    @property
    def address(self) -> str:
        return self.site.address

    def answer(self, seen: Seen) -> Reply:
        refused = self.refusal(seen)
        if refused is not None:
            return refused
        asked = seen
        if self.ignores_range:
            asked = replace(seen, headers={name: value for name, value in seen.headers.items() if name != "range"})
        honest = forward(self._upstream, asked)
        if "Location" in honest.headers:
            location = honest.headers["Location"].replace(self._upstream, self.address)
            honest = replace(honest, headers={**honest.headers, "Location": location})
        reply = self.fault(seen, honest)
        if is_blob(seen):
            sent = [length for length in (reply.cut, reply.stall) if length is not None]
            self.carried += min([len(reply.body), *sent])
        return reply


@contextmanager
def flaky(upstream: str) -> Iterator[FlakyProxy]:
    """A proxy before the registry at *upstream*, honest until it gets a fault."""
    proxy = FlakyProxy(upstream)
    with serving(proxy.answer) as proxy.site:
        yield proxy
