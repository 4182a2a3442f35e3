"""Visitors of the app in a real browser, as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import browser as real
import pytest

from fusion_core import zoo
from fusion_core.errors import FusionError

WAIT = 30_000


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app, served in this process."""
    try:
        for name in zoo.NAMES:
            zoo.path(name)
    except FusionError as error:
        pytest.skip(f"the zoo has not been built: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSELAB_RUNS", str(tmp_path_factory.mktemp("runs")))
        with real.serve() as url:
            yield url


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser for all tests."""
    pytest.importorskip("playwright", reason="the browser tests need playwright")
    if not real.chromium_path():
        pytest.skip("there is no Chromium: set CHROMIUM_PATH to one")
    with real.chromium() as found:
        yield found


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page as a new visitor; at the end no page may have had an error."""
    opened: list[tuple[Any, list[str]]] = []

    def open_page(
        width: int = 1440,
        height: int = 1000,
        theme: str = "light",
        query: str = "",
        shows: str = ".fl-cards .fl-card",
        context: Any = None,
    ) -> Any:
        if context is None:
            context = chromium.new_context(
                viewport={"width": width, "height": height}, accept_downloads=True
            )
        page = context.new_page()
        page.set_default_timeout(WAIT)
        opened.append((context, real.watch(page)))
        page.goto(f"{address}/?__theme={theme}" + (f"&{query}" if query else ""))
        page.wait_for_selector(shows)
        return page

    yield open_page
    faults = [fault for _, found in opened for fault in found]
    for context in {id(c): c for c, _ in opened}.values():
        context.close()
    assert faults == [], faults
