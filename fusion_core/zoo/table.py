"""The table in README.md: bits per byte of every model on every domain of the test split."""

from pathlib import Path

from fusion_core import compare, corpus, models
from fusion_core.zoo import DOMAIN_OF, NAMES, PREFIX

COLUMNS = (*corpus.DOMAINS, "mixed")
BYTES = 60_000
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def measure(n_bytes: int = BYTES) -> dict[str, dict[str, float]]:
    """Scores every model of the zoo on the beginning of every test stream.

    Args:
        n_bytes: amount of text a domain.

    Returns:
        Bits per byte by model and domain.
    """
    readers = [models.load(PREFIX + name) for name in NAMES]
    scores: dict[str, dict[str, float]] = {name: {} for name in NAMES}
    for domain in COLUMNS:
        found = compare.bits_per_byte(readers, corpus.text(domain, "test", n_bytes))
        for name in NAMES:
            scores[name][domain] = found[PREFIX + name]["bits_per_byte"]
    return scores


def render(scores: dict[str, dict[str, float]]) -> str:
    """Writes the scores as a Markdown table; the domain of a specialist is in bold.

    Args:
        scores: as `measure` returns them.
    """
    lines = [f"| model | {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * len(COLUMNS)}"]
    for name, row in scores.items():
        cells = (
            f"**{row[domain]:.3f}**" if DOMAIN_OF.get(name) == domain else f"{row[domain]:.3f}"
            for domain in COLUMNS
        )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def renew(readme: Path) -> None:
    """Measures the zoo and puts the table between the markers of its README.

    Args:
        readme: the file to change.

    Raises:
        ValueError: if the markers are not there.
    """
    before, found, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"{readme} has no lines {BEGIN} and {END} to put the table between")
    table = render(measure())
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8", newline="\n")
