"""Configurations and arguments of real users: taken, or refused before anything is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file
from training_checks import check_training, run, settings
from transformers import AutoModelForCausalLM

from fusion_core import models, pipeline, runs
from fusion_core.cache import building
from fusion_core.cli import main
from fusion_core.config import RunConfig
from fusion_core.errors import InputError, TooLargeError
from fusion_core.training import estimate
from fusion_core.training.adapters import with_adapters

# Configurations --------------------------------------------------------------------------------

TEXT: dict[str, Any] = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64}
TEXT |= {
    "bos_token_id": 0,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
TEXT |= {"initializer_range": 0.2, "eos_token_id": 0, "pad_token_id": 1}
GROUPED = TEXT | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
SIGHT = LAYERS | {"intermediate_size": 16, "image_size": 16}
DEEP_SIGHT = LAYERS | {"image_size": 32, "mlp_dim": 16, "output_channels": 8}
DEEP_SIGHT |= {"global_attn_indexes": [0], "window_size": 2}
SEEING = {
    "Gemma3ForConditionalGeneration": lambda: transformers.Gemma3Config(
        text_config=GROUPED,
        vision_config=SIGHT,
        mm_tokens_per_image=4,
        image_token_index=299,
        boi_token_index=298,
        eoi_token_index=297,
    ),
    "GotOcr2ForConditionalGeneration": lambda: transformers.GotOcr2Config(
        text_config=TEXT | {"model_type": "qwen2", "num_key_value_heads": 2},
        vision_config=DEEP_SIGHT,
        image_token_index=299,
    ),
    "FuyuForCausalLM": lambda: transformers.FuyuConfig(
        text_config=TEXT | {"model_type": "persimmon"}, image_size=16, patch_size=8, **TEXT
    ),
    "GitForCausalLM": lambda: transformers.GitConfig(vision_config=SIGHT, **TEXT),
}


@pytest.mark.parametrize("name", SEEING)
def test_a_model_that_sees_is_trained_on_text(name: str, tmp_path) -> None:
    """What a text model has at the top lies one level down, or has another name.

    huggingface/transformers#36683 (`vocab_size`), hiyouga/LlamaFactory#7500 (`use_cache`).
    """
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(SEEING[name]())
    assert type(network).__name__ == name
    check_and_compare(tiny.saved(tmp_path / "model", network), tmp_path)


@pytest.mark.parametrize("kind", ["openai-gpt", "ctrl", "rwkv", "gptj", "xglm"])
def test_older_configurations_are_read(kind: str, tmp_path) -> None:
    """No use_cache, and n_embd, n_layer or n_ctx for sizes."""
    check_and_compare(tiny.saved(tmp_path / "model", kind), tmp_path)


def check_and_compare(folder: str, tmp: Path) -> None:
    """Estimate, train and load a model; its configuration stays as it was."""
    told = estimate(settings(folder, tmp), tmp)
    found = check_training(folder, tmp)["network"]
    assert told.parameters == sum(p.numel() for p in found.parameters())
    before, after = Path(folder), tmp / "straight" / "model"
    assert told_of(before / "config.json") == told_of(after / "config.json")


def told_of(file: Path) -> Any:
    """Read a configuration, but for the types that the library adds to its parts."""
    return json.loads(
        file.read_text(),
        object_hook=lambda part: {k: v for k, v in part.items() if k != "dtype"},
    )


# Arguments -------------------------------------------------------------------------------------

LATE: dict[str, tuple[dict[str, Any], str]] = {
    "lengths": ({"train_sampling_strategy": "group_by_length"}, "lengths"),
    "old name": ({"group_by_length": True}, "group_by_length"),
    "8 bit": ({"optim": "paged_adamw_8bit"}, "bitsandbytes"),
    "torchao": ({"optim": "adamw_torch_8bit"}, "torchao"),
    "galore": ({"optim": "galore_adamw", "optim_target_modules": ["q_proj"]}, "galore_torch"),
    "lomo": ({"optim": "lomo"}, "lomo"),
    "no such": ({"optim": "no_such"}, "no_such"),
    "min_lr": ({"lr_scheduler_kwargs": {"min_lr": 1e-6}}, "min_lr"),
    "liger": ({"use_liger_kernel": True}, "liger"),
    "persistent": ({"dataloader_persistent_workers": True}, "num_workers"),
    "prefetch": ({"dataloader_prefetch_factor": 2}, "num_workers"),
    "workers": ({"dataloader_num_workers": -1}, "num_workers"),
    "backend": ({"torch_compile_backend": "no_such"}, "NO_SUCH"),
    "deepspeed": ({"deepspeed": {"zero_optimization": {"stage": 3}}}, "DeepSpeed is not"),
    "fsdp": ({"fsdp": True}, "fsdp only works in distributed"),
    "report": ({"report_to": "wandb"}, "wandb"),
    "type": ({"adam_beta1": "much"}, "not supported"),
    "seed": ({"data_seed": "seven"}, "manual_seed"),
    "config": ({"accelerator_config": {"no_such": 1}}, "no_such"),
}


@pytest.mark.parametrize("what", LATE)
def test_arguments_are_tried_before_anything_is_read(what: str, tmp_path, capsys) -> None:
    """They came out when rows had been made, with a traceback, if at all.

    hiyouga/LlamaFactory#4006: the scheduler alone says which of its arguments it takes.
    """
    arguments, said = LATE[what]
    folder = tiny.saved(tmp_path / "model", "llama")
    given = {"arguments": arguments, "data": str(tmp_path / "there-is-none.txt")}
    config = settings(folder, tmp_path, **given)
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    command = ["train", "--config", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]
    for more in ([], ["--estimate"]):
        assert main([*command, *more]) == 2
        error = capsys.readouterr().err
        lines = [x for x in error.splitlines() if x.startswith("fusion_core: ")]
        assert len(lines) == 1 and said in lines[0] and "Traceback" not in error
    # and the next training is none the wiser
    ok, _ = run(settings(folder, tmp_path, max_steps=1), tmp_path / "next")
    assert ok["steps"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lora": {"r": 4, "target_modules": ["no_such"]}}, "adapters"),
        ({"block_size": 128}, "at most 64"),
        ({"device": "cuda:3"}, "CUDA_VISIBLE_DEVICES"),
        ({"dtype": "float16"}, "overflows"),
        ({"mode": "fusion", "sources": ["zoo:llama"], "operator": "no_such"}, "operator"),
        ({"mode": "fusion", "sources": ["zoo:llama"], "strategy": "no_such"}, "strategy"),
        ({"eval_data": {"text": "none.txt"}}, "none.txt"),
        ({"arguments": {"seed": 1}}, "must not hold seed"),
    ],
)
def test_the_estimate_refuses_what_a_training_refuses(
    given: dict[str, Any], said: str, tmp_path
) -> None:
    folder = tiny.saved(tmp_path / "model", "llama")
    config = settings(folder, tmp_path, **given)
    for refused in (lambda: run(config, tmp_path / "run"), lambda: estimate(config, tmp_path)):
        with pytest.raises(InputError, match=said):
            refused()
    assert not list((tmp_path / "run").iterdir())


def test_a_compiler_that_is_missing_is_said_at_once(tmp_path, monkeypatch) -> None:
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    folder = tiny.saved(tmp_path / "model", "llama")
    config = settings(folder, tmp_path, arguments={"torch_compile": True})
    with pytest.raises(InputError, match="does not take these arguments"):
        run(config, tmp_path / "run")


@pytest.mark.parametrize(
    "arguments",
    [
        {"optim": "adafactor"},
        {"optim": "sgd", "dataloader_num_workers": 1},
        {"activation_checkpointing": True},
        {"lr_scheduler_kwargs": {"num_cycles": 1}},
    ],
)
def test_arguments_that_serve_are_taken(arguments: dict[str, Any], tmp_path) -> None:
    check_training(tiny.saved(tmp_path / "model", "llama"), tmp_path, arguments=arguments)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_weights_that_are_no_numbers_are_not_kept_however_rarely_steps_are_logged(
    kind: str, tmp_path
) -> None:
    folder = tiny.saved(tmp_path / "model", kind)
    more = {"learning_rate": 1e30, "max_grad_norm": 1e30, "max_steps": 6, "checkpoint_steps": 1}
    more |= {"checkpoint_seconds": 0, "scheduler": "constant", "arguments": {"logging_steps": 50}}
    with pytest.raises(InputError, match=r"is no number at step \d.*lower learning_rate"):
        run(settings(folder, tmp_path, **more), tmp_path / "run")
    for kept in (tmp_path / "run" / "checkpoints").glob("*/model.safetensors"):
        assert all(weight.isfinite().all() for weight in load_file(kept).values())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral"])
def test_an_estimate_times_twice_but_loads_every_model_once(
    kind: str, tmp_path, monkeypatch
) -> None:
    """The page asked for two whole estimates, to take the quicker times of both."""
    folder = tiny.saved(tmp_path / "model", kind)
    more = {"mode": "fusion", "sources": ["zoo:gpt2-story", "zoo:mpt-code"]}
    config = settings(folder, tmp_path, **more)
    calls: list[str] = []
    for module, name in ((models, "load"), (building, "build_cache"), (pipeline, "mappings")):
        counted(monkeypatch, module, name, calls)
    found = estimate(config, tmp_path)
    assert found.how == "measured" and found.preparing_seconds > 0 < found.training_seconds
    assert calls == ["load"] * 3 + ["mappings"]
    trials: list[int] = []
    quickest = estimate.__globals__["_quickest"]  # the module has the function's name
    noted = lambda call, n: trials.append(n) or quickest(call, n)  # noqa: E731
    monkeypatch.setitem(estimate.__globals__, "_quickest", noted)
    estimate(config, tmp_path)
    assert len(trials) == 2 and min(trials) > 1  # rows and steps


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, calls: list[str]) -> None:
    """Note every call of a function."""
    function = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: calls.append(name) or function(*a, **k))


def test_adapters_are_counted_not_guessed(tmp_path) -> None:
    for kind, modules in (("llama", ["q_proj"]), ("gpt2", "all-linear"), ("mixtral", ["v_proj"])):
        folder = tiny.saved(tmp_path / kind, kind)
        config: RunConfig = settings(folder, tmp_path, lora={"r": 4, "target_modules": modules})
        adapted = with_adapters(config, AutoModelForCausalLM.from_pretrained(folder))
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        assert estimate(config, tmp_path).trained == trained


# Memory that runs out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "fusion_core.training.trainer.FusionTrainer.training_step",
        "transformers.Trainer._save_checkpoint",
        "fusion_core.training.export._logits",
        "fusion_core.training.arguments.TrainingArguments",
    ],
)
def test_memory_that_runs_out_is_no_other_fault(tmp_path, monkeypatch, where: str) -> None:
    """On a CPU torch says so in a bare RuntimeError, as it does of a full disk or a wrong shape."""
    config = settings(tiny.saved(tmp_path / "model", "llama"), tmp_path)

    def short(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB")

    monkeypatch.setattr(where, short)
    with pytest.raises(TooLargeError, match="does not fit into the memory"):
        runs.run(config, tmp_path / "run")
    assert "memory" in runs.status(tmp_path / "run").message
