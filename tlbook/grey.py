"""Datasets of grey images: small ones kept in memory, solar cells read from their package.

What fits in memory as tensors is batched by indexing, an order of magnitude faster than item by
item; everything else behaves as torchvision's datasets do.
"""

import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from tlbook.folders import DataError, ImageFiles, Transform
from tlbook.sources import Found


class TensorImages(TensorDataset):
    """Grey images in memory as tensors, which `fit` batches by indexing.

    An item is a float32 tensor (1, H, W) in [0, 1] and an int label.

    Attributes:
        tensors: images (N, 1, H, W), float32 in [0, 1], and labels (N,), int64.
        classes: names; the label is the position in this list.
        class_to_idx: name to label.
        targets: the labels again.
        source: where the images came from, in words.

    Example:
        >>> white = torch.full((2, 4, 4), 255, dtype=torch.uint8)
        >>> dataset = TensorImages(white, torch.tensor([0, 1]), classes=["a", "b"], source="me")
        >>> image, label = dataset[1]
        >>> image.shape, image.max().item(), label
        (torch.Size([1, 4, 4]), 1.0, 1)
    """

    def __init__(self, images: Tensor, targets: Tensor, *, classes: list[str], source: str) -> None:
        super().__init__(images.unsqueeze(1).to(torch.float32).div_(255), targets)
        self.targets, self.source = targets, source
        self.classes = list(classes)
        self.class_to_idx = {name: label for label, name in enumerate(classes)}

    def __getitem__(self, index: Any) -> tuple[Tensor, Any]:
        images, targets = super().__getitem__(index)
        return images, targets.item() if targets.ndim == 0 else targets


class GreyImages(Dataset):
    """Grey images given to a transform one by one, as PIL images of mode "L".

    An item is `(transform(image), label)`; the other attributes are those of `TensorImages`.

    Attributes:
        images: uint8 tensor (N, H, W).

    Example:
        >>> black = torch.zeros(2, 4, 4, dtype=torch.uint8)
        >>> labels = torch.tensor([0, 1])
        >>> size = lambda image: image.size
        >>> GreyImages(black, labels, classes=["a", "b"], source="me", transform=size)[1]
        ((4, 4), 1)
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        classes: list[str],
        source: str,
        transform: Transform,
    ) -> None:
        self.images, self.targets, self.source = images, targets, source
        self.transform = transform
        self.classes = list(classes)
        self.class_to_idx = {name: label for label, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index].numpy())
        return self.transform(image), self.targets[index].item()


class SolarCells(ImageFiles):
    """The 2,624 photographs (1, 300, 300) of solar cells of the PyPI package elpv-dataset.

    Electroluminescence images of single cells, read from the package's files when asked for
    (about 1.3 ms each). Experts gave each cell a probability of being defective: 0, 1/3, 2/3 or
    1. A cell counts as defective (label 1) from 0.5 on, so that 1/3 is sound (label 0) and 2/3 is
    defective: 1,803 sound and 821 defective. The package itself draws no such line. Its licence,
    CC BY-NC-SA 4.0, allows no commercial use.

    Attributes:
        probabilities: float32 tensor (N,) of the experts' probabilities.
        cell_types: list of "mono" or "poly", for mono- or polycrystalline silicon.

    Raises:
        DataError: if the package is not installed.

    Example:
        >>> cells = SolarCells()
        >>> len(cells), cells.classes, cells.targets.bincount().tolist()
        (2624, ['sound', 'defective'], [1803, 821])
    """

    def __init__(self, transform: Transform | None = None) -> None:
        found = find_solar_cells()
        if found is None:
            raise DataError(
                "the solar cells come with a package that is not installed: "
                "run pip install elpv-dataset"
            )
        folder, source = found
        rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
        samples = [(folder / name, int(float(p) >= 0.5)) for name, p, _ in rows]
        names = ["sound", "defective"]
        super().__init__(
            folder, samples, classes=names, source=source, transform=transform, mode="L"
        )
        self.probabilities = torch.tensor([float(probability) for _, probability, _ in rows])
        self.cell_types = [kind for _, _, kind in rows]


def find_solar_cells() -> Found | None:
    """Return the folder with the solar cells' `labels.csv`; None if there is none.

    Example:
        >>> (find_solar_cells().path / "labels.csv").is_file()
        True
    """
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "data"
    return Found(folder, f"PyPI package elpv-dataset {version('elpv-dataset')}")
