"""Memory that ran out is told from other faults: by its many names, and in a real shortage."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from fusion_core.errors import (
    SHORT_OF_MEMORY,
    FusionError,
    InputError,
    ModelFormatError,
    TooLargeError,
    is_out_of_memory,
    sentence,
)

SHORTAGE = """
import resource, sys
import mmap, numpy, pyarrow, tempfile, torch
from fusion_core.errors import is_out_of_memory

most = 1 << 34
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))

def mapped():
    with tempfile.TemporaryFile() as file:
        file.truncate(most)
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

for ask in (
    lambda: torch.empty(most),
    lambda: torch.zeros(1).expand(most).contiguous(),
    lambda: torch.nn.Linear(1 << 20, 1 << 20),
    lambda: numpy.ones(most),
    lambda: pyarrow.allocate_buffer(most),
    lambda: bytearray(most),
    mapped,
):
    try:
        ask()
    except Exception as error:
        print(type(error).__name__, is_out_of_memory(error))
"""


def test_a_real_shortage_is_told() -> None:
    """On a CPU torch raises a bare RuntimeError (pytorch/pytorch#20618)."""
    pytest.importorskip("resource")
    ran = subprocess.run(
        [sys.executable, "-c", SHORTAGE], capture_output=True, text=True, check=False
    )
    told = [line.split() for line in ran.stdout.splitlines()]
    assert len(told) == 7, ran.stderr
    assert all(answer == "True" for _, answer in told), told
    assert {kind for kind, _ in told} >= {"RuntimeError", "MemoryError", "OSError"}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
        np._core._exceptions._ArrayMemoryError((9,), "f8"),
    ],
    ids=repr,
)
def test_its_names_are_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        OSError(28, "No space left on device"),
        FusionError("A text about being out of memory"),
        ValueError("out of memory is what the text says"),
        RecursionError("maximum recursion depth exceeded"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_faults_are_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_what_was_raised_from_it_counts_and_what_came_up_meanwhile_does_not() -> None:
    wrapped, meanwhile, one, other = (
        ModelFormatError("broken"),
        KeyError(),
        ValueError(),
        OSError(),
    )
    wrapped.__cause__ = RuntimeError("std::bad_alloc")
    meanwhile.__context__ = MemoryError()
    one.__cause__, other.__cause__ = other, one
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(meanwhile) and not is_out_of_memory(one)


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (ModelFormatError("m cannot be read: check it."), MemoryError(), SHORT_OF_MEMORY),
        (
            ModelFormatError("m cannot be read: check it."),
            ValueError(),
            "m cannot be read: check it.",
        ),
        (
            TooLargeError("m does not fit: choose lora."),
            MemoryError(),
            "m does not fit: choose lora.",
        ),
        (InputError("a\nb"), None, "a b"),
        (MemoryError(), None, SHORT_OF_MEMORY),
        (KeyError("ours"), None, None),
    ],
    ids=repr,
)
def test_a_face_says_what_helps(
    error: Exception, cause: Exception | None, said: str | None
) -> None:
    error.__cause__ = cause
    assert sentence(error) == said
