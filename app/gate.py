"""What comes from a client is counted before it is read: calls, uploads, bytes, hosts.

A middleware of the served app. What it refuses is answered by one sentence.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse

from fusion_core.errors import size_of

from .limits import Limits, client_address

UNREAD_SECONDS = 10.0
"""After which a call whose answer nobody reads is ended."""

LOOK_SECONDS = 1.0
MOST_JSON = 1_000_000
"""Bytes of a posted call beside its text."""

ESCAPED = 6
"""Bytes that one of a text may take in JSON."""

LOCAL = {"localhost", "127.0.0.1", "::1", "[::1]"}


class Gate:
    """Middleware that holds clients to limits."""

    def __init__(self, app: Any, limits: Limits) -> None:
        """Stand before an app."""
        self._app, self._limits = app, limits
        self._reading: Counter[str] = Counter()
        self._uploads: deque[tuple[float, str, int]] = deque()
        self._watch: asyncio.Task[None] | None = None
        hosts = os.environ.get("FUSELAB_HOSTS", "")
        self._hosts = LOCAL | {h.strip().lower() for h in hosts.split(",") if h.strip()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        address = client_address((scope.get("client") or ("",))[0], headers.get("x-forwarded-for"))
        refusal = self._refusal(scope, headers, address)
        if refusal:
            status, words = refusal
            answer = JSONResponse({"error": words, "detail": words}, status_code=status)
            await answer(scope, receive, send)
            return
        if scope["method"] == "POST" and not scope["path"].endswith("/upload"):
            receive = _within(receive, self._most)
        name = _read(scope)
        self._reading[name] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._reading[name] -= 1
            if not self._reading[name]:
                del self._reading[name]
            if name and "/call/" in scope["path"]:  # nobody comes back to what it kept of the page
                holder = scope["app"].state_holder
                holder.session_data.pop(name, None)
                holder.time_last_used.pop(name, None)

    @property
    def _most(self) -> int:
        """Bytes of a posted call, at the most."""
        return MOST_JSON + ESCAPED * self._limits.data_bytes

    def _refusal(self, scope: Any, headers: dict[str, str], address: str) -> tuple[int, str] | None:
        """Say with which status and words a request is refused, if it is."""
        if not self._is_ours(scope, headers.get("host", "")):
            return 403, (
                "This page answers to its own address alone: open it as localhost, or name the "
                "host in FUSELAB_HOSTS."
            )
        if scope["method"] != "POST":
            return None
        length = headers.get("content-length", "")
        size = int(length) if length.isdecimal() and len(length) < 20 else None
        if scope["path"].endswith("/upload"):
            return self._upload(address, size)
        if size is not None and size > self._most:
            return 413, f"A call may have {size_of(self._most)}: give a shorter text."
        if "/queue/join" in scope["path"] or "/call/" in scope["path"]:
            return self._call(scope, address)
        return None

    def _is_ours(self, scope: Any, host: str) -> bool:
        """Tell whether the host that is asked for is this one, where it serves this machine alone.

        A page of a stranger may let its own name lead here, and read what is answered.
        """
        here = (scope.get("server") or ("",))[0]
        if self._limits.public or here not in LOCAL or "*" in self._hosts:
            return True
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        return name.lower() in self._hosts or bool(os.environ.get("GRADIO_SHARE"))

    def _upload(self, address: str, size: int | None) -> tuple[int, str] | None:
        limits, now = self._limits, time.monotonic()
        if limits.uploads_by_address is None or limits.uploads_in_all is None:
            return None
        if size is None:
            return 411, "An upload says how long it is: send its Content-Length."
        while self._uploads and now - self._uploads[0][0] > (limits.kept_seconds or 3600):
            self._uploads.popleft()
        theirs = sum(n for _, a, n in self._uploads if a == address)
        everyone = sum(n for _, _, n in self._uploads)
        if theirs + size > limits.uploads_by_address or everyone + size > limits.uploads_in_all:
            return 429, "Too much has been uploaded in the last hour: try again later."
        self._uploads.append((now, address, size))
        return None

    def _call(self, scope: Any, address: str) -> tuple[int, str] | None:
        blocks = scope["app"].get_blocks()
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._end_unread(blocks))
        most = self._limits.calls_by_address
        if most is not None and sum(_from(e) == address for e in pending(blocks)) >= most:
            return 429, f"You have {most} calls that wait or run: wait for an answer first."
        return None

    async def _end_unread(self, blocks: Any) -> None:
        """End calls that nobody reads, as long as there are any."""
        queue = blocks._queue
        while events := pending(blocks):
            late = time.monotonic() - UNREAD_SECONDS
            for event in events:
                read = event._id in self._reading or event.session_hash in self._reading
                if event.enqueue_time < late and not read:
                    await queue.clean_events(event_id=event._id)
            await asyncio.sleep(LOOK_SECONDS)


def pending(blocks: Any) -> list[Any]:
    """Return the calls that wait in gradio's queue, and those that run."""
    queue = blocks._queue
    waiting = [e for q in queue.event_queue_per_concurrency_id.values() for e in q.queue]
    running: Iterable[Any] = (e for job in queue.active_jobs if job for e in job)
    return [*waiting, *(e for e in running if e.alive)]


def _from(event: Any) -> str:
    request = event.request
    peer = request.client.host if request.client else None
    return client_address(peer, request.headers.get("x-forwarded-for"))


def _read(scope: Any) -> str:
    """Name the session or the call whose answers a request reads; empty for others."""
    if scope["method"] != "GET":
        return ""
    if scope["path"].endswith("/queue/data"):
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        return query.get("session_hash", [""])[0]
    return scope["path"].rpartition("/")[2] if "/call/" in scope["path"] else ""


def _within(receive: Any, most: int) -> Any:
    """Let a request have so many bytes, also where it does not say how many it has."""
    had = 0

    async def counted() -> Any:
        nonlocal had
        message = await receive()
        had += len(message.get("body", b""))
        if had > most:  # as if the client had gone
            return {"type": "http.disconnect"}
        return message

    return counted
