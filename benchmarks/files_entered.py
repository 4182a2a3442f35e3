"""Files that one reads to follow a command: `python benchmarks/files_entered.py [fuse train …]`.

A file counts where one of its functions is called, not where it is imported. `fuse` and `train` are
the commands on embedded models, `analyze` is what the button of the page does until its score is
drawn. Each runs once before it is traced, so that maps of vocabularies are in their cache.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import app.ui
import fusion_core
from fusion_core import cli, corpus

PACKAGES = ("fusion_core", "app")
MODELS = ["--target", "zoo:llama", "--source", "zoo:mpt-code", "--source", "zoo:gpt2-story"]
RUN = """target: zoo:llama
sources: [zoo:mpt-code, zoo:gpt2-story]
data: data.txt
max_steps: 2
batch_size: 1
block_size: 128
"""


def fuse() -> Callable[[], Any]:
    """Return `python -m fusion_core fuse` on a line of code."""
    return lambda: cli.main(["fuse", *MODELS, "--text", "def add(a, b):\n    return a + b\n"])


def train() -> Callable[[], Any]:
    """Return `python -m fusion_core train` with a short run of its own folder."""
    folder = Path(tempfile.mkdtemp())
    corpus.write(folder / "data.txt", corpus.text("code", "train", 1500, seed=3))
    (folder / "run.yaml").write_text(RUN)
    out = str(folder / "run")
    return lambda: cli.main(["train", "--config", str(folder / "run.yaml"), "--out", out])


def analyze() -> Callable[[], Any]:
    """Return what a press of the page's button does with what the page begins with."""
    page = app.ui.build()
    button = next(b for b in page.blocks.values() if getattr(b, "elem_id", "") == "analyze")
    press = next(f for f in page.fns.values() if (button._id, "click") in f.targets)
    given = [getattr(block, "value", None) for block in press.inputs]
    return lambda: list(press.fn(*given))


WAYS = {"fuse": fuse, "analyze": analyze, "train": train}


def entered(call: Callable[[], Any]) -> Counter[str]:
    """Count the function calls of every file of ours while something is called."""
    found: Counter[str] = Counter()
    under = tuple(str(ROOT / package) + "/" for package in PACKAGES)

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        function = code.co_flags & inspect.CO_OPTIMIZED  # else the body of a module or class
        if event == "call" and function and code.co_filename.startswith(under):
            found[str(Path(code.co_filename).relative_to(ROOT))] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def measure(way: str) -> Counter[str]:
    """Trace one of `WAYS`, once everything is imported and in the caches of the disk."""
    for name in modules():
        importlib.import_module(name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        WAYS[way]()()
        return entered(WAYS[way]())


def modules() -> Iterator[str]:
    """Name the library's modules, but for those that run when they are imported."""
    for module in pkgutil.walk_packages(fusion_core.__path__, "fusion_core."):
        if not module.name.endswith("__main__"):
            yield module.name


def main(ways: list[str]) -> None:
    """Print the files of each way, with the calls of their functions."""
    for way in ways or WAYS:
        files = measure(way)
        of = Counter(name.partition("/")[0] for name in files)
        print(f"{way}: {len(files)} files ({', '.join(f'{p} {n}' for p, n in of.items())})")
        for name, calls in sorted(files.items()):
            print(f"  {name:42} {calls:,}")


if __name__ == "__main__":
    main(sys.argv[1:])
