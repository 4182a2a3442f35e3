"""Texts of real_language.py: one human document in two languages, and what a model writes on it.

The Universal Declaration of Human Rights is cut into documents of whole paragraphs, and these are
dealt out to four parts: *training*, *validation*, *prompts* and *held-out*. Continuations of
training documents are training text, those of validation documents validation text, and those of
prompts, which are in no other text, held-out text. What a model writes is dropped where it repeats
a stretch of any human text that is not for training, or of the texts that were written to be held
out.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fusion_core.io.documents import json_lines, read_documents
from fusion_core.models import LoadedModel

LANGUAGES = {
    "Hindi": ("udhr_hin.txt", "[\u0900-\u097f]", 40),
    "Japanese": ("udhr_jpn.txt", "[\u3040-\u30ff\u4e00-\u9fff]", 20),
}
"""Name -> file, script, and characters in a row that make a repetition."""

PARTS = ("training", "held-out", "training", "validation", "held-out", "training", "prompts")
"""What documents are dealt out to, in turn."""

DOCUMENT = 400
"""Bytes of a human document, at least."""

IN_SCRIPT = 0.7
"""Share of the letters of what is written that must be of the language's script, at least."""

NEW_TOKENS, AT_ONCE = 192, 64
MOST = 50
"""Continuations that are drawn for one that is kept, at most."""

SAMPLING = {"temperature": 0.8, "top_p": 0.95, "top_k": 0}
ENGLISH_BYTES = 16_000


def human_documents(path: Path) -> dict[str, list[str]]:
    """Cut a file into documents, and deal them out to the parts."""
    documents, waiting = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        waiting += line.strip() + "\n" if line.strip() else ""
        if len(waiting.encode()) >= DOCUMENT:
            documents.append(waiting.rstrip("\n"))
            waiting = ""
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for number, document in enumerate(documents):
        parts[PARTS[number % len(PARTS)]].append(document)
    return parts


def english_documents(path: Path) -> list[str]:
    """Take paragraphs of an encyclopedia, none of them a heading."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    chosen, size = [], 0
    for line in lines:
        if len(line) < 200 or size >= ENGLISH_BYTES:
            continue
        chosen.append(line)
        size += len(line.encode())
    return chosen


def stretches(texts: Sequence[str], length: int) -> set[str]:
    """List all stretches of so many characters."""
    return {t[i : i + length] for t in texts for i in range(len(t) - length + 1)}


def in_script(text: str, script: str) -> bool:
    """Tell whether a text is in a language's script, for the most part."""
    letters = [c for c in text if c.isalpha()]
    return bool(letters) and len(re.findall(script, "".join(letters))) >= IN_SCRIPT * len(letters)


class Writer:
    """Continues documents in one language.

    Attributes:
        dropped: continuations that were left out because they repeat what must not be seen.
        written: continuations that were drawn.
    """

    def __init__(self, model: LoadedModel, script: str, length: int) -> None:
        """Let a model write in a script, in which so many characters make a repetition."""
        from transformers import GenerationConfig

        model.network.generation_config = GenerationConfig()  # no penalties of its files
        self._model, self._script, self._length = model, script, length
        self.dropped = self.written = 0

    def continuations(
        self, documents: Sequence[str], n_bytes: int, seed: str, unseen: Sequence[str]
    ) -> list[str]:
        """Continue documents, drawn at random, until there is enough text.

        Args:
            documents: the prompts; a continuation begins with a new paragraph.
            n_bytes: how much is wanted.
            seed: of prompts and tokens.
            unseen: texts of which no stretch may be repeated.
        """
        draws, barred = random.Random(seed), stretches(unseen, self._length)
        chosen: list[str] = []
        while n_bytes > 0:
            if self.written > MOST * (len(chosen) + AT_ONCE):
                raise SystemExit(f"{self._model.name} writes too little of what is asked for.")
            prompts = [draws.choice(documents) for _ in range(AT_ONCE)]
            for text in self._drawn(prompts, draws.getrandbits(62)):
                self.written += 1
                if not stretches([text], self._length).isdisjoint(barred):
                    self.dropped += 1
                elif n_bytes > 0 and in_script(text, self._script):
                    chosen.append(text)
                    n_bytes -= len(text.encode())
        return chosen

    @torch.inference_mode()
    def _drawn(self, prompts: Sequence[str], seed: int) -> Iterator[str]:
        """Draw one continuation of each prompt."""
        tokenizer, device = self._model.tokenizer, self._model.device
        ids = [[tokenizer.start_id, *tokenizer.encode(p + "\n").ids.tolist()] for p in prompts]
        longest, ends = max(map(len, ids)), list(tokenizer.end_ids)
        padded = [[ends[0]] * (longest - len(i)) + i for i in ids]
        mask = [[0] * (longest - len(i)) + [1] * len(i) for i in ids]
        torch.manual_seed(seed)
        drawn: Any = self._model.network.generate(
            torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device),
            do_sample=True,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=ends,
            pad_token_id=ends[0],
            **SAMPLING,
        )
        for row in drawn[:, longest:].tolist():
            whole = row[: next((n for n, i in enumerate(row) if i in ends), len(row))]
            for cut in range(4):  # the last character may lack bytes
                text = tokenizer.text_of(whole[: len(whole) - cut])
                if text and text.strip():
                    yield text.strip()
                    break


def write_unseen(
    folder: Path, data: Path, model: LoadedModel, sizes: dict[str, int]
) -> dict[str, Any]:
    """Write what is not trained on, human and written texts apart, and English.

    Args:
        folder: where ``validation-NAME.jsonl`` and ``held-out-NAME.jsonl`` are written.
        data: folder of test data.
        model: the writer.
        sizes: bytes a language that are "validation" and "held-out".

    Returns:
        Bytes of the human texts for training, and by language how many continuations were drawn
        and how many of them dropped.
    """
    about: dict[str, Any] = {"human": {}, "continuations": {}}
    for language, (name, script, length) in LANGUAGES.items():
        human, writer = human_documents(data / "udhr" / name), Writer(model, script, length)
        for part, prompts in (("validation", "validation"), ("held-out", "prompts")):
            found = writer.continuations(
                human[prompts], sizes[part], f"{part}/{language}", human["held-out"]
            )
            save(folder / f"{part}-{language}, human.jsonl", human[part])
            save(folder / f"{part}-{language}, written.jsonl", found)
        about["human"][language] = size_of(human["training"])
        about["continuations"][language] = [writer.dropped, writer.written]
    save(folder / "held-out-English.jsonl", english_documents(data / "wikitext-2" / "valid.txt"))
    return about


def write_training(
    folder: Path, data: Path, model: LoadedModel, seed: int, sizes: dict[str, int]
) -> dict[str, Any]:
    """Write what is trained on with one seed, after `write_unseen`.

    Args:
        folder: where ``small-SEED.jsonl`` and ``more-SEED.jsonl`` are written.
        data: folder of test data.
        model: the writer.
        seed: of what is written.
        sizes: bytes a language of "small", at most, and of "more", human texts among them.

    Returns:
        Bytes of both files, and continuations as `write_unseen` does.
    """
    texts: dict[str, list[str]] = {"small": [], "more": []}
    about: dict[str, Any] = {"continuations": {}}
    for language, (name, script, length) in LANGUAGES.items():
        human, writer = human_documents(data / "udhr" / name), Writer(model, script, length)
        unseen = [t for part in ("validation", "prompts", "held-out") for t in human[part]]
        for part in ("validation", "held-out"):
            unseen += read_documents(folder / f"{part}-{language}, written.jsonl")
        room = sizes["more"] - size_of(human["training"])
        drawn = writer.continuations(human["training"], room, f"training/{language}/{seed}", unseen)
        sums = itertools.accumulate(map(utf8_bytes, drawn), initial=size_of(human["training"]))
        n = sum(size <= sizes["small"] for size in sums) - 1
        texts["small"] += [*human["training"], *drawn[: max(n, 0)]]
        texts["more"] += [*human["training"], *drawn]
        about["continuations"][language] = [writer.dropped, writer.written]
    for name, some in texts.items():
        save(folder / f"{name}-{seed}.jsonl", some)
        about[name] = size_of(some)
    return about


def utf8_bytes(text: str) -> int:
    """Count a text's bytes."""
    return len(text.encode())


def size_of(texts: Sequence[str]) -> int:
    """Count the bytes of texts."""
    return sum(map(utf8_bytes, texts))


def save(path: Path, texts: Sequence[str]) -> None:
    """Write documents as JSON lines."""
    path.write_bytes(json_lines(texts))
