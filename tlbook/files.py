"""Files of weights: always complete on the disk, and never able to run code.

What is written takes its real name only when it is whole; what is read holds tensors alone.
"""

import os
import pickle
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn


class WeightsError(RuntimeError):
    """Weights cannot be had, read, written, or fitted to a model.

    Attributes:
        report: the `LoadReport` where the weights did not fit, else None.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written takes its real name only when it is complete.

    The folder is made if need be. Where the block raises, `path` stays as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "notes.txt")
        >>> with whole_file(path) as part:
        ...     _ = part.write_text("complete")
        >>> path.read_text()
        'complete'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        with part.open("rb+") as file:
            # Without this, a power cut may leave the new name on an empty file.
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_weights(model_or_state_dict: nn.Module | Mapping[str, Tensor], path: str | Path) -> Path:
    """Write weights to a `.safetensors`, `.pth` or `.pt` file, complete or not at all.

    Tensors go to the file from the CPU, bit for bit. Two keys that share one tensor are both
    written; a model that ties them shares them again after loading.

    Args:
        model_or_state_dict: a model, or its `state_dict()`.
        path: the file; its suffix chooses the format, its folder is made if need be.

    Returns:
        The path written.

    Raises:
        WeightsError: if the suffix is another one, or an entry is not a tensor with data.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(2, 3)
        >>> path = save_weights(model, Path(tempfile.mkdtemp(), "linear.safetensors"))
        >>> torch.equal(read_weights(path)["weight"], model.weight)
        True
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise WeightsError(f"{path}: expected a name that ends in .safetensors, .pth or .pt")
    is_model = isinstance(model_or_state_dict, nn.Module)
    state = model_or_state_dict.state_dict() if is_model else model_or_state_dict
    tensors = _tensors_to_save(state)
    with whole_file(path) as part:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(tensors, part)
        else:
            torch.save(tensors, part)
    return path


def read_weights(path: Path) -> object:
    """Read a `.safetensors` file, or one from `torch.save`, without running code from it.

    Returns:
        What the file holds, on the CPU: as a rule a dict of tensors, perhaps nested.

    Raises:
        WeightsError: if there is no such file, it is damaged, or it holds more than tensors.

    Example:
        >>> import tempfile
        >>> path = save_weights({"scale": torch.ones(2)}, Path(tempfile.mkdtemp(), "scale.pth"))
        >>> read_weights(path)
        {'scale': tensor([1., 1.])}
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path} (looked from {Path.cwd()})")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Without "from": the original goes on to recommend weights_only=False.
        raise WeightsError(_refusal(path, str(error))) from None
    except Exception as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged or cut short: {first_line}. "
            "Copy or download it again"
        ) from error


def _refusal(path: Path, complaint: str) -> str:
    """Say which globals a pickle wants to import, or that the file is no checkpoint."""
    try:
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        # Files of the format before PyTorch 1.6 stop at the first one.
        wanted = re.findall(r"GLOBAL ([\w.]+)", complaint)[:1]
    if not wanted:
        with path.open("rb") as file:
            return (
                f"{path} is damaged, or no file from torch.save: it begins with {file.read(16)!r}"
            )
    names = ", ".join(sorted(wanted)[:6])
    return (
        f"{path} holds more than tensors and was not opened, because that would run code: it "
        f"wants {names}. Ask for a .safetensors file, or for the bare state_dict"
    )


def _tensors_to_save(state: Mapping[str, object]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.is_meta:
            kind = "a tensor without data" if isinstance(value, Tensor) else type(value).__name__
            raise WeightsError(f"{key!r} is {kind}, expected a tensor: pass a model's state_dict()")
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() > tensor.nbytes:
            # safetensors refuses shared memory, and torch.save would write all of it.
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        tensors[key] = tensor
    return tensors
