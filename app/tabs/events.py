"""How events of a tab answer: progress, a result, or one sentence that says what was wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
from gradio.context import Context, LocalContext

from fusion_core import errors

from ..components import Panel, busy, failed
from ..limits import client_address

_log = logging.getLogger(__name__)


def sentence(error: Exception) -> str:
    """Say what was wrong; a fault of ours goes to the log with its traceback."""
    if (said := errors.sentence(error)) is not None:
        return said
    _log.error("an event failed", exc_info=error)
    return f"FuseLab failed at this ({type(error).__name__}): try other settings or text."


def visitor_address() -> str:
    """Return the address of whoever asked for the present event; empty outside of one."""
    request = LocalContext.request.get(None)
    if request is None or request.client is None:
        return ""
    return client_address(request.client.host, request.headers.get("x-forwarded-for"))


def waiting(blocks: Any, group: str) -> str | None:
    """Say which place in the queue a visitor has, and about how long they wait.

    Args:
        blocks: the page.
        group: ``concurrency_id`` of what is waited for.

    Returns:
        A sentence; None where it begins at once.
    """
    queue = blocks._queue
    line = queue.event_queue_per_concurrency_id.get(group)
    if line is None or not line.concurrency_limit:
        return None
    request = LocalContext.request.get(None)
    mine = getattr(request, "session_hash", None)
    # The server's loop changes these meanwhile.
    before = [e.fn for e in tuple(line.queue) if e.session_hash != mine]
    if line.current_concurrency < line.concurrency_limit and not before:
        return None
    running = [fn for fn, began in tuple(line.start_times_per_fn.items()) for _ in tuple(began)]
    known = queue.process_time_per_fn
    seconds = sum(known[fn].avg_time for fn in before if fn in known)
    seconds += sum(known[fn].avg_time / 2 for fn in running if fn in known)
    about = f", about {max(1, round(seconds / line.concurrency_limit))} s" if seconds else ""
    return f"Waiting for a turn: {len(before)} before you in the queue{about} …"


def announce(triggers: Sequence[Any], group: str, view: type[Panel], output: Panel) -> None:
    """Let a view say the visitor's place in the queue, before what they asked for begins.

    Args:
        triggers: events that begin it.
        group: its ``concurrency_id``.
        view: class of the output.
        output: which says it.
    """
    blocks = Context.root_block

    def place() -> Any:
        said = waiting(blocks, group)
        return view(notice=busy(said)) if said else gr.skip()

    gr.on(
        triggers, place, None, output, queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip


def report_errors(view: Callable[..., Panel], steps: Iterator[Any]) -> Iterator[Any]:
    """Pass a tab's answers on; an error becomes the view's notice, so that no page waits."""
    try:
        yield from steps
    except Exception as error:
        yield view(notice=failed(sentence(error)))
