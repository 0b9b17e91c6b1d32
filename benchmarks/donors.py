"""The donors of `benchmarks.when_it_helps`: ResNet-18s whose conv1 to layer2 are lent.

Each sees an image 48,000 times. What it is trained on: images of five classes of Fashion-MNIST with
their labels (`related`) or with shuffled labels, crops of solar cells (`unrelated`), or the images
of all ten classes without labels, which it learns to draw again (`auto-encoder`).
"""

import functools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset
from torchvision.models import ResNet, resnet18
from torchvision.transforms import v2

from tlbook import fit, load_dataset, load_weights, replace, save_weights, seed_everything
from tlbook.data import SolarCells
from tlbook.runtime import cache_dir
from tlbook.weights import FASHION_MEAN, FASHION_SD, FASHION_SOURCE

FOLDER = "when_it_helps"  # of the cache folder
KEPT = ("conv1.", "bn1.", "layer1.", "layer2.")
DONORS = ("related", "unrelated", "shuffled", "auto-encoder")
DONOR_IMAGES, DONOR_BATCH, DONOR_RATE = 48_000, 100, 0.05

sgd = functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=5e-4)


class AutoEncoder(nn.Module):
    """conv1 to layer2 of a ResNet-18, and a decoder that gives back the grey image."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = resnet18(weights=None)
        # 32 maps of 4×4: fewer numbers than the image has, or copying would do.
        layers: list[nn.Module] = [nn.Conv2d(128, 32, 1)]
        for inputs, outputs, size in ((32, 64, 7), (64, 32, 14), (32, 16, 28)):
            conv = nn.Conv2d(inputs, outputs, 3, padding=1)
            layers += [nn.Upsample(size=size), conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, 3, 28, 28)` to images `(N, 1, 28, 28)`."""
        net = self.encoder
        x = net.maxpool(net.bn1(net.conv1(x)).relu())
        return self.decoder(net.layer2(net.layer1(x)))


def clothes(split: str, labels: tuple[int, ...], shrink: int = 1) -> TensorDataset:
    """Return normalised images `(N, 3, 28, 28)` of some classes, which count from 0 anew."""
    images, targets = load_dataset("fashion_mnist", split).tensors
    chosen = torch.isin(targets, torch.tensor(labels)).nonzero().flatten()[::shrink]
    normalised = (images[chosen] - FASHION_MEAN) / FASHION_SD
    new = torch.searchsorted(torch.tensor(labels), targets[chosen])
    return TensorDataset(normalised.expand(-1, 3, -1, -1), new)


def grey_cells(side: int) -> tuple[Tensor, SolarCells]:
    """Return all solar cells as bytes `(N, 1, side, side)`, and what is known of them."""
    resize = v2.Resize((side, side), interpolation=v2.InterpolationMode.BICUBIC)
    data = load_dataset("solar_cells", "all", transform=v2.Compose([resize, v2.PILToTensor()]))
    return torch.stack([image for image, _ in data]), data


def crops_of_cells(count: int) -> TensorDataset:
    """Return crops `(count, 3, 28, 28)` of solar cells: mono or poly, sound or defective."""
    grey, data = grey_cells(112)
    random = torch.Generator().manual_seed(0)
    cells = torch.randint(len(grey), (count,), generator=random)
    corners = torch.randint(112 - 56, (count, 2), generator=random).tolist()
    crops = [grey[i, :, y : y + 56, x : x + 56] for i, (y, x) in zip(cells, corners, strict=True)]
    images = F.avg_pool2d(torch.stack(crops).float(), 2)
    images = (images - images.mean()) / images.std()
    classes = data.targets + 2 * torch.tensor([kind == "poly" for kind in data.cell_types])
    return TensorDataset(images.expand(-1, 3, -1, -1), classes[cells])


def without_layer4(net: ResNet, classes: int) -> ResNet:
    """Take off the stage that would work on 1×1 maps, and fit a new head."""
    replace(net, "layer4", nn.Identity())
    return replace(net, "fc", nn.Linear(256, classes))


def source(name: str, shrink: int) -> tuple[nn.Module, TensorDataset]:
    """Return a fresh network and what it is to be trained on."""
    if name == "auto-encoder":
        images = clothes("train", tuple(range(10)), shrink).tensors[0]
        return AutoEncoder(), TensorDataset(images, images[:, :1])
    images, labels = clothes("train", FASHION_SOURCE, shrink).tensors
    if name == "shuffled":
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    data = TensorDataset(images, labels)
    if name == "unrelated":
        data = crops_of_cells(len(data))
    return without_layer4(resnet18(weights=None), int(data.tensors[1].max()) + 1), data


@functools.cache
def donor(name: str, shrink: int) -> ResNet:
    """Return a ResNet-18 with the donor's conv1 to layer2, trained once and kept on disk."""
    seen = DONOR_IMAGES // shrink
    path = cache_dir() / FOLDER / f"{name}-{seen}.safetensors"
    receiver = resnet18(weights=None)
    if not path.is_file():
        start = time.perf_counter()
        seed_everything(0)
        model, data = source(name, shrink)
        criterion = nn.MSELoss() if name == "auto-encoder" else None
        budget = seen // len(data), DONOR_BATCH, DONOR_RATE
        trained(model, data, *budget, sgd, "auto", criterion=criterion)
        encoder = getattr(model, "encoder", model)
        kept = {key: value for key, value in encoder.state_dict().items() if key.startswith(KEPT)}
        save_weights(kept, path)
        print(f"donor {name}: {time.perf_counter() - start:.0f} s", flush=True)
    load_weights(receiver, path, strict=False)
    return receiver


def trained(
    model: nn.Module,
    data: TensorDataset,
    epochs: int,
    batch: int,
    rate: float,
    make: Callable[..., torch.optim.Optimizer],
    precision: str,
    *,
    seed: int = 0,
    criterion: nn.Module | None = None,
) -> nn.Module:
    """Train what is not frozen with a one-cycle schedule; no epoch is chosen."""
    steps = epochs * math.ceil(len(data) / batch)
    fit(
        model,
        data,
        epochs=epochs,
        batch_size=batch,
        optimizer=functools.partial(make, lr=rate),
        scheduler=functools.partial(OneCycleLR, max_lr=rate, total_steps=steps),
        scheduler_step="batch",
        criterion=criterion,
        precision=precision,
        progress=False,
        seed=seed,
    )
    return model
