"""One pass over the data: `train_one_epoch`, `evaluate` and `predict`.

The loop knows nothing about the task. Losses are summed per example, never averaged over batch
means, and nothing waits for the device between two steps.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, RandomSampler

from tlbook import runtime
from tlbook.batches import BatchError, Batches, Data, TensorBatches, guarded, make_batches

Criterion = Callable[[Tensor, Tensor], Tensor]
CHECK_EVERY = 50  # steps between two looks at the loss, each of which waits for the device


class TrainingError(RuntimeError):
    """Training cannot start, or cannot go on."""


class Metrics(NamedTuple):
    """Loss per example, accuracy in [0, 1] (None without class indices), number of examples."""

    loss: float
    accuracy: float | None
    examples: int


class _Tally:
    """Sums over examples, kept as tensors so that no step waits for the device."""

    def __init__(self, criterion: Criterion) -> None:
        self.summed = getattr(criterion, "reduction", "mean") == "sum"
        self.losses: list[Tensor] = []
        self.correct: list[Tensor] = []
        self.counts: list[int] = []

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        self.losses.append(loss.detach())
        self.counts.append(len(targets))
        if targets.ndim == 1 and outputs.ndim == 2 and not targets.is_floating_point():
            self.correct.append((outputs.detach().argmax(dim=1) == targets).sum())

    def metrics(self) -> Metrics:
        examples = sum(self.counts)
        losses = torch.stack(self.losses).tolist()
        weights = [1] * len(losses) if self.summed else self.counts
        loss = sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / examples
        counted = len(self.correct) == len(self.counts)
        accuracy = torch.stack(self.correct).sum().item() / examples if counted else None
        return Metrics(loss, accuracy, examples)


def train_one_epoch(
    model: nn.Module,
    batches: Batches,
    criterion: Criterion,
    optimizer: Optimizer,
    *,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    scheduler: LRScheduler | None = None,
    on_batch: Callable[[int], object] = lambda examples: None,
    backward: Callable[[Tensor, int], object] = lambda loss, examples: loss.backward(),
) -> Metrics:
    """Show every batch to the model once, with one optimizer step after each.

    Args:
        model: on `device` already; put into training mode and left in it.
        batches: pairs `(inputs, targets)`, inputs `(N, ...)`.
        criterion: scalar loss of `(outputs, targets)`.
        optimizer: holds the model's trainable parameters.
        device: where batches are moved.
        precision: "auto", "float32" or "bfloat16".
        scheduler: stepped after every batch, where the schedule counts batches.
        on_batch: called with the number of examples after each batch.
        backward: computes gradients of a batch's loss, given its number of examples.

    Returns:
        Loss per example and accuracy, measured while the weights were moving.

    Raises:
        TrainingError: if the loss is not finite, naming step and learning rate.
    """
    device = torch.device(device)
    tally = _Tally(criterion)
    model.train()
    for inputs, targets in guarded(batches):
        inputs, targets = _move(inputs, device), _move(targets, device)
        with _autocast(device, precision):
            outputs = model(inputs)
        loss = criterion(_as_float(outputs), targets)
        optimizer.zero_grad(set_to_none=True)
        backward(loss, len(targets))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        tally.add(loss, outputs, targets)
        if len(tally.losses) % CHECK_EVERY == 0:
            _check_finite(tally.losses, optimizer)
        on_batch(len(targets))
    _check_finite(tally.losses, optimizer)
    return tally.metrics()


def evaluate(
    model: nn.Module,
    data: Data | Batches,
    *,
    criterion: Criterion | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    precision: str = "float32",
) -> Metrics:
    """Measure a model; its training mode, weights and statistics stay as they are.

    Args:
        model: any module.
        data: Dataset or DataLoader of pairs `(inputs, targets)`.
        criterion: loss; None is cross entropy.
        batch_size: examples per batch, for a Dataset.
        device: None stays where the model is.
        precision: "auto", "float32" or "bfloat16".

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.eye(3), torch.tensor([0, 1, 0]))
        >>> round(evaluate(nn.Identity(), data).accuracy, 3)
        0.667
    """
    criterion = criterion or nn.CrossEntropyLoss()
    tally = _Tally(criterion)
    for outputs, targets in forward_batches(model, data, batch_size, device, precision):
        tally.add(criterion(outputs, targets), outputs, targets)
    return tally.metrics()


def predict(
    model: nn.Module,
    data: Data,
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    precision: str = "float32",
) -> Tensor:
    """Return the model's outputs for a dataset, in its order: `(N, ...)`, float32, on the CPU.

    Args:
        model: any module; its training mode stays as it is.
        data: Dataset, or a DataLoader that does not shuffle.
        batch_size: examples per batch, for a Dataset.
        device: None stays where the model is.
        precision: "auto", "float32" or "bfloat16".

    Raises:
        BatchError: if a DataLoader shuffles, since rows could not be matched to examples.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> predict(nn.Flatten(), TensorDataset(torch.ones(5, 2, 2), torch.zeros(5))).shape
        torch.Size([5, 4])
    """
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        raise BatchError("the DataLoader shuffles: predict needs shuffle=False to keep the order")
    rows = forward_batches(model, data, batch_size, device, precision)
    return torch.cat([outputs.cpu() for outputs, _ in rows])


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode without gradients; give every module its mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def forward_batches(
    model: nn.Module,
    data: Data | Batches,
    batch_size: int,
    device: str | torch.device | None,
    precision: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the model's outputs in float32 and the targets, batch by batch.

    The model is in evaluation mode, and what runs between two batches in inference mode.
    """
    device = device_of(model) if device is None else torch.device(device)
    layout = runtime.precision(precision, device).memory_format
    if not isinstance(data, TensorBatches):
        data = make_batches(data, batch_size, device=device, memory_format=layout)
    with evaluating(model):
        for inputs, targets in guarded(data):
            # A DataLoader's images come in the ordinary layout, in which bfloat16 is slow.
            inputs = _laid_out(_move(inputs, device), layout)
            with _autocast(device, precision):
                outputs = model(inputs)
            yield _as_float(outputs), _move(targets, device)


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    dtype = runtime.precision(precision, device).dtype
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _as_float(outputs: Tensor) -> Tensor:
    """Losses are computed in float32 whatever the layers computed in."""
    return outputs.float() if torch.is_tensor(outputs) else outputs


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


def _laid_out(inputs: Tensor, layout: torch.memory_format) -> Tensor:
    """Return images `(N, C, H, W)` in a layout, and other tensors as they are."""
    return inputs.contiguous(memory_format=layout) if inputs.ndim == 4 else inputs


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter; a model without any is on the CPU."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _check_finite(losses: list[Tensor], optimizer: Optimizer) -> None:
    recent = torch.stack(losses[-CHECK_EVERY:])
    if torch.isfinite(recent).all():
        return
    step = len(losses) - len(recent) + int((~torch.isfinite(recent)).nonzero()[0]) + 1
    rate = optimizer.param_groups[0]["lr"]
    raise TrainingError(
        f"the loss is {losses[step - 1].item()} at step {step}, with learning rate {rate:g}: "
        "expected a finite number; try a tenth of the rate, and look for non-finite inputs"
    )
