"""Batches for the training loop, from memory where that is possible.

A small dataset that is already tensors needs no worker processes and no collation: a batch is
one indexing operation. Everything else goes through PyTorch's DataLoader.
"""

import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset

Data = Dataset | DataLoader


class BatchError(RuntimeError):
    """A batch could not be made, or has a form that the training loop cannot use."""


class TensorBatches:
    """Batches cut from two tensors by indexing, in a new random order each epoch if asked.

    With the same generator seed the batches are those of
    `DataLoader(dataset, batch_size, shuffle=True, generator=generator)`, epoch by epoch.

    Args:
        inputs: tensor `(N, ...)`.
        targets: tensor `(N, ...)`.
        batch_size: examples per batch; the last batch holds what is left.
        shuffle: whether to draw a new order at the start of each epoch.
        generator: source of the random orders.
        drop_last: leave out a last batch that is smaller than the others.

    Example:
        >>> batches = TensorBatches(torch.arange(5), torch.arange(5), batch_size=2)
        >>> [inputs.tolist() for inputs, targets in batches]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        batch_size: int,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> None:
        self.inputs, self.targets = inputs, targets
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.generator = generator
        # What a process takes of each step's indices, where several train together.
        self.share: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter

    def __len__(self) -> int:
        return batch_count(len(self.inputs), self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in self.share(self._steps()):
            yield self.inputs[index], self.targets[index]

    def _steps(self) -> Sequence[Tensor]:
        """Return the indices of each batch."""
        order = torch.arange(len(self.inputs))
        if self.shuffle:
            # DataLoader draws one number for its workers before the order: drawing it here too,
            # and the order with its own sampler, is what makes both give the same batches.
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
            order = torch.tensor(list(RandomSampler(order, generator=self.generator)))
        if self.drop_last:
            order = order[: len(order) - len(order) % self.batch_size]
        return order.to(self.inputs.device).split(self.batch_size)


Batches = TensorBatches | DataLoader


def batch_count(examples: int, batch_size: int, drop_last: bool = False) -> int:
    """Return how many batches `examples` make."""
    return examples // batch_size if drop_last else math.ceil(examples / batch_size)


def example_count(batches: Batches) -> int:
    """Return how many examples one pass over the batches visits."""
    if isinstance(batches, TensorBatches):
        total, size, drop_last = len(batches.inputs), batches.batch_size, batches.drop_last
    else:
        total, size, drop_last = len(batches.sampler), batches.batch_size, batches.drop_last
    return total - total % size if drop_last and size else total


def in_memory(dataset: Dataset) -> tuple[Tensor, Tensor] | None:
    """Return the dataset's inputs and targets where it holds them as tensors, else None.

    That is a `TensorDataset` of two tensors, or a `Subset` of one. A dataset that applies a
    random transform on every access cannot be kept in memory and is not mistaken for one.

    Example:
        >>> inputs, targets = in_memory(TensorDataset(torch.zeros(3, 2), torch.arange(3)))
        >>> inputs.shape, targets.tolist()
        (torch.Size([3, 2]), [0, 1, 2])
    """
    if isinstance(dataset, Subset):
        whole = in_memory(dataset.dataset)
        index = torch.as_tensor(dataset.indices)
        return None if whole is None else (whole[0][index], whole[1][index])
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors
    return None


def make_batches(
    data: Data,
    batch_size: int,
    *,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> Batches:
    """Return batches of a dataset, kept on the device where it is already tensors.

    Args:
        data: a Dataset; a DataLoader is returned as it is, with its own batch size and order.
        batch_size: examples per batch.
        device: where tensors are kept.
        memory_format: layout for images `(N, C, H, W)`.
        shuffle: a new random order each epoch.
        generator: source of the orders.

    Raises:
        BatchError: if there are no examples.
    """
    if isinstance(data, DataLoader):
        return data
    if len(data) == 0:
        raise BatchError("the dataset is empty: expected at least one example; check its path")
    tensors = in_memory(data)
    if tensors is None:
        return DataLoader(data, batch_size, shuffle=shuffle, generator=generator)
    inputs, targets = (tensor.to(device) for tensor in tensors)
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=memory_format)
    return TensorBatches(
        inputs, targets, batch_size=batch_size, shuffle=shuffle, generator=generator
    )


def guarded(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `(inputs, targets)`, turning a worker's death into an error that says what to do.

    Raises:
        BatchError: if a worker process died, the dataset cannot be sent to workers, or a batch
            is not a pair of tensors.
    """
    hint = "make the DataLoader with num_workers=0 to see the dataset's own error, or to go on"
    try:
        for batch in batches:
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise BatchError(
                    f"a batch is {type(batch).__name__}: expected a pair (inputs, targets); "
                    "let the dataset's items be pairs"
                )
            yield batch[0], batch[1]
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error):
            raise
        raise BatchError(f"the dataset cannot be sent to workers ({error}): {hint}") from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise BatchError(f"a DataLoader worker died ({error}): {hint}") from error
