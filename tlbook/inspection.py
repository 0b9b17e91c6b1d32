"""Looking at a model without leaving a trace: its summary, and its predictions for a few examples.

Forward passes move modes, buffers and random states; what runs here puts all of them back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset, TensorDataset

from tlbook.audit import audit
from tlbook.loop import predict

if TYPE_CHECKING:
    from torchinfo import ModelStatistics

TABLE = {"row_settings": ("depth", "var_names"), "col_width": 18, "mode": "eval", "verbose": 0}


def summary(
    model: nn.Module,
    input_size: Sequence[int],
    *,
    depth: int = 3,
    col_names: Sequence[str] = ("output_size", "num_params", "trainable", "mult_adds"),
) -> ModelStatistics:
    """Return torchinfo's table of a model: output shapes, parameters, multiply-adds.

    The model runs once, in evaluation mode and where it is, and nothing of it is changed.
    Multiply-adds are those of the whole batch.

    Args:
        model: maps one tensor to outputs.
        input_size: shape of that tensor with the batch in it, `(N, C, H, W)`.
        depth: levels of nested modules to list.
        col_names: torchinfo's names of the columns.

    Raises:
        ValueError: if the model has lazy layers, which one batch would create.
        RuntimeError: if an input of that size does not pass through the model.

    Example:
        >>> summary(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), (1, 1, 28, 28)).total_params
        7850
    """
    from torchinfo import Units, torchinfo

    weight = next(model.parameters(), torch.empty(0))
    # Given a size instead of a tensor, torchinfo would move the model to CUDA where there is one.
    example = torch.zeros(tuple(input_size), dtype=weight.dtype, device=weight.device)
    with as_found(model):
        statistics = torchinfo.summary(
            model, input_data=example, depth=depth, col_names=col_names, **TABLE
        )
    torchinfo.clear_cached_forward_pass()  # it would keep the model's weights in memory
    # The exact total, where torchinfo would round it and call it gigabytes.
    statistics.formatting.macs_units = Units.NONE
    return statistics


def shapes_along(model: nn.Module, input_size: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the places where the shape changes on the way through a network, with the shapes.

    The batch is left out and channels come first: `(C, H, W)`, `(tokens, C)` or `(C,)`. Maps of
    networks that keep channels last are told by their equal height and width.

    Raises:
        RuntimeError: if an input of that size does not pass through the model.

    Example:
        >>> shapes_along(nn.Sequential(nn.Flatten(), nn.ReLU()), (1, 1, 2, 2))
        [('input', (1, 2, 2)), ('0', (4,))]
    """
    weight = next(model.parameters(), torch.empty(0))
    report = audit(model, torch.zeros(tuple(input_size), dtype=weight.dtype, device=weight.device))
    failed = [finding for finding in report.findings if finding.check == "forward fails"]
    if failed:
        raise RuntimeError(f"{failed[0].place}: {failed[0].detail}")
    found: list[tuple[str, tuple[int, ...]]] = []
    for stage in report.stages:
        if isinstance(stage.shape, tuple):
            _, *sides = stage.shape
            if len(sides) == 3 and sides[0] == sides[1] != sides[2]:
                sides = [sides[2], *sides[:2]]
            if not found or found[-1][1] != tuple(sides):
                found.append((stage.path, tuple(sides)))
    return found


def predict_examples(
    model: nn.Module,
    dataset: Dataset,
    *,
    count: int,
    seed: int,
    device: str | torch.device | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images `(count, C, H, W)`, labels and logits of examples that the seed chooses.

    Raises:
        ValueError: if count is 0 or the dataset is empty.
        TypeError: if the dataset's images are not tensors.

    Example:
        >>> data = TensorDataset(torch.rand(5, 1, 2, 2), torch.arange(5))
        >>> images, labels, logits = predict_examples(nn.Flatten(), data, count=3, seed=0)
        >>> images.shape, logits.shape
        (torch.Size([3, 1, 2, 2]), torch.Size([3, 4]))
    """
    if min(count, len(dataset)) < 1:
        raise ValueError(
            f"nothing to show: count is {count} and the dataset has {len(dataset)} examples; "
            "expected at least 1 of each"
        )
    with as_found(model, seed):
        chosen = random.sample(range(len(dataset)), min(count, len(dataset)))
        images, labels = zip(*(dataset[index] for index in chosen), strict=True)
        if not isinstance(images[0], Tensor):
            raise TypeError(
                f"the dataset gives images of type {type(images[0]).__name__}; expected tensors "
                "(C, H, W): give the dataset a transform that makes them"
            )
        examples = TensorDataset(torch.stack(images), torch.as_tensor(labels))
        logits = predict(model, examples, device=device)
    return *examples.tensors, logits


def dataset_attribute(dataset: Dataset, name: str) -> object:
    """Look an attribute up in a dataset, or in the one that a Subset holds; None if not there."""
    while not hasattr(dataset, name) and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return getattr(dataset, name, None)


@contextmanager
def as_found(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Seed everything, and afterwards put the model's modes and buffers and the random states back.

    Raises:
        ValueError: if the model has lazy layers, which a forward pass would create.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with as_found(norm):
        ...     moved = norm(torch.rand(4, 2))
        >>> norm.running_mean
        tensor([0., 0.])
    """
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise ValueError(
            f"{type(model).__name__} has lazy layers, whose weights its first batch creates: "
            "run one batch through the model first"
        )
    modes = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modes
        for name, buffer in module.named_buffers(recurse=False)
    ]
    with _random_state(seed):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            for module, name, buffer, saved in buffers:
                if buffer.device.type != "meta" and not torch.equal(buffer, saved):
                    buffer.copy_(saved)
                setattr(module, name, buffer)


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and PyTorch's CPU, and give them and CUDA their states back."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - datasets draw from it
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.random.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
