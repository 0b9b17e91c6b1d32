"""What a stored result depends on, as a hash: the bytes of weights, images and settings.

Times and names of files say nothing about what is in them, so neither counts here. Where a
dataset is of a kind that is not known, its items themselves are hashed, which takes reading all.
"""

import hashlib
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib.hashing import NumpyHasher
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import DatasetFolder

from tlbook.folders import ImageFiles
from tlbook.grey import GreyImages, TensorImages


def digest(*parts: Any) -> str:
    """Return the SHA-256 of numbers, texts, tensors, and tuples, lists or dicts of them.

    Example:
        >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest(1) == digest("1")
        (True, False)
    """
    found = hashlib.sha256()
    for part in parts:
        _feed(found, part)
    return found.hexdigest()


def model_digest(model: nn.Module) -> str:
    """Hash a network's weights, statistics and structure; its mode does not count.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> before = model_digest(net)
        >>> net[0].bias.data[0] += 1e-6
        >>> model_digest(net) == before
        False
    """
    # Buffers by themselves too, since some are not in the state_dict.
    tensors = dict(model.state_dict()), dict(model.named_buffers())
    return digest(type(model).__qualname__, repr(model), *tensors)


def data_digest(dataset: Dataset, views: Dataset) -> str:
    """Hash a dataset: its files or tensors and its transform where these are known.

    Args:
        dataset: the dataset of the caller.
        views: the same items as they are given to the network, perhaps several times; for a
            kind of dataset that is not known these are all read and hashed.
    """
    ingredients = _ingredients(dataset, range(len(dataset)))
    try:
        # The first item as well: it depends on code, which no setting tells.
        return digest(*ingredients, views[0])
    except (pickle.PicklingError, AttributeError, TypeError):
        # A lambda in a transform, say, has no content that could be hashed.
        return digest(*(views[i] for i in range(len(views))))


def draws_at_random(dataset: Dataset) -> bool:
    """Tell whether reading an item draws random numbers.

    Example:
        >>> draws_at_random(TensorDataset(torch.zeros(1, 1), torch.zeros(1)))
        False
    """
    before = _random_states()
    first = dataset[0]
    moved = digest(*_random_states()) != digest(*before)
    # Some libraries draw from a generator of their own.
    return moved or digest(first) != digest(dataset[0])


def _random_states() -> tuple[Any, ...]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def _ingredients(dataset: Dataset, indices: Sequence[int]) -> Iterator[Any]:
    """Yield all that these items are made of."""
    if isinstance(dataset, Subset):
        yield from _ingredients(dataset.dataset, [dataset.indices[i] for i in indices])
        return
    # By method, because a subclass that reads its items in another way is another kind.
    known = _KNOWN.get(type(dataset).__getitem__)
    if known is None:
        raise TypeError(f"{type(dataset).__name__} is not a kind that is known")
    yield known.__name__
    yield from known(dataset, list(indices))


def _of_tensors(dataset: TensorDataset, indices: list[int]) -> Iterator[Any]:
    yield from (tensor[indices] for tensor in dataset.tensors)


def _of_grey(dataset: GreyImages, indices: list[int]) -> Iterator[Any]:
    yield _by_content(dataset.transform)
    yield dataset.images[indices]
    yield dataset.targets[indices]


def _of_files(dataset: ImageFiles | DatasetFolder, indices: list[int]) -> Iterator[Any]:
    settings = ("transform", "target_transform", "transforms", "mode", "loader")
    yield from (_by_content(getattr(dataset, name, None)) for name in settings)
    for path, label in (dataset.samples[i] for i in indices):
        yield hashlib.sha256(Path(path).read_bytes()).hexdigest()
        yield label


_KNOWN: dict[Callable, Callable[[Any, list[int]], Iterator[Any]]] = {
    TensorDataset.__getitem__: _of_tensors,
    TensorImages.__getitem__: _of_tensors,
    GreyImages.__getitem__: _of_grey,
    ImageFiles.__getitem__: _of_files,
    DatasetFolder.__getitem__: _of_files,
}


class _Hasher(NumpyHasher):
    """Takes a tensor for its values: pickled, it would also say where in memory it lies."""

    def save(self, obj: Any) -> None:
        super().save(("tensor", digest(obj)) if isinstance(obj, Tensor) else obj)


def _by_content(setting: Any) -> str:
    """Hash what a transform is set to; joblib refuses what can only be told by its address."""
    return _Hasher().hash(setting)


def _feed(found: Any, part: Any) -> None:
    if isinstance(part, Tensor):
        _feed(found, ("tensor", str(part.dtype), tuple(part.shape)))
        # As bytes, because NumPy knows no bfloat16.
        found.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(part, np.ndarray):
        _feed(found, ("array", str(part.dtype), part.shape, part.tobytes()))
    elif isinstance(part, dict):
        _feed(found, ("dict", *part.items()))
    elif isinstance(part, tuple | list):
        _feed(found, f"{len(part)} parts")
        for each in part:
            _feed(found, each)
    else:
        text = part if isinstance(part, bytes) else repr(part).encode()
        found.update(b"%d:" % len(text) + text)
