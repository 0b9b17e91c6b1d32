"""Where and how fast things run: seeds, device, number format, cache folder.

The bottom of the package: every other module may import from here, this one from none of them.
"""

import os
import random
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
import torch


class Precision(NamedTuple):
    """Number format and memory layout for a training or evaluation run.

    Attributes:
        name: "float32" or "bfloat16".
        dtype: what `torch.autocast` computes in; float32 means no autocast.
        memory_format: layout of images and convolution weights.
        reason: one phrase on why this format was chosen.
    """

    name: str
    dtype: torch.dtype
    memory_format: torch.memory_format
    reason: str


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's random number generators.

    Args:
        seed: any integer from 0 to 2**32 - 1.

    Example:
        >>> seed_everything(0)
        >>> first = torch.rand(3)
        >>> seed_everything(0)
        >>> torch.equal(first, torch.rand(3))
        True
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that readers call still draw from it
    torch.manual_seed(seed)  # every CUDA and MPS device included


def get_device(preferred: str | torch.device | None = None) -> torch.device:
    """Return the preferred device, or the fastest one present: CUDA, then MPS, then CPU.

    Args:
        preferred: a device or its name, such as "cpu" or "cuda:1"; None chooses.

    Raises:
        ValueError: if the preferred device is not on this machine.

    Example:
        >>> get_device("cpu")
        device(type='cpu')
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    device = torch.device(present[0] if preferred is None else preferred)
    missing_gpu = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if device.type not in present or missing_gpu:
        raise ValueError(
            f"device {str(device)!r} is not on this machine, which has {', '.join(present)} "
            f"(CUDA devices: {torch.cuda.device_count()}); pass one of these, or None to choose"
        )
    return device


def best_precision(device: str | torch.device | None = None) -> Precision:
    """Return bfloat16 with channels-last where the device is fast at it, else plain float32.

    A processor counts as fast when it multiplies bfloat16 in hardware (AVX-512 BF16 or AMX);
    a GPU when it does so without emulation. Everything else computes in float32.

    Args:
        device: the device to ask about; None asks about `get_device()`.

    Example:
        >>> best_precision("cpu").name in {"float32", "bfloat16"}
        True
    """
    device = get_device(device)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # The public get_capabilities() is missing from the older releases that we allow.
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        fast = False
    return precision("bfloat16" if fast else "float32")


def precision(name: str, device: str | torch.device | None = None) -> Precision:
    """Return the `Precision` called "float32", "bfloat16", or the best one for "auto".

    Raises:
        ValueError: for any other name.

    Example:
        >>> precision("float32").dtype
        torch.float32
    """
    if name == "auto":
        return best_precision(device)
    if name == "bfloat16":
        return Precision(name, torch.bfloat16, torch.channels_last, "fast in hardware here")
    if name == "float32":
        return Precision(name, torch.float32, torch.contiguous_format, "the plain format")
    raise ValueError(f'precision {name!r} is not known: expected "auto", "float32" or "bfloat16"')


def is_watched(progress: bool | None = None) -> bool:
    """Tell whether to show a progress bar: as asked, or where somebody watches.

    That is a terminal or a notebook, unless `TLBOOK_PROGRESS` is 0.

    Args:
        progress: True or False decides; None looks.

    Example:
        >>> is_watched(False)
        False
    """
    if progress is not None:
        return progress
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return watched and os.environ.get("TLBOOK_PROGRESS") != "0"


def cache_dir() -> Path:
    """Return the folder for downloads: `TLBOOK_CACHE`, or the platform's cache folder.

    Example:
        >>> cache_dir().name != ""
        True
    """
    folder = os.environ.get("TLBOOK_CACHE")
    return Path(folder).expanduser() if folder else Path(pooch.os_cache("tlbook"))
