"""Bad calls of the command line: values that no flag, file or setting should have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PAIR = ("--target", "zoo:llama", "--source", "zoo:mpt-code")
NUMBERS = (
    "1e-320",
    "1e-40",
    "1e-9",
    "1e38",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "9" * 30,
    "",
    "x",
    "0x10",
    "½",
    "1_0",
)
FLAGS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("fuse", *PAIR, "--text", "some text"): (
        "--temperature", "--prune", "--top-k", "--source-top-k", "--source-top-p", "--seed",
        "--source-samples", "--overlap", "--operator-temperature", "--max-gb",
    ),
    ("generate", *PAIR, "--prompt", "a", "--max-new-tokens", "2"): (
        "--temperature", "--top-p", "--top-k", "--seed", "--max-new-tokens", "--max-gb",
    ),
    ("evaluate", "--model", "zoo:llama", "--text-file", "TEXT"): ("--overlap", "--max-gb"),
    ("cache", *PAIR, "--data", "TEXT", "--out", "OUT"): ("--shard-bytes", "--top-k", "--prune"),
}  # fmt: skip
YAML = {
    "nan": "{target: 'zoo:llama', sources: ['zoo:mpt-code'], data: TEXT, learning_rate: .nan}",
    "inf": "{target: 'zoo:llama', sources: ['zoo:mpt-code'], data: TEXT, lm_weight: .inf}",
    "huge": "{target: 'zoo:llama', sources: ['zoo:mpt-code'], data: TEXT, batch_size: 1"
    + "0" * 30
    + "}",
    "a list": "[1, 2]",
    "a number": "3",
    "nothing": "",
    "a date": "{target: 2020-01-01, sources: [], data: TEXT}",
    "keys": "{1: 2, [3]: 4}",
    "unhashable": "{? {a: 1} : 2}",
    "a tag": "!!python/object/apply:os.system ['true']",
    "twice": "{target: a, target: b}",
    "recursion": "&a [*a]",
    "a recursive target": "{target: &a [*a], sources: [], data: TEXT}",
    "depth": "[" * 5000,
    "tabs": "\t\t:",
    "binary": "\x00\x01",
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    )
    + "target: *j\nsources: *j\ndata: *j\n",
    "deep arguments": "arguments: {x: &a [1, 1, 1], y: *a}\ntarget: x\nsources: []\ndata: TEXT\n",
    "a large batch": "{target: 'zoo:llama', sources: ['zoo:mpt-code'], data: TEXT, "
    "batch_size: 999999999}",
    "a merge": "a: &a {x: 1}\n<<: [*a, *a, 3]\ntarget: 1\n",
}


def calls(folder: Path) -> Iterator[list[str]]:
    """Yield bad calls, with files of their own in a folder."""
    text = folder / "text.txt"
    text.write_text("some text to read\n\nand some more of it")
    places = {"TEXT": str(text), "OUT": str(folder / "out")}
    for command, flags in FLAGS.items():
        for flag in flags:
            for value in NUMBERS:
                yield [places.get(w, w) for w in command] + [f"{flag}={value}"]
    for name, content in YAML.items():
        file = folder / f"{name}.yaml".replace(" ", "-")
        file.write_text(content.replace("TEXT", str(text)))
        yield ["train", "--config", str(file), "--out", str(folder / f"run-{name}")]
    (folder / "latin.yaml").write_bytes(b"target: \xe9")
    for file in ("latin.yaml", "missing.yaml", ".", "/dev/null"):
        yield ["train", "--config", str(folder / file), "--out", str(folder / "run")]
    for place in ("", "\0", str(text / "x"), "/proc/x", "a" * 5000):
        yield ["train", "--config", str(folder / "nan.yaml"), "--out", place]
        yield ["cache", *PAIR, "--data", str(text), "--out", place]
        yield ["map-vocab", *PAIR, "--strategy", "exact", "--out", place]
        yield ["align", *PAIR, "--text-file", place]
        yield ["align", "--target", place, "--source", "zoo:llama", "--text", "x"]
