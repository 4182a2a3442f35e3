"""Export of the trained model: a folder that anyone can load, its card, and a check of both."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from fusion_core import __version__, models, tokens
from fusion_core.config import RunConfig
from fusion_core.errors import InputError, ModelFormatError, is_out_of_memory
from fusion_core.io.files import TOKENIZER_FILES, folder_whole
from fusion_core.models import LoadedModel
from fusion_core.numerics import logits_off

from .callbacks import unsharded

PROBE_TOKENS = 16
"""Tokens that a network is asked about."""

TOLERANCE, HALF_TOLERANCE = 1e-4, 0.1
"""Share of the logits' spread by which they may be off at the median token, in float32 and where
weights or products have 8 to 11 bits: adapters that are merged into them are rounded. Without
adapters nothing is rounded, and the weights must be the same to the bit besides."""


def export(
    target: LoadedModel,
    save: Callable[[Path], Any],
    check: Callable[[Path], None],
    folder: Path,
    config: RunConfig,
    result: dict[str, Any],
) -> None:
    """Write a model, its tokenizer and its card, all of them or none.

    Args:
        target: whose tokenizer the model has.
        save: writes the weights and the configuration into a folder.
        check: refuses a folder that is not the model that was trained.
        folder: which is replaced.
        config: the run's.
        result: what it came to.

    Raises:
        FusionError: the folder cannot be written, or what is written is not what was trained; what
            was there before stays.
    """
    try:
        with folder_whole(folder) as part:
            save(part)
            save_tokenizer(target, part)
            models.record(part, target.tokenizer)
            (part / "README.md").write_text(card(config, result), encoding="utf-8")
            (part / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody needs
            check(part)
    except (OSError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"The model cannot be written to {folder} ({error}): make room and resume the run; "
            "its checkpoints stay."
        ) from error


def push(folder: Path, config: RunConfig) -> None:
    """Upload a model's folder to the hub, where the run's arguments ask for it.

    Args:
        folder: of the model.
        config: the run's: ``push_to_hub``, ``hub_model_id``, ``hub_private_repo`` among its
            arguments.

    Raises:
        InputError: the hub does not take it; the folder stays.
    """
    asked = config.arguments
    if not asked.get("push_to_hub"):
        return
    from huggingface_hub import create_repo, upload_folder

    name = str(asked.get("hub_model_id") or folder.parent.name)
    try:
        repo = create_repo(name, private=asked.get("hub_private_repo"), exist_ok=True)
        upload_folder(repo_id=repo.repo_id, folder_path=folder)
    except Exception as error:  # the hub's client raises many types here
        raise InputError(
            f"The model is at {folder}, but the hub does not take it ({type(error).__name__}: "
            f"{str(error)[:200]}): upload it with hf upload."
        ) from error


def save_tokenizer(target: LoadedModel, folder: Path) -> None:
    """Copy a folder's tokenizer as it is; others are saved, and held against the original.

    Raises:
        InputError: what is saved is another tokenizer.
    """
    from transformers import AutoTokenizer

    source = models.find(target.name)
    if source.path is not None and not source.gguf:
        for name in TOKENIZER_FILES:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder / name)
    else:
        AutoTokenizer.from_pretrained(
            source.location, trust_remote_code=False, **source.options
        ).save_pretrained(folder)
    if tokens.load(folder, target.name).key != target.tokenizer.key:
        raise InputError(
            f"The tokenizer of {target.name} does not survive saving: load it with AutoTokenizer, "
            "save it and the model into another folder with save_pretrained, and name that."
        )


def card(config: RunConfig, result: dict[str, Any]) -> str:
    """Write a model card: sources, data, settings and results.

    Args:
        config: the run's.
        result: what it came to.
    """
    from huggingface_hub import ModelCardData

    source = models.find(config.target)
    data = ModelCardData(
        language=None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["fuselab", "knowledge-fusion"],
        base_model=source.location if source.path is None else None,
    )
    shown = _without_folders(config)
    taught = ", ".join(f"`{_shown(s)}`" for s in result["sources"]) or "nobody but the text"
    lines = [
        f"---\n{data.to_yaml()}\n---",
        f"# {_title(shown.target)}, {_DID[config.mode]}",
        f"Target: `{shown.target}`. Taught by: {taught}. Made with FuseLab {__version__} "
        "(knowledge fusion as in arXiv 2401.10491)."
        + (" The target's weights were dequantised from a GGUF file." if source.gguf else ""),
        "## Results",
        "| bits per byte | before | after |\n| --- | ---: | ---: |\n"
        + "\n".join(
            f"| {name} | {x['before']:.4f} | {x['after']:.4f} |"
            for name, x in result["texts"].items()
        ),
        f"{result['steps']:,} steps, {result['tokens']:,} tokens, "
        f"{result['seconds']:.0f} seconds on {result['device']}"
        + (f"; the weights of step {result['best_step']:,}" if result.get("best_step") else "")
        + ".",
        "## Data",
        result["data"],
        f"Documents begin with `{result['documents']['start'] or 'nothing'}` and end with "
        f"`{(result['documents']['end'] or ['nothing'])[0]}`.",
        "## Settings",
        f"```yaml\n{shown.to_yaml(result['versions']).strip()}\n```",
    ]
    return "\n\n".join(lines) + "\n"


def _without_folders(config: RunConfig) -> RunConfig:
    """Leave out where on its maker's machine things lie."""
    return config.replace(
        target=_shown(config.target),
        sources=tuple(map(_shown, config.sources)),
        data=config.data and _shown(config.data),
        cache=config.cache and _shown(config.cache),
        eval_data={name: _shown(path) for name, path in config.eval_data.items()},
        arguments={k: _shown(v) if isinstance(v, str) else v for k, v in config.arguments.items()},
    )


def _title(name: str) -> str:
    return models.split_name(name)[0].rpartition(":")[2].rpartition("/")[2]


def _shown(name: str) -> str:
    """Name a file or folder without those above it; what is neither stays."""
    plain, mark, asked = name.partition("?")
    return f"{Path(plain).name}{mark}{asked}" if Path(plain).is_absolute() else name


_DID = {
    "fusion": "taught by fused distributions",
    "kd": "taught by one source",
    "clm": "trained further on text",
}


# The model that is written is the one that was trained --------------------------------------------


@dataclass(frozen=True, eq=False)
class Probe:
    """Probe of a trained network: its logits on a few tokens, and checksums of its weights.

    Attributes:
        ids: (1, tokens) int64, which tokens.
        logits: (tokens, vocabulary) float32, on the CPU.
        tolerance: share of their spread by which others may be off.
        weights: checksum of every weight by name; None where they lie on several devices.
    """

    ids: torch.Tensor
    logits: torch.Tensor
    tolerance: float
    weights: dict[str, int] | None = None

    @staticmethod
    def of(target: LoadedModel, network: Any, *, half: bool = False) -> Probe:
        """Ask a network that has the target's tokenizer.

        Args:
            target: whose tokens are asked about.
            network: in evaluation mode.
            half: products are taken in half precision.
        """
        size = min(target.tokenizer.size, 1000)
        tokens = min(PROBE_TOKENS, target.context or PROBE_TOKENS)
        ids = torch.randint(size, (1, tokens), generator=torch.Generator().manual_seed(0))
        some = next(network.parameters())
        half |= some.dtype != torch.float32
        return Probe(ids, _logits(network, ids, some.device), HALF_TOLERANCE if half else TOLERANCE)

    def check(self, folder: Path, trained: Any) -> None:
        """Load a folder the library's way, and hold it against what was trained.

        Args:
            folder: that has just been written.
            trained: the network, whose memory is given up for that unless it lies in parts.

        Raises:
            ModelFormatError: it is another model.
        """
        device = torch.device("cpu")
        if self.weights is not None:
            device = next(trained.parameters()).device
            trained.to("meta")
        try:
            with unsharded():
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True
                )
            found, info = loaded
            odd = sorted(str(key) for kind in info.values() for key in kind)
            if self.weights is not None and not odd:
                now = checksums(found)
                names = sorted(now.keys() | self.weights.keys())
                odd = [name for name in names if now.get(name) != self.weights.get(name)]
            now_says = _logits(found.to(device).eval(), self.ids, device)
            off = float(logits_off(now_says, self.logits).median())
        except Exception as error:  # the library raises many types here
            if is_out_of_memory(error):
                raise
            raise ModelFormatError(f"{_CANNOT} ({str(error)[:300]}): {_KEPT}") from error
        if odd:
            raise ModelFormatError(f"{_CANNOT} ({odd[0]} is not what it was): {_KEPT}")
        if not off <= self.tolerance:
            raise ModelFormatError(f"{_CANNOT} (its logits are off by {off:.2g}): {_KEPT}")


_CANNOT = "The trained model does not survive being written and loaded again"
_KEPT = "nothing was put into its place, the checkpoints stay; please report this architecture."


def checksums(network: Any) -> dict[str, int]:
    """Return a checksum of every weight by name, the same in any type that holds its values."""
    sums = {}
    for name, weight in network.state_dict().items():
        values = weight.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).contiguous()
        sums[name] = zlib.crc32(values.reshape(-1).view(torch.uint8).numpy())
    return sums


@torch.no_grad()
def _logits(network: Any, ids: torch.Tensor, device: torch.device) -> torch.Tensor:
    return network(input_ids=ids.to(device), use_cache=False).logits[0].float().cpu()
