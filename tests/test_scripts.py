"""The page's modules: which are served, how they are loaded, and that they leave nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.components import PlotlyPanel, scripts
from app.tabs.align.component import AlignmentView
from app.tabs.fuse.component import FuseView
from app.tabs.generate.component import StreamView
from app.tabs.train.component import RunView

PANELS = (AlignmentView, FuseView, PlotlyPanel, RunView, StreamView)
APP = Path(scripts.__file__).parent.parent
DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)


@pytest.fixture(scope="module")
def client() -> TestClient:
    """A server of the scripts alone."""
    return TestClient(Starlette(routes=scripts.routes()))


def test_every_module_is_reached_from_a_panel_or_from_links() -> None:
    entries = [panel.script for panel in PANELS] + ["links.js"]
    reached = {name for entry in entries for name in scripts.modules(entry)}
    assert reached | {scripts.PLOTLY} == set(scripts.files())
    assert reached == {path.relative_to(APP).as_posix() for path in APP.rglob("*.js")}


def test_a_module_is_found_however_its_import_is_laid_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.js").write_text('import {\n  a,\n  b,\n} from "./two.js";\n', "utf-8")
    (tmp_path / "two.js").write_text('export { c as a } from "../three.js";\n', "utf-8")
    (tmp_path / "three.js").write_text('// import { x } from "./four.js";\n', "utf-8")
    found = {"t/one.js": "one.js", "t/two.js": "two.js", "three.js": "three.js"}
    files = {name: tmp_path / path for name, path in found.items()}
    monkeypatch.setattr(scripts, "files", lambda: files)
    assert scripts.modules("t/one.js") == ["t/one.js", "t/two.js", "three.js"]


def test_scripts_are_served_for_ever_and_nothing_else_is(client: TestClient) -> None:
    for name, path in scripts.files().items():
        answer = client.get(f"{scripts.prefix()}/{name}")
        assert answer.status_code == 200 and answer.content == path.read_bytes()
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "immutable" in answer.headers["cache-control"]
    for name in (
        *("", "ui.py", "components/panel.py", "components/base.css", "components/gradio.d.ts"),
        *("../pyproject.toml", "%2e%2e/pyproject.toml", "components/%2e%2e/ui.py"),
        *("/etc/passwd", "%2Fetc%2Fpasswd", "components//dom.js", "components/dom.js%00"),
    ):
        assert client.get(f"{scripts.prefix()}/{name}").status_code == 404, name
    assert client.get("/scripts/0123456789abcdef/links.js").status_code == 404


def test_the_address_changes_with_any_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = scripts.prefix.__wrapped__
    before = prefix()
    assert before == scripts.prefix()
    changed = tmp_path / "dom.js"
    for name in ("links.js", "components/dom.js", "tabs/train/view.js"):
        changed.write_text("export const a = 1;\n", "utf-8")
        files = scripts.files() | {name: changed}
        with monkeypatch.context() as patch:
            patch.setattr(scripts, "files", lambda files=files: files)
            assert prefix() != before


def test_arguments_of_a_call_cannot_end_the_page_s_script() -> None:
    call = scripts.call("links.js", "link", ["text"], ["</script><b>"])
    assert "</script>" not in call and '["text"], ["<\\/script><b>"], ...values' in call


@pytest.mark.parametrize("panel", PANELS)
def test_events_are_named_and_props_are_not(panel: type[Any]) -> None:
    """Gradio takes a word in quotes in `js_on_load` for the name of an event."""
    view = panel(render=False)
    assert all(hasattr(view, event) for event in panel.triggers)
    assert not any(hasattr(view, prop) for prop in ("content", "notice", "server", "element"))


@pytest.mark.browser
def test_a_page_loads_each_module_once_and_leaves_no_global(visit: Callable[..., Any]) -> None:
    page = visit()
    loaded = page.evaluate(
        "performance.getEntriesByType('resource').map(e => new URL(e.name).pathname)"
    )
    ours = sorted(path for path in loaded if path.startswith("/scripts/"))
    wanted = {*scripts.modules(AlignmentView.script), *scripts.modules("links.js")}
    assert ours == sorted(f"{scripts.prefix()}/{name}" for name in wanted)
    for tab in ("Fuse", "Generate", "Train"):
        page.get_by_role("tab", name=tab).click()
        page.locator(f"#{tab.lower()}-view .fuselab-view").wait_for(state="attached")
    texts = [(APP / name).read_text("utf-8") for name in scripts.files() if name != scripts.PLOTLY]
    declared = sorted({name for text in texts for name in DECLARED.findall(text)})
    assert {"mount", "hue", "drawStrip", "Panel", "toSvg"} <= set(declared)
    leaked = page.evaluate(
        """(declared) => {
          const frame = document.body.appendChild(document.createElement("iframe"));
          const untouched = frame.contentWindow;
          const found = declared.filter((name) => name in window && !(name in untouched)
            && !(window[name] instanceof Element)); // an element's id
          frame.remove();
          return [...found, ...Object.keys(window).filter((name) => /fuselab/i.test(name))];
        }""",
        declared,
    )
    assert leaked == []


@pytest.mark.browser
def test_a_script_that_does_not_come_is_one_sentence(chromium: Any, address: str) -> None:
    page = chromium.new_page()
    page.route("**/tabs/align/cards.js", lambda route: route.abort())
    page.goto(address)
    page.locator("#align-view", has_text="A script did not come: reload the page.").wait_for()
    page.close()


@pytest.mark.browser
def test_winners_that_are_no_source_have_names(visit: Callable[..., Any]) -> None:
    """-1: all weigh alike; -2: the source has no row here, and the target's is taken."""
    page = visit()
    drawn = page.evaluate(
        """async (prefix) => {
          const [strip, text] = await Promise.all([
            import(prefix + "/tabs/align/strip.js"), import(prefix + "/tabs/fuse/text.js"),
          ]);
          const box = () => document.createElement("div");
          const winners = [0, -1, -2, -2, 1];
          const token = (_, i) => [i, i + 1, i, i + 1, i, 1, "x", i];
          const lane = (name) => ({ name, short: name, tokens: winners.map(token), lost: [] });
          const score = { winners, lanes: ["a", "b", "t"].map(lane), starts: [0] };
          const parts = { strip: box() };
          strip.drawStrip({ parts }, score);
          const view = { text: box(), page: 0 };
          const tokens = winners.map((winner) => ["x", winner, [0.5, 0.5], [1, 1, 1, 1]]);
          text.drawText(view, { names: ["a", "b"], tokens }, () => {});
          const items = (node) => [...node.querySelectorAll("li")].map((n) => n.textContent);
          return {
            strip: items(parts.strip),
            text: items(view.text).map((t) => t.replace(/^abc/, "")),
            labels: [...view.text.querySelectorAll("[data-at]")].map((n) => n.ariaLabel),
          };
        }""",
        scripts.prefix(),
    )
    assert drawn["strip"] == ["a 1", "b 1", "all alike 1", "the target's own row 2"]
    assert drawn["text"] == [
        *("a 20.0 %", "b 20.0 %", "all alike 20.0 %", "the target's own row 40.0 %"),
    ]
    assert drawn["labels"] == [
        *("x, a", "x, all alike", "x, the target's own row", "x, the target's own row", "x, b"),
    ]


@pytest.mark.browser
def test_the_level_is_shown_where_there_is_one(visit: Callable[..., Any]) -> None:
    page = visit()
    titles = page.evaluate(
        """async (prefix) => {
          const { drawCards } = await import(prefix + "/tabs/align/cards.js");
          const row = { bars: [["x", 1, true]], tail: 0 };
          const title = (details) => {
            const fused = { row, ce: 1, entropy: 0, winner: -1, details };
            const target = { name: "t", row, ce: 1 };
            const drawn = drawCards({ index: 0, after: "", target, sources: [], fused }, []);
            return drawn.querySelector("h4").textContent;
          };
          return [
            title({ operator: "min_ce", level: "token" }), title({ operator: "mean", level: "" }),
            title({ operator: "anything" }),
          ];
        }""",
        scripts.prefix(),
    )
    assert titles == ["MinCE, token level", "mean", "anything"]
