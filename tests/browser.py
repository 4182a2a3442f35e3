"""A real browser for tests and measurements: pages that report every error and outside request."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LOCAL = {"127.0.0.1", "localhost", None}


def chromium_path() -> str | None:
    """Return where Chromium is: ``CHROMIUM_PATH``, or one that the system knows."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = (os.environ.get("CHROMIUM_PATH"), *(shutil.which(name) for name in names))
    return next((path for path in found if path), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def serve(**options: Any) -> Iterator[str]:
    """Serve the app in this process and give its address."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from app import ui

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    demo = ui.build()
    demo.launch(
        prevent_thread_lock=True,
        server_name="127.0.0.1",
        server_port=port,
        quiet=True,
        **ui.launch_options() | options,
    )
    yield f"http://127.0.0.1:{port}"
    demo.close()


def watch(page: Any) -> list[str]:
    """Note every error in the console, uncaught exception, dialog and request to the outside."""
    faults: list[str] = []

    def dialog(box: Any) -> None:
        faults.append(f"dialog: {box.message}")
        box.dismiss()

    def request(asked: Any) -> None:
        parts = urlsplit(asked.url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in LOCAL:
            faults.append(f"outside request: {asked.url}")

    page.on("console", lambda m: m.type == "error" and faults.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: faults.append(f"exception: {error}"))
    page.on("dialog", dialog)
    page.on("request", request)
    return faults
