"""Give a pretrained network another head for your classes or another stem for your images.

Both ends are found by structure, never by the name of a network, so the same call works on every
classification network. All parts are built and checked before the first one is put in place.
"""

import copy
from typing import Literal, NamedTuple

import torch
from torch import nn

from tlbook.paths import find_module, is_auxiliary, split_path, unwrap

Mode = Literal["sum", "mean", "repeat", "fresh"]


class Head(NamedTuple):
    """The classifier of a network: where it is, the layer, and the paths of its twins.

    Twins are further layers with the same number of outputs: auxiliary heads, and the second head
    of a distilled network.
    """

    path: str
    layer: nn.Linear | nn.Conv2d
    twins: tuple[str, ...] = ()


def get_head(model: nn.Module) -> Head:
    """Find the layer that turns features into classes.

    It is the last layer with parameters, in the order of registration and outside auxiliary
    heads; if that is not a Linear or a 1×1 convolution, the network ends without a classifier.
    In a network of timm the search is kept to what timm calls its classifier.

    Args:
        model: a classification network.

    Returns:
        The head as `(path, layer, twins)`.

    Raises:
        ValueError: if the network does not end in a classifier.

    Example:
        >>> import torchvision
        >>> get_head(torchvision.models.squeezenet1_1()).path
        'classifier.1'
    """
    owners = {
        path: module
        for path, module in unwrap(model).named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }
    inside = _timm_classifier(model)
    main = [p for p in owners if not is_auxiliary(p) and (inside is None or owners[p] in inside)]
    if not main or not _is_classifier(owners[main[-1]]):
        last = f"its last layer is {main[-1]!r}" if main else "it was built without a classifier"
        raise ValueError(
            f"{type(model).__name__} does not end in a Linear or 1×1 Conv2d: {last}. "
            "Build it with one, or name the layer yourself with replace(model, path, layer)."
        )
    path, layer = main[-1], owners[main[-1]]
    beside = [p for p in owners if is_auxiliary(p) or (inside and p in main[:-1])]
    twins = [
        p for p in beside if _is_classifier(owners[p]) and _outputs(owners[p]) == _outputs(layer)
    ]
    return Head(path, layer, tuple(twins))


def _timm_classifier(model: nn.Module) -> set[nn.Module] | None:
    if not hasattr(model, "get_classifier"):
        return None
    parts = model.get_classifier()
    return {m for part in (parts if isinstance(parts, tuple) else (parts,)) for m in part.modules()}


def _outputs(layer: nn.Module) -> int:
    return layer.weight.shape[0]


def _is_classifier(module: nn.Module) -> bool:
    pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    return pointwise or isinstance(module, nn.Linear)


def replace_head(model: nn.Module, n: int, *, head: nn.Module | None = None) -> nn.Module:
    """Give a network a new, trainable head for `n` classes; auxiliary heads change with it.

    Args:
        model: a classification network; it is changed in place.
        n: the number of classes; the new output is `(N, n)`.
        head: a module that takes the place of the main head, from the features `(N, F)` that the
            old one took to `(N, n)`; by default one new layer of the old one's kind. It moves to
            the old one's device and precision.

    Returns:
        The same network.

    Raises:
        ValueError: if `n` is not a positive number, if the network does not end in a classifier,
            or if `head` does not turn the features into `n` outputs.

    Example:
        >>> import torchvision
        >>> replace_head(torchvision.models.resnet18(), 3).fc
        Linear(in_features=512, out_features=3, bias=True)
    """
    if n < 1:
        raise ValueError(f"n is {n}; a head needs at least 1 class")
    path, old, twins = get_head(model)
    new = {path: _new_layer(old, n) if head is None else _fitted(head, old, n)}
    new |= {twin: _new_layer(find_module(model, twin), n) for twin in twins}
    for where, layer in new.items():
        parent, name = split_path(where)
        setattr(find_module(model, parent), name, layer.train(model.training))
    if hasattr(model, "num_classes"):
        model.num_classes = n
    return model


def _new_layer(old: nn.Linear | nn.Conv2d, n: int) -> nn.Module:
    place = {"device": old.weight.device, "dtype": old.weight.dtype}
    bias, features = old.bias is not None, old.weight.shape[1]  # an attribute may say otherwise
    if isinstance(old, nn.Conv2d):
        return nn.Conv2d(features, n, 1, stride=old.stride, bias=bias, **place)
    return nn.Linear(features, n, bias=bias, **place)


def _fitted(head: nn.Module, old: nn.Linear | nn.Conv2d, n: int) -> nn.Module:
    """Try the head on made-up features before it goes into the network."""
    head = head.to(device=old.weight.device, dtype=old.weight.dtype)
    features = old.weight.new_zeros(2, *old.weight.shape[1:])
    trial = copy.deepcopy(head).eval()
    try:
        with torch.no_grad():
            shape = tuple(trial(features).shape)
    except RuntimeError as error:
        raise ValueError(f"head does not take {old.weight.shape[1]} features: {error}") from error
    wanted = (2, n, *old.weight.shape[2:])
    if shape != wanted:
        raise ValueError(f"head gives {shape} for a batch of 2, expected {wanted}")
    return head


def adapt_in_channels(conv: nn.Conv2d, n: int, *, mode: Mode = "sum") -> nn.Conv2d:
    """Copy a convolution so that it takes `n` input channels and keeps what its filters know.

    What one new channel gets: an equal share of the sum over the old ones ("sum": an image of
    equal channels gives the same response as before), their mean ("mean"), the old ones in turn,
    scaled to the same total ("repeat"), or random values ("fresh"). With the channels it already
    has, the copy keeps its weights, except in mode "fresh".

    Args:
        conv: the convolution, weights `(out, in, kH, kW)`; it is not changed.
        n: the number of input channels of the copy, whose weights are `(out, n, kH, kW)`.
        mode: "sum", "mean", "repeat" or "fresh".

    Returns:
        A convolution of the same kind that takes `(N, n, H, W)`.

    Raises:
        ValueError: if `n` is not positive, the mode is unknown, or the convolution is grouped.

    Example:
        >>> conv = nn.Conv2d(3, 8, 3)
        >>> bool((adapt_in_channels(conv, 1).weight == conv.weight.sum(1, keepdim=True)).all())
        True
    """
    if n < 1:
        raise ValueError(f"n is {n}; a convolution needs at least 1 input channel")
    if mode not in (known := Mode.__args__):
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(known)}")
    if conv.groups != 1:
        raise ValueError(f"the convolution has {conv.groups} groups; expected 1, as in a stem")
    new = copy.deepcopy(conv)
    new.in_channels = n
    filters, channels, *kernel = conv.weight.shape  # the attribute may say something else
    if mode == "fresh":
        new.weight = nn.Parameter(conv.weight.new_empty(filters, n, *kernel))
        new.reset_parameters()
    elif n != channels:
        weight = _spread(conv.weight.detach(), n, mode).contiguous()
        new.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    return new


def _spread(weight: torch.Tensor, n: int, mode: Mode) -> torch.Tensor:
    old = weight.shape[1]
    if mode == "repeat":
        return weight[:, torch.arange(n) % old] * (old / n)
    kept = weight.mean(1, keepdim=True) if mode == "mean" else weight.sum(1, keepdim=True) / n
    return kept.expand(-1, n, -1, -1)


def replace_stem(
    model: nn.Module, *, in_channels: int = 3, small_input: bool = False, mode: Mode = "sum"
) -> nn.Module:
    """Give a network another stem: for other channels, for small images, or both.

    The stem is the first convolution registered. For small images one that takes steps of two or
    more becomes 3×3 with stride 1, a max-pool between it and the next convolution an Identity.

    Args:
        model: a classification network; it is changed in place.
        in_channels: the channels of the images `(N, in_channels, H, W)` to come.
        small_input: whether to stop the stem from shrinking the image.
        mode: how the weights of other channels are made, see `adapt_in_channels`.

    Returns:
        The same network.

    Raises:
        ValueError: if there is no convolution, if the stem cuts patches and `small_input` is
            asked for, or if forward itself rescales three channels (`transform_input`).

    Example:
        >>> import torchvision
        >>> net = replace_stem(torchvision.models.resnet18(), in_channels=1, small_input=True)
        >>> net.conv1.weight.shape, net.conv1.stride, net.maxpool
        (torch.Size([64, 1, 3, 3]), (1, 1), Identity())
    """
    stem = _find_stem(model, in_channels)
    new = {stem: adapt_in_channels(find_module(model, stem), in_channels, mode=mode)}
    if small_input and new[stem].stride[0] > 1:
        _keep_size(new[stem], type(model).__name__)
        new |= {path: nn.Identity() for path in _pool_after(model, stem)}
    for where, layer in new.items():
        parent, name = split_path(where)
        setattr(find_module(model, parent), name, layer)
    return model


def _find_stem(model: nn.Module, in_channels: int) -> str:
    kind = type(model).__name__
    convs = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    if not convs:
        raise ValueError(f"{kind} has no Conv2d; expected one that reads the image")
    if in_channels != 3 and getattr(model, "transform_input", False):
        raise ValueError(
            f"forward of {kind} rescales three colours (transform_input=True), found "
            f"in_channels={in_channels}. Set model.transform_input = False and normalise the "
            "images yourself, with mean 0.5 and standard deviation 0.5."
        )
    return convs[0]


def _keep_size(conv: nn.Conv2d, kind: str) -> None:
    size, stride = conv.kernel_size[0], conv.stride[0]
    if size % 2 == 0 or size == stride > 1:
        raise ValueError(
            f"the stem of {kind} cuts patches of {size}×{size}, which has no 3×3 centre; "
            "resize the images instead, or choose a network with an overlapping stem"
        )
    if size > 3:
        # Not rescaled: a BatchNorm behind the stem takes out any factor after a few batches.
        edge = (size - 3) // 2
        centre = conv.weight.detach()[:, :, edge:-edge, edge:-edge].clone()
        conv.weight = nn.Parameter(centre, requires_grad=conv.weight.requires_grad)
        conv.kernel_size = (3, 3)
    conv.stride, conv.padding = (1, 1), tuple(side // 2 for side in conv.kernel_size)


def _pool_after(model: nn.Module, stem: str) -> list[str]:
    layers = list(model.named_modules())
    start = [path for path, _ in layers].index(stem) + 1
    for path, module in layers[start:]:
        if isinstance(module, nn.Conv2d):
            break
        if isinstance(module, nn.MaxPool2d):
            return [path]
    return []
