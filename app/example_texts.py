"""Example texts and prompts: hand-picked ones, and unseen documents of the toy domains."""

from __future__ import annotations

import re
from functools import cache

OPENING = """It was summer when Elora met a sheep. "It only wants grass," said Elora.
Problem: Tom buys 17 apples at 3 € each. How much does Tom pay?
Step 1: 17 * 3 = 51
def price(count):
    return count * 3
"""
PRICES = (
    "Tom has 17 apples; Zoë’s café sells them for 2.50 each. "
    "How many apples can Anna buy with 10.00?\n"
)
CODE = '''def total_price(count, price=2.5):
    """Return what some apples cost."""
    if count <= 0:
        return 0.0
    return price * count  # no discount
'''
_MIXED = "Ünïcödé — 東京 2026年, Привет! مرحبا 👩🏽‍🚀 naïve café… 1\u00a0000\u00a0€ ₂ ﬁn."
_MARKUP = (
    "<img src=x onerror=alert(1)> ${alert(1)} `${1}` {{value}} </script> abc\u202ecba </s> [UNK]"
)
_DOMAINS = (("reasoning", "Reasoning"), ("commonsense", "Commonsense"), ("code", "Code"))


@cache
def examples() -> dict[str, str]:
    """Return the example texts by name; those of the toy domains come from their test split."""
    texts = {"Tale, sum, function": OPENING}
    texts |= {f"Toy domain: {label}": text for name, label in _DOMAINS if (text := _toy(name))}
    return texts | {
        "Apples and prices": PRICES,
        "Python, indented": CODE,
        "Many scripts": _MIXED,
        "Markup and special tokens": _MARKUP,
    }


def _toy(domain: str, least: int = 260) -> str:
    """Return whole test documents of a domain, until there is something to look at."""
    from fusion_core import corpus

    text = ""
    for document in corpus.documents(domain, "test", seed=0):
        text += document if document.endswith("\n") else document + "\n"
        if len(text) >= least:
            break
    return text


@cache
def prompts() -> dict[str, str]:
    """Return example prompts by name: beginnings of unseen documents of the toy domains."""
    from fusion_core import corpus

    def cut(domain: str, pattern: str) -> str:
        document = next(corpus.documents(domain, "test", seed=0))
        found = re.match(pattern, document, re.DOTALL)
        return found[0] if found else document[:120]

    return {
        "A problem": cut("reasoning", r".*?\nStep 1:"),
        "A story": cut("commonsense", r".*?[.;] \S+ \S+"),
        "A function": cut("code", r".*?\n\s+\"{3}"),
    }
