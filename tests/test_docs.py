"""README and docs: every command and snippet is run; of one for a cluster the flags are read."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import fusion_core
from fusion_core import cli, corpus
from fusion_core.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = re.compile(r"\b(T|A|B|TARGET|SOURCE|Qwen/\S+|http://\S+)\b")
ELSEWHERE = ("vllm", "hf", "npm", "accelerate")
"""Programs of others; what they start of ours has its flags read."""
SLOW = ("--suite toy", "fusion_core compare")
FRAGMENTS = ("elif ", "if self.", "class ModelsView", "with _tab", "encoding = tokens.from_transf")
"""Beginnings of lines that go into the midst of a file."""


class Block(NamedTuple):
    """A fenced block: its page, language and text."""

    page: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    """List the blocks of a language in all pages."""
    fence = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.M | re.S)
    return [
        Block(page.name, found[2], textwrap.dedent(found[3]))
        for page in PAGES
        for found in fence.finditer(page.read_text(encoding="utf-8"))
        if found[2] == language
    ]


def commands() -> list[Any]:
    """List every command of the blocks, and those of code within lines; slow ones marked."""
    lines = [(b.page, line) for b in blocks("sh") for line in joined(b.text)]
    for page in PAGES:
        text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        found = re.findall(r"`((?:python|pytest|hf|pip|mkdocs|zensical) [^`]*)`", text)
        lines += [(page.name, " ".join(line.split())) for line in found]
    parts = [(p, part) for p, line in lines for part in line.split(" && ")]
    return [
        pytest.param(
            part,
            id=f"{page}: {part[:60]}",
            marks=[pytest.mark.slow] if any(s in part for s in SLOW) else [],
        )
        for page, part in dict.fromkeys(parts)
    ]


def joined(text: str) -> Iterator[str]:
    """Join continued lines, and take remarks off."""
    for line in text.replace("\\\n", " ").splitlines():
        if bare := re.sub(r"(^|\s)#\s.*", "", line).strip():
            yield " ".join(bare.split()) if '"' not in bare else bare


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make, once a page, a folder with the files that the pages speak of."""

    @cache
    def make(page: str) -> Path:
        folder = tmp_path_factory.mktemp("page")
        corpus.write(folder / "docs.txt", corpus.text("code", "test", 900))
        corpus.write(folder / "held-out.txt", corpus.text("code", "validation", 600))
        talk = [{"role": "user", "content": "Hello"}]
        (folder / "talk.json").write_text(json.dumps(talk), encoding="utf-8")
        (folder / "run.yaml").write_text(f"{run_file()}max_steps: 2\n", encoding="utf-8")
        return folder

    return make


@pytest.fixture
def here(
    scenes: Callable[[str], Path], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Go to the folder of the page that the test is of."""
    monkeypatch.chdir(scenes(request.node.callspec.id.partition(":")[0]))


def run_file() -> str:
    return next(b.text for b in blocks("yaml") if b.text.startswith("# run.yaml"))


@pytest.mark.parametrize("line", commands())
def test_a_command_works(line: str, here: None) -> None:
    words = shlex.split(line)
    while "=" in words[0]:  # a variable of the environment
        words.pop(0)
    if words[0] in ELSEWHERE and "-m" not in words:
        return
    if words[0] in ("pip", "zensical"):
        assert all((ROOT / w).is_file() for w in words if w.endswith(".txt"))
    elif words[0] == "pytest":
        assert not [w for w in words if w.startswith("tests/") and not list(ROOT.glob(w))]
    elif "-m" in words and words[0] in ("python", "accelerate"):
        ours(words[words.index("-m") + 1 :], line)
    else:
        assert words[0] == "python"
        assert (ROOT / words[1]).is_file(), line


def ours(words: list[str], line: str) -> None:
    """Run a command of ours, or read its flags where it names what is not here."""
    module, arguments = words[0], words[1:]
    if not module.startswith("fusion_core"):
        assert module in ("llama_cpp.server",)  # of another package
    elif module == "fusion_core" and (not arguments or "…" in line):
        assert cli.COMMANDS
    elif module == "fusion_core" and arguments[0] in cli.COMMANDS:
        options = cli._parser().parse_args(arguments)
        if not PLACEHOLDERS.search(line) and "accelerate" not in line and "name" not in arguments:
            assert cli.main([*arguments, "--json"]) == 0, options
    elif module == "fusion_core.corpus":
        arguments[arguments.index("docs.txt")] = "made.txt"
        subprocess.run(
            [sys.executable, "-m", module, *arguments], check=True, env={"PYTHONPATH": str(ROOT)}
        )
        assert Path("made.txt").stat().st_size > 3000
    else:
        assert importlib.import_module(f"{module}.__main__"), line


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda b: f"{b.page}: {b.text[:30]}")
def test_a_runs_file_is_read(block: Block) -> None:
    needed = {"target": "zoo:llama", "data": "docs.txt", "sources": ["zoo:mpt-code"]}
    RunConfig.of(needed | yaml.safe_load(block.text))


@pytest.mark.parametrize("block", blocks("python"), ids=lambda b: f"{b.page}: {b.text[:30]}")
def test_a_snippet_runs(block: Block, here: None, request: pytest.FixtureRequest) -> None:
    text = block.text
    if text.startswith(FRAGMENTS):
        return
    if "gradio_client" in text:
        text = text.replace("http://127.0.0.1:7860", request.getfixturevalue("address"))
    scope = surroundings()
    code, _, entry = text.rpartition('\n"') if not text.startswith('"') else ("", "", text[1:])
    if entry and re.match(r"\w+\": ", entry):  # an entry of a registry
        exec(code, scope)
        assert eval("{" + f'"{entry}' + "}", scope)
    else:
        text = text.replace("runs/first", f"runs/{abs(hash(block))}")
        exec(text, scope)


def surroundings() -> dict[str, Any]:
    """Return the names that a snippet finds in the file, or the session, that it belongs to."""
    from fusion_core import losses, mapping
    from fusion_core.fuse import operators
    from fusion_core.mapping import maps

    class FirstByte(mapping.VocabMapping):
        """As in test_walk.py."""

    rooms = (losses.divergences, maps, mapping, operators)
    scope: dict[str, Any] = {k: v for room in rooms for k, v in vars(room).items() if k[:2] != "__"}
    scope |= {
        "FirstByte": FirstByte,
        "folded": maps.exact,
        "fl": fusion_core,
        "text": "def add(a, b):",
    }
    scope |= {"TextTokenizer": fusion_core.tokens.TextTokenizer}
    scope["more_texts"] = corpus.text("code", "test", 900)
    target = fusion_core.load("zoo:llama")
    return scope | {"target": target, "sources": [fusion_core.load("zoo:mpt-code")]}


def test_the_reference_names_everything_that_the_package_offers() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in set(fusion_core.__all__) - {"plots"}:
        offered = getattr(fusion_core, name)
        assert f"::: {offered.__module__}.{name}\n" in page, name


def test_examples_in_docstrings() -> None:
    """Modules are found, not listed; those with an example are imported, and it is run."""
    tried = 0
    for module in pkgutil.walk_packages(fusion_core.__path__, "fusion_core."):
        path = Path(importlib.util.find_spec(module.name).origin)
        if re.search(r"^ +>>> ", path.read_text(encoding="utf-8"), re.M):
            found = doctest.testmod(importlib.import_module(module.name))
            assert not found.failed, module.name
            tried += found.attempted
    assert tried >= 0


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == fusion_core.__version__
    assert cited["title"].startswith("FuseLab")


def test_the_front_page_is_short() -> None:
    """Two screens: what it is, a picture, commands, five lines, the peers, what was measured."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("\n# ", 1)[1]
    assert len(text.split("\n## ")[0].splitlines()) <= 70


def test_the_sites_pages_are_there() -> None:
    """Its generator checks links in pages, and no entry of the navigation."""
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    site_pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site_pages)
    pages = re.findall(
        r"^ .*?- (?:\w+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M
    )
    assert set(pages) - set(site_pages.SHOWN.values()) == {"commands.md"}
    written = {p.name for p in (ROOT / "docs").glob("*.md")} | {"index.md"}
    assert written <= set(pages), "a page that no entry leads to"


def test_every_figure_is_there() -> None:
    """The pages of measurements are linked from the page that collects them."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    named = set(re.findall(r"benchmarks/results/(\w+\.md)", page))
    assert {p.name for p in (ROOT / "benchmarks" / "results").glob("*.md")} - named <= {
        "mutation.md"
    }
