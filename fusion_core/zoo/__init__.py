"""The embedded models: a generalist as the target and three specialists as its sources.

`llama` is the target. Each specialist knows one domain of `fusion_core.corpus` well, and has an
architecture and a kind of vocabulary that no other has. `python -m fusion_core.zoo build` makes
them all from seeded text; README.md in this folder says how, and how good they are.
"""

from pathlib import Path

from fusion_core.errors import ModelNotFoundError

__all__ = ["DOMAIN_OF", "NAMES", "PREFIX", "TARGET", "path"]

PREFIX = "zoo:"
TARGET = "llama"
DOMAIN_OF: dict[str, str] = {
    "neox-reason": "reasoning",
    "gpt2-story": "commonsense",
    "mpt-code": "code",
}
NAMES: tuple[str, ...] = (TARGET, *DOMAIN_OF)


def path(name: str) -> Path:
    """Finds the folder of an embedded model.

    Args:
        name: one of `NAMES`, with or without `zoo:` before it. Any other text is refused without a
            look at the file system.

    Returns:
        A folder that `AutoModelForCausalLM.from_pretrained` loads.

    Raises:
        ModelNotFoundError: if the zoo has no such model, or its folder has not been built.
    """
    known = name.removeprefix(PREFIX)
    if known not in NAMES:
        listed = ", ".join(PREFIX + other for other in NAMES)
        raise ModelNotFoundError(
            f"No embedded model is called {PREFIX + known[:60]!r}; the zoo has {listed}."
        )
    folder = Path(__file__).parent / NAMES[NAMES.index(known)]
    if not (folder / "model.safetensors").is_file():
        raise ModelNotFoundError(
            f"The embedded model '{PREFIX}{known}' has no weights in {folder}; "
            f"make them with `python -m fusion_core.zoo build --only {known}`."
        )
    return folder
