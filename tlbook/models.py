"""The book's own networks: hybrids and slim nets for small images, a half-frozen ResNet, a head.

What they borrow from torchvision's networks is copied, never shared, so that training one leaves
the donor as it was. Each says which image sizes it serves and refuses the others.
"""

import copy

from torch import Tensor, nn
from torchvision.models import ResNet, resnet18
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import cfgs, make_layers

from tlbook.freezing import freeze
from tlbook.heads import adapt_in_channels


class HybridNet(nn.Module):
    """A stem of its own, VGG16-BN's second stage and ResNet-18's third, for small images.

    Images `(N, in_channels, H, W)` become logits `(N, num_classes)`. With 32×32 pixels the
    stages give 64×32×32, 128×16×16, 256×8×8, 256 and 10; 2,325,002 parameters with one channel
    and 10 classes. The mean over positions lets it take any size from 4 pixels on.

    Args:
        in_channels: channels of an image.
        num_classes: classes to tell apart.
        image_size: side of the images in pixels.
        vgg: a VGG16-BN to copy `features[7:14]` from, frozen if it is frozen there; None is fresh.
        resnet: a ResNet-18 to copy `layer3` from, likewise; None is fresh.

    Raises:
        ValueError: if the images are smaller than 4 pixels.

    Example:
        >>> net = HybridNet()
        >>> sum(parameter.numel() for parameter in net.parameters())
        2325002
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        *,
        image_size: int = 32,
        vgg: nn.Module | None = None,
        resnet: ResNet | None = None,
    ) -> None:
        super().__init__()
        _refuse_below(4, image_size, "HybridNet halves its maps twice")
        # A whole VGG16 would fill half a gigabyte with linear layers that nobody borrows.
        features = make_layers(cfgs["D"], batch_norm=True) if vgg is None else vgg.features
        resnet = resnet18(weights=None) if resnet is None else resnet
        self.stem = _stem(in_channels)
        self.vgg = copy.deepcopy(features[7:14])
        self.resnet = copy.deepcopy(resnet.layer3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, C, H, W)` to logits `(N, num_classes)`."""
        x = self.resnet(self.vgg(self.stem(x)))
        return self.fc(self.pool(x).flatten(1))


class PlainHybridNet(nn.Module):
    """HybridNet written out in basic layers, for those who want to read it.

    Same arguments, same parameters in the same order: `copy_weights` carries them over, and the
    outputs are equal.

    Example:
        >>> import torch
        >>> hybrid, plain = HybridNet().eval(), PlainHybridNet().eval()
        >>> images = torch.rand(2, 1, 32, 32)
        >>> torch.allclose(plain.copy_weights(hybrid)(images), hybrid(images), atol=1e-5)
        True
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, *, image_size: int = 32
    ) -> None:
        super().__init__()
        _refuse_below(4, image_size, "PlainHybridNet halves its maps twice")
        self.stem = _stem(in_channels)
        self.vgg = nn.Sequential(
            nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(inplace=True),
            nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )  # fmt: skip
        self.conv1, self.bn1 = _conv(128, 256, stride=2), nn.BatchNorm2d(256)
        self.conv2, self.bn2 = _conv(256, 256), nn.BatchNorm2d(256)
        self.shortcut = nn.Conv2d(128, 256, 1, stride=2, bias=False)
        self.shortcut_bn = nn.BatchNorm2d(256)
        self.conv3, self.bn3 = _conv(256, 256), nn.BatchNorm2d(256)
        self.conv4, self.bn4 = _conv(256, 256), nn.BatchNorm2d(256)
        self.fc = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, C, H, W)` to logits `(N, num_classes)`."""
        x = self.vgg(self.stem(x))
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        x = (y + self.shortcut_bn(self.shortcut(x))).relu()
        y = self.bn4(self.conv4(self.bn3(self.conv3(x)).relu()))
        return self.fc((y + x).relu().mean((2, 3)))

    def copy_weights(self, hybrid: HybridNet) -> "PlainHybridNet":
        """Take over the weights of a HybridNet, entry by entry in their common order."""
        pairs = zip(self.state_dict(), hybrid.state_dict().values(), strict=True)
        self.load_state_dict(dict(pairs))
        return self


class SlimVGG(nn.Module):
    """Two 5×5 convolutions of 32 channels, three 3×3 of 64, and two linear layers.

    Images `(N, in_channels, S, S)` become logits `(N, num_classes)`. With 28×28 pixels the stages
    give 32×14×14, 64×7×7, 256 and 10; 925,482 parameters with one channel and 10 classes.

    Args:
        in_channels: channels of an image.
        num_classes: classes to tell apart.
        image_size: side of the images in pixels; the first linear layer is made for it.
        dropout: probability to drop a map, after each stage.

    Raises:
        ValueError: if the images are smaller than 4 pixels; in forward, if an image has another
            size than `image_size`.

    Example:
        >>> sum(parameter.numel() for parameter in SlimVGG().parameters())
        925482
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        *,
        image_size: int = 28,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        _refuse_below(4, image_size, "SlimVGG halves its maps twice")
        self.image_size = image_size
        self.features = nn.Sequential(
            *_block(in_channels, 32, 5), *_block(32, 32, 5), nn.MaxPool2d(2), nn.Dropout2d(dropout),
            *_block(32, 64, 3), *_block(64, 64, 3), *_block(64, 64, 3), nn.MaxPool2d(2),
            nn.Dropout2d(dropout),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(64 * (image_size // 4) ** 2, 256), nn.BatchNorm1d(256), nn.ReLU(inplace=True),
            nn.Linear(256, num_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, C, S, S)` to logits `(N, num_classes)`."""
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"the images have {x.shape[2]}×{x.shape[3]} pixels, and this SlimVGG was made for "
                f"{self.image_size}×{self.image_size}: resize them, or build "
                f"SlimVGG(image_size={x.shape[2]})"
            )
        return self.classifier(self.features(x).flatten(1))


class HalfFrozenResNet(ResNet):
    """A ResNet-18 whose first half is a donor's and frozen, and whose second half is fresh.

    `conv1` to `layer2` are copied and frozen with their statistics, `layer3`, `layer4` and the
    head are new. With 3 channels and 10 classes 11,181,642 parameters, of which 10,498,570 are
    trainable and 683,072 frozen. The keys are those of torchvision's ResNet-18.

    Args:
        in_channels: channels of an image; the donor's first layer is adapted by summing.
        num_classes: classes to tell apart.
        image_size: side of the images in pixels.
        donor: the ResNet-18 to copy from; None is a fresh one.

    Raises:
        ValueError: if the images are smaller than 17 pixels.

    Example:
        >>> net = HalfFrozenResNet()
        >>> sum(p.numel() for p in net.parameters() if not p.requires_grad)
        683072
    """

    FROZEN = ("conv1", "bn1", "layer1", "layer2")

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        image_size: int = 224,
        donor: ResNet | None = None,
    ) -> None:
        _refuse_below(17, image_size, "HalfFrozenResNet halves its maps five times")
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        for name in self.FROZEN if donor else ():
            self.get_submodule(name).load_state_dict(donor.get_submodule(name).state_dict())
        if in_channels != self.conv1.in_channels:
            self.conv1 = adapt_in_channels(self.conv1, in_channels)
        freeze(self, *self.FROZEN)


class MLPHead(nn.Sequential):
    """A head of two linear layers with BatchNorm, Dropout and ELU, for features `(N, F)`.

    Args:
        in_features: features that arrive.
        num_classes: classes to tell apart.
        hidden: numbers between the two linear layers.
        dropout: probabilities to drop a number before each linear layer.

    Example:
        >>> [type(layer).__name__ for layer in MLPHead(1280, 3)][:4]
        ['BatchNorm1d', 'Dropout', 'Linear', 'BatchNorm1d']
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden: int = 256,
        dropout: tuple[float, float] = (0.25, 0.5),
    ) -> None:
        super().__init__(
            nn.BatchNorm1d(in_features), nn.Dropout(dropout[0]), nn.Linear(in_features, hidden),
            nn.BatchNorm1d(hidden), nn.ELU(), nn.Dropout(dropout[1]),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip


def _refuse_below(least: int, image_size: int, why: str) -> None:
    if image_size < least:
        raise ValueError(
            f"image_size is {image_size}; {why}, so expected at least {least}: enlarge the images"
        )


def _stem(in_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3×3 convolution as in a ResNet: the BatchNorm behind it makes a bias useless."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _block(inputs: int, outputs: int, side: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
