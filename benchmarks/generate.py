"""What an ensemble costs beside its models, and how well it reads.

*Speed*: milliseconds per generated token of the ensemble, and of each model by itself, in turn in
one run; medians. The single models are timed in our own loop and in `transformers.generate`, and
the faster of the two counts. The zoo's models are so small that most of their time is Python's;
the same tokenizers with random Llamas of 30 million parameters show what is left of that, along a
given text, since what they would write themselves is noise: milliseconds for each model to take it
token by token in its own tokens, and for the ensemble in the target's.

*Quality*: bits per byte of the held-out text of each domain, as the ensemble would write it, token
by token, beside what every single model gives it.

    python benchmarks/generate.py

writes `benchmarks/results/generate.md`.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import compare, corpus, fuse, generation, models
from fusion_core.generation import Ensemble, Sampling, stream
from fusion_core.models import LoadedModel
from fusion_core.records import Encoding

OUT = ROOT / "benchmarks" / "results" / "generate.md"
NAMES = ("llama", "neox-reason", "gpt2-story", "mpt-code")
DOMAINS = ("reasoning", "commonsense", "code")
TOKENS, ROUNDS, ALONG, BYTES = 60, 3, 200, 1500


def main() -> None:
    """Measure and write the tables."""
    torch.set_num_threads(2)
    zoo = [models.load(f"zoo:{n}") for n in NAMES]
    lines = ["# Text from an ensemble", "", "`python benchmarks/generate.py`; two cores, float32."]
    lines += ["", "## Speed", "", f"Milliseconds a token, {TOKENS} tokens, medians of {ROUNDS}"]
    lines[-1] += " runs in turn. *Sources* is the sum of the three sources' own times."
    head = ["| models | text | target | sources, each | ensemble | to the sources | to all four |"]
    head.append("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    lines += ["", *head]
    for domain in DOMAINS:
        prompt = corpus.text(domain, "test", 1500)[0][:80]
        lines.append(costs("zoo, 1 M", domain, *speed(zoo, prompt)))
    lines += ["", f"The same, for a given text of {ALONG} bytes, token by token:", ""]
    lines += head
    for label, readers in (("zoo, 1 M", zoo), ("random, 30 M", [grown(m) for m in zoo])):
        for domain in DOMAINS:
            text = corpus.text(domain, "test", 1500)[0][:ALONG]
            lines.append(costs(label, domain, *along(readers, text)))
    lines += ["", "## Quality", "", f"Bits per byte, {BYTES:,} bytes of the test split a domain."]
    lines += ["", f"| | {' | '.join(DOMAINS)} | mean |", "| --- | ---: | ---: | ---: | ---: |"]
    texts = {d: corpus.text(d, "test", BYTES) for d in DOMAINS}
    scores = {d: compare.bits_per_byte(zoo, texts[d]) for d in DOMAINS}
    for model in zoo:
        lines.append(
            row(f"`{model.name}`", [scores[d][model.name]["bits_per_byte"] for d in DOMAINS])
        )
    for operator in fuse.label_free():
        lines.append(
            row(f"ensemble, `{operator}`", [read(zoo, operator, texts[d]) for d in DOMAINS])
        )
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def costs(label: str, domain: str, own: list[float], together: float) -> str:
    """Write a row of milliseconds and ratios."""
    each = " ".join(f"{x:.1f}" for x in own[1:])
    return (
        f"| {label} | {domain} | {own[0]:.1f} | {each} | {together:.1f} | "
        f"{together / sum(own[1:]):.2f} | {together / sum(own):.2f} |"
    )


def along(readers: list[LoadedModel], text: str) -> tuple[list[float], float]:
    """Take a text token by token, each model in its own tokens: milliseconds for all of it."""
    ensemble = Ensemble(readers[0], readers[1:], operator="confidence")
    encodings = [m.tokenizer.encode(text) for m in readers]
    alone = [Ensemble(m) for m in readers]

    def milliseconds(of: Ensemble, encoding: Encoding) -> float:
        of.forget()
        own = encoding.text_tokens
        ids = encoding.ids[own].tolist()
        began = time.perf_counter()
        for n, i in enumerate(own.tolist()):
            of.next(ids[:n], encoding.data[: int(encoding.start[i])])
        return (time.perf_counter() - began) * 1e3

    rounds = []
    for n in range(ROUNDS + 1):
        pairs = [*zip(alone, encodings, strict=True), (ensemble, encodings[0])]
        times = [milliseconds(*pair) for pair in pairs]
        if n:
            rounds.append(times)
    medians = [statistics.median(x) for x in zip(*rounds, strict=True)]
    return medians[:-1], medians[-1]


def row(name: str, bits: list[float]) -> str:
    """Write a row of the table with its mean."""
    return f"| {name} | {' | '.join(f'{b:.3f}' for b in [*bits, statistics.mean(bits)])} |"


def grown(model: LoadedModel) -> LoadedModel:
    """Give a model's tokenizer a random Llama of about 30 million parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=model.tokenizer.size,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=9,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    network = LlamaForCausalLM(config).eval().requires_grad_(False)
    return replace(model, name=f"{model.name} grown", network=network, context=512)


def speed(readers: list[LoadedModel], prompt: str) -> tuple[list[float], float]:
    """Time every model by itself and the ensemble: milliseconds a token."""
    sampling = Sampling(max_new_tokens=TOKENS)
    alone = [Ensemble(m) for m in readers]
    together = Ensemble(readers[0], readers[1:], operator="confidence")

    def ours(ensemble: Ensemble) -> float:
        began = time.perf_counter()
        n = sum(1 for _ in stream(ensemble, prompt, sampling))
        return (time.perf_counter() - began) / n * 1e3

    def theirs(model: LoadedModel) -> float:
        encoding = model.tokenizer.encode(prompt)
        read = torch.as_tensor(encoding.ids[encoding.text_tokens])[None]
        began = time.perf_counter()
        model.network.generate(
            read,
            attention_mask=torch.ones_like(read),
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=True,
            pad_token_id=0,
        )
        return (time.perf_counter() - began) / TOKENS * 1e3

    rounds = []
    for n in range(ROUNDS + 1):
        times = [min(ours(e), theirs(e.target.model)) for e in alone] + [ours(together)]
        if n:  # the first one warms up
            rounds.append(times)
    medians = [statistics.median(x) for x in zip(*rounds, strict=True)]
    return medians[:-1], medians[-1]


def read(readers: list[LoadedModel], operator: str, texts: list[str]) -> float:
    """Score texts as the ensemble would write them: bits per byte."""
    ensemble = Ensemble(readers[0], readers[1:], operator=operator)
    scores = [generation.score(ensemble, text) for text in texts]
    return sum(n for n, _ in scores) / sum(b for _, b in scores) / math.log(2)


if __name__ == "__main__":
    main()
