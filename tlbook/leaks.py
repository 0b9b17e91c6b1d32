"""Images that are in a dataset more than once, which make a validation score a lie.

A network that has trained on a copy of an image is not tested by that image. Exact copies are
found by their content, images that only look alike by a difference hash.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tlbook.folders import DataError
from tlbook.identity import image_digests


def find_duplicates(dataset: Dataset, *, distance: int | None = None) -> list[list[int]]:
    """Return the sets of items of a dataset that show the same image.

    Args:
        dataset: gives pairs of an image and its class.
        distance: None finds exact copies. A number from 0 to 64 finds images that look alike: of
            64 comparisons between the brightness of neighbouring areas at most so many come out
            differently. 0 to 4 is right for photographs; small or very plain pictures resemble
            each other without being copies. Sets grow over chains of such pairs.

    Returns:
        Lists of two or more item numbers, in order.

    Raises:
        DataError: if a distance is asked for and the images are not tensors `(C, H, W)`.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> images = torch.rand(4, 1, 16, 16)
        >>> images[2] = images[0]
        >>> find_duplicates(TensorDataset(images, torch.zeros(4)))
        [[0, 2]]
        >>> images[3] = images[1] * 0.98
        >>> find_duplicates(TensorDataset(images, torch.zeros(4)), distance=2)
        [[0, 2], [1, 3]]
    """
    numbers = copies(dataset, image_digests(dataset), distance)
    order = np.argsort(numbers, kind="stable")
    sets = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return sorted(items.tolist() for items in sets if len(items) > 1)


def copies(dataset: Dataset, digests: list[str], distance: int | None) -> np.ndarray:
    """Return one number for each item `(N,)`, the same for those that show the same image."""
    exact = np.unique(digests, return_inverse=True)[1]
    return exact if distance is None else joined(exact, _look_alikes(dataset, distance))


def joined(*labels: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Return numbers `(N,)`, the same for items that any of the labels puts together.

    Example:
        >>> joined([0, 0, 1, 2, 3], ["a", "b", "b", "c", "c"]).tolist()
        [0, 0, 0, 1, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(labels[0])
    graph = coo_array((count, count), dtype=np.int8).tocsr()
    for column in labels:
        numbers = np.unique(np.asarray(column), return_inverse=True)[1]
        _, first = np.unique(numbers, return_index=True)
        # Each item is tied to the first one of its label, which ties them all.
        ties = np.ones(count, dtype=np.int8), (np.arange(count), first[numbers])
        graph = graph + coo_array(ties, shape=(count, count)).tocsr()
    return connected_components(graph, directed=False)[1]


def difference_hash(image: Tensor) -> Tensor:
    """Return 64 bits that say where an image `(C, H, W)` grows brighter to the right.

    Example:
        >>> int(difference_hash(torch.linspace(0, 1, 18).expand(1, 16, 18)).sum())
        64
    """
    grey = image.float().mean(dim=0, keepdim=True)[None]
    small = nn.functional.interpolate(grey, size=(8, 9), mode="area")[0, 0]
    return (small[:, 1:] > small[:, :-1]).flatten()


def _look_alikes(dataset: Dataset, distance: int) -> np.ndarray:
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import radius_neighbors_graph

    images = [dataset[index][0] for index in range(len(dataset))]
    if not all(isinstance(image, Tensor) and image.ndim == 3 for image in images):
        raise DataError(
            "images that look alike are found among tensors (C, H, W), and the dataset gives "
            f"{type(images[0]).__name__}: give it a transform that makes tensors"
        )
    bits = torch.stack([difference_hash(image) for image in images]).float().numpy()
    # Between rows of zeros and ones the squared Euclidean distance counts the differing bits.
    near = radius_neighbors_graph(bits, radius=(distance + 0.5) ** 0.5)
    return connected_components(near, directed=False)[1]
