"""How events of a tab answer: progress, a result, or one sentence that says what was wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from gradio.context import LocalContext

from fusion_core import errors

from ..components import Panel, failed
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


def report_errors(view: Callable[..., Panel], steps: Iterator[Any]) -> Iterator[Any]:
    """Pass a tab's answers on; an error becomes the view's notice, so that no page waits."""
    try:
        yield from steps
    except Exception as error:
        yield view(notice=failed(sentence(error)))
