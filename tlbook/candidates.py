"""The candidates of a selection: built and tried once, before hours are spent on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tlbook.identity import network_digest
from tlbook.inspection import summary
from tlbook.isolation import alone
from tlbook.preflight import check_classes
from tlbook.splits import targets_of

Factory = Callable[[], nn.Module]
_TRIED = 4  # images of the batch that every candidate is tried on


class SelectionError(RuntimeError):
    """A selection cannot start, or its folds say nothing."""


@dataclass(frozen=True)
class Candidate:
    """A network to choose from, and what it costs.

    Attributes:
        name: as given.
        parameters: all of them, trainable or not.
        mult_adds: multiply-adds for one image.
        digest: tells it from any other network, and from itself after a change.
    """

    name: str
    parameters: int
    mult_adds: int
    digest: str


def inspect_candidates(candidates: Mapping[str, Factory], dataset: Dataset) -> list[Candidate]:
    """Build each candidate once and try it on a few images.

    Raises:
        SelectionError: for the first that cannot be built, is no factory of new networks, or does
            not take the images.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(4, 2), torch.tensor([0, 1, 0, 1]))
        >>> [candidate] = inspect_candidates({"linear": lambda: nn.Linear(2, 2)}, data)
        >>> candidate.parameters, candidate.mult_adds
        (6, 6)
    """
    if not candidates:
        raise SelectionError("there are no candidates: expected at least one {name: factory}")
    with alone(seed=0, threads=1):
        count = min(_TRIED, len(dataset))
        images = torch.stack([torch.as_tensor(dataset[item][0]) for item in range(count)])
        targets = targets_of(dataset)[:count]
    found = []
    for name, factory in candidates.items():
        with alone(seed=0, threads=1):
            found.append(_tried(name, factory, dataset, images, targets))
    return found


def _tried(
    name: str, factory: Factory, dataset: Dataset, images: Tensor, targets: Tensor
) -> Candidate:
    try:
        model = _built(factory)
        check_classes(model, dataset, None, torch.device("cpu"))
        size = summary(model, (1, *images.shape[1:]))
        digest = network_digest(model, images, targets)
    except Exception as error:
        raise SelectionError(
            f"candidate {name!r} fails before anything is trained: {type(error).__name__}: {error}"
        ) from error
    return Candidate(name, size.total_params, int(size.total_mult_adds), digest)


def _built(factory: Factory) -> nn.Module:
    if isinstance(factory, nn.Module) or not callable(factory):
        raise TypeError(
            f"it is a {type(factory).__name__}, expected a function without arguments that "
            "builds a new network for every fold, such as `lambda: SlimVGG()`"
        )
    model = factory()
    if not isinstance(model, nn.Module):
        raise TypeError(f"its factory returns a {type(model).__name__}, expected a torch module")
    if factory() is model:
        raise TypeError(
            "its factory returns the same network each time, which the first fold would train for "
            "the others: build it inside the function"
        )
    return model
