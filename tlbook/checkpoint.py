"""Checkpoints from which a training run goes on exactly where it stopped.

A checkpoint holds the weights, the optimizer, the scheduler, the history and every random state.
Two are kept, so that a write that failed half-way costs one epoch and never the run.
"""

import hashlib
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tlbook.batches import Batches, TensorBatches, example_count
from tlbook.files import whole_file


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or belongs to another run."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before it stays beside it as `<name>.previous`.

    The file appears under its name only when it is complete on the disk.
    """
    newest = path.with_name(path.name + ".newest")
    with whole_file(newest) as part:
        torch.save(state, part)
    if path.exists():
        path.replace(_previous(path))
    newest.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read the newest readable checkpoint, or None where there is none.

    A damaged newest file is named in a warning and skipped.

    Raises:
        CheckpointError: if there are checkpoints and none can be read.
    """
    damaged = []
    for candidate in (path, _previous(path)):
        if not candidate.exists():
            continue
        try:
            state = torch.load(candidate, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, OSError, pickle.UnpicklingError) as error:
            damaged.append(f"{candidate} ({str(error).splitlines()[0]})")
            continue
        if damaged:
            warnings.warn(f"{damaged[0]} is damaged: going on from {candidate}", stacklevel=3)
        return state
    if damaged:
        raise CheckpointError(
            f"no checkpoint can be read: {'; '.join(damaged)}. Delete them to start again"
        )
    return None


def describe_run(model: nn.Module, train: Batches, optimizer: torch.optim.Optimizer) -> dict:
    """Return what must be the same for a run to be resumed: model, data and optimizer."""
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {
        "model": shapes,
        "training examples": example_count(train),
        "batch size": train.batch_size,
        "training data": _digest(train),
        "classes": list(getattr(getattr(train, "dataset", None), "classes", [])),
        "optimizer": type(optimizer).__name__,
    }


def refuse_other_run(path: Path, saved: dict, current: dict) -> None:
    """Compare two descriptions of a run.

    Raises:
        CheckpointError: if they differ, naming what differs; the file is left as it is.
    """
    differences = [
        _difference(name, saved[name], current[name])
        for name in current
        if saved[name] != current[name]
    ]
    if differences:
        raise CheckpointError(
            f"{path} belongs to another run: {'; '.join(differences)}. "
            "Nothing was overwritten: pass another checkpoint= path, or make the two agree"
        )


def get_random_state(generator: torch.Generator | None) -> dict[str, Any]:
    """Return the state of every random number generator that training draws from."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global state is the point
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "batches": None if generator is None else generator.get_state(),
    }


def set_random_state(state: dict[str, Any], generator: torch.Generator | None) -> None:
    """Set every random number generator to a state from `get_random_state`."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if generator is not None and state["batches"] is not None:
        generator.set_state(state["batches"])


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _digest(train: Batches) -> str:
    """Hash the examples where they are in memory, else only their targets."""
    if isinstance(train, TensorBatches):
        parts = [train.inputs, train.targets]
    else:
        targets = getattr(train.dataset, "targets", None)
        parts = [] if targets is None else [torch.as_tensor(targets)]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _difference(name: str, saved: Any, current: Any) -> str:
    if name == "model":
        keys = [key for key in saved | current if saved.get(key) != current.get(key)]
        first = keys[0]
        found = f"{saved.get(first, 'absent')} in the file, {current.get(first, 'absent')} now"
        return f"{len(keys)} entries of the model differ, first {first}: {found}"
    return f"{name}: {saved} in the file, {current} now"
