"""From tensors to what a picture grid shows: pixel values, and the words of the captions.

Undoing a normalisation and naming classes are where pictures go wrong silently, so both are
checked here, apart from the drawing.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 0.05  # resampling leaves [0, 1] by less, a normalised image by far more

Labels = Sequence[int] | Sequence[str] | Tensor | int | str


def as_pictures(images: Tensor | Sequence[Tensor], transform: object = None) -> list[np.ndarray]:
    """Turn images into arrays `(H, W, C)` of values in [0, 1].

    Args:
        images: as for `display.imshow`.
        transform: the preprocessing whose normalisation is undone.

    Raises:
        ValueError: if an image's shape, type or values do not fit.

    Example:
        >>> as_pictures(torch.full((1, 2, 2), 255, dtype=torch.uint8))[0].max()
        np.float32(1.0)
    """
    several = not isinstance(images, Tensor) or images.ndim == 4
    normalisation = _normalisation(transform)
    pictures = [_as_picture(image, normalisation) for image in (images if several else [images])]
    if not pictures:
        raise ValueError("there are no images to show: give at least one")
    return pictures


def _as_picture(image: Tensor, normalisation: tuple[Tensor, Tensor] | None) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"an image has shape {tuple(image.shape)}; expected (C, H, W) or a batch "
            "(N, C, H, W) with 1 or 3 channels: unsqueeze adds a missing channel dimension"
        )
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(
            f"an image is {image.dtype}; expected floating point in [0, 1] or torch.uint8"
        )
    pixels = image.detach().cpu().float()
    if image.dtype == torch.uint8:
        pixels = pixels / 255
    elif normalisation is not None:
        mean, std = normalisation
        if len(mean) not in (1, len(pixels)):
            raise ValueError(
                f"transform normalises {len(mean)} channels, but an image has {len(pixels)}: "
                "give the transform that made these images"
            )
        pixels = pixels * std + mean
    low, high = pixels.min().item(), pixels.max().item()
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # so written, it refuses NaN as well
        raise ValueError(
            f"an image has values from {low:.3g} to {high:.3g}; expected [0, 1]: give transform= "
            "(the preprocessing that normalised it) to undo that, or scale the values yourself"
        )
    return pixels.clamp(0, 1).permute(1, 2, 0).numpy()


def _normalisation(transform: object) -> tuple[Tensor, Tensor] | None:
    """Find the mean and standard deviation of the last normalisation inside a transform."""
    mean, std = getattr(transform, "mean", None), getattr(transform, "std", None)
    if mean is not None and std is not None:
        return tuple(torch.as_tensor(value).float().view(-1, 1, 1) for value in (mean, std))
    steps = transform if isinstance(transform, nn.Sequential) else ()
    found = [_normalisation(step) for step in getattr(transform, "transforms", steps)]
    return next((pair for pair in reversed(found) if pair is not None), None)


def class_indices(values: Sequence[int] | Tensor, what: str, count: int | None) -> list[int]:
    """Return values as a list after checking that they are class indices `(N,)` below count.

    Raises:
        ValueError: if they are anything else; the message calls them what.

    Example:
        >>> class_indices(torch.tensor([0, 2]), "labels", 3)
        [0, 2]
    """
    indices = torch.as_tensor(values)
    if indices.ndim != 1 or indices.is_floating_point():
        raise ValueError(
            f"{what} have shape {tuple(indices.shape)} and type {indices.dtype}; expected class "
            "indices (N,): for a model's outputs take .argmax(dim=1)"
        )
    for index in indices.tolist():
        if index < 0 or (count is not None and index >= count):
            limit = "0 or more" if count is None else f"0 to {count - 1} for {count} classes"
            raise ValueError(f"{what} contain {index}; expected {limit}: check the list of classes")
    return indices.tolist()


def class_names(
    values: Labels | None, what: str, count: int, classes: Sequence[str] | None
) -> list[str] | None:
    """Return labels or predictions of count images as words; words stay as they are.

    Raises:
        ValueError: if there are not count values, or one is no class index.

    Example:
        >>> class_names([1, 0], "labels", 2, ["cat", "dog"])
        ['dog', 'cat']
    """
    if values is None:
        return None
    if isinstance(values, str | int) or (isinstance(values, Tensor) and values.ndim == 0):
        values = [values]
    if len(values) != count:
        raise ValueError(f"there are {len(values)} {what} for {count} images: give one for each")
    if isinstance(values[0], str):
        return list(values)
    indices = class_indices(values, what, None if classes is None else len(classes))
    return [str(index) if classes is None else classes[index] for index in indices]


def captions(
    true: Sequence[str] | None,
    predicted: Sequence[str] | None,
    probabilities: Sequence[float] | None = None,
) -> list[str] | None:
    """Return what stands above each picture; a wrong prediction begins with a cross.

    Example:
        >>> captions(["cat", "cat"], ["cat", "dog"], [0.9, 0.6])
        ['✓ cat 0.90', '✗ dog 0.60\\ntrue: cat']
    """
    if predicted is None:
        return None if true is None else list(true)
    said = list(predicted)
    if probabilities is not None:
        said = [f"{name} {p:.2f}" for name, p in zip(predicted, probabilities, strict=True)]
    if true is None:
        return [f"predicted: {name}" for name in said]
    return [
        f"✓ {words}" if name == truth else f"✗ {words}\ntrue: {truth}"
        for words, name, truth in zip(said, predicted, true, strict=True)
    ]


def words_for(labels: Tensor, logits: Tensor, classes: Sequence[str] | None) -> list[str] | None:
    """Return captions for labels `(N,)` and the logits `(N, classes)` of a model.

    Raises:
        ValueError: if the logits do not fit the classes.

    Example:
        >>> words_for(torch.tensor([1]), torch.zeros(1, 2), ["cat", "dog"])
        ['✗ cat 0.50\\ntrue: dog']
    """
    if logits.ndim != 2 or (classes is not None and logits.shape[1] != len(classes)):
        raise ValueError(
            f"the model's outputs have shape {tuple(logits.shape)}; expected "
            f"(N, {'classes' if classes is None else len(classes)}), one logit for each class: "
            "replace the model's head"
        )
    probabilities, predictions = logits.softmax(dim=1).max(dim=1)
    true = class_names(labels, "labels", len(labels), classes)
    predicted = class_names(predictions, "predictions", len(labels), classes)
    return captions(true, predicted, probabilities.tolist())


def count_pairs(
    targets: Sequence[int] | Tensor, predictions: Sequence[int] | Tensor, classes: int
) -> np.ndarray:
    """Return the confusion matrix `(classes, classes)` after checking what goes into it.

    Raises:
        ValueError: if lengths differ, there are no examples, or an index is not of a class.

    Example:
        >>> count_pairs([0, 0, 1], [0, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    from sklearn.metrics import confusion_matrix

    true = class_indices(targets, "targets", classes)
    predicted = class_indices(predictions, "predictions", classes)
    if not true or len(true) != len(predicted):
        raise ValueError(
            f"there are {len(true)} targets and {len(predicted)} predictions; expected equally "
            "many, and at least one"
        )
    return confusion_matrix(true, predicted, labels=range(classes))


def scaled(maps: Tensor, *, shared: bool) -> Tensor:
    """Bring maps `(K, H, W)` or `(K, 3, H, W)` into [0, 1], with one range or each its own.

    Raises:
        ValueError: if there are no maps, or their shape or values do not fit.

    Example:
        >>> scaled(torch.tensor([[[-1.0, 3.0]], [[1.0, 3.0]]]), shared=True).flatten()
        tensor([0.0000, 1.0000, 0.5000, 1.0000])
    """
    if maps.ndim not in (3, 4) or not maps.numel():
        raise ValueError(
            f"the maps have shape {tuple(maps.shape)}; expected (K, H, W), or (K, 3, H, W) in "
            "colour: take one image out of a batch of activations with [0]"
        )
    pictures = maps.detach().cpu().float()
    pictures = pictures.unsqueeze(1) if pictures.ndim == 3 else pictures
    if not pictures.isfinite().all():
        raise ValueError("the maps hold values that are not finite")
    dims = (0, 1, 2, 3) if shared else (1, 2, 3)
    low, high = pictures.amin(dims, keepdim=True), pictures.amax(dims, keepdim=True)
    return (pictures - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
