"""Pictures and tables: images, maps, shapes, predictions, histories, summaries, comparisons.

Every function returns what it made and leaves the rest as it was: pyplot's figures and settings,
the model, the random states. matplotlib is imported here alone, and only to draw.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tlbook.comparison import Comparison, compare_models
from tlbook.drawing import STYLE, draw_confusion, draw_grid, draw_histories, draw_shapes
from tlbook.inspection import dataset_attribute, predict_examples, shapes_along, summary
from tlbook.pictures import (
    Labels,
    as_pictures,
    captions,
    class_names,
    count_pairs,
    scaled,
    words_for,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tlbook.history import History

__all__ = [
    "Comparison",
    "compare_models",
    "imshow",
    "plot_confusion",
    "plot_history",
    "plot_shapes",
    "show_maps",
    "show_predictions",
    "summary",
]

WIDTH = 6.4  # inches: shown 640 pixels wide, 9-point letters are as large as on paper
LETTER = 0.078  # inches: the mean width of a 9-point letter


@contextmanager
def new_figure(width: float, height: float, title: str | None) -> Iterator[Figure]:
    """Yield a figure that pyplot made and forgets, drawn in the book's style alone."""
    import matplotlib.pyplot as plt

    # pyplot makes it, outside the style, because that loads a notebook's backend with its own
    # settings; closed, the figure is not shown a second time at the end of the cell.
    figure = plt.figure(
        figsize=(width, height), dpi=120, facecolor="white", frameon=True, layout="constrained"
    )
    try:
        with plt.style.context(["default", STYLE]):
            if title is not None:
                figure.suptitle(title)
            yield figure
            # Ticks are made and spaced when drawn, in the reader's style by then: a size of their
            # own makes them now and fixes both.
            for axes in figure.axes:
                axes.tick_params(labelsize=STYLE["font.size"])
    finally:
        plt.close(figure)


def _grid(
    pictures: Sequence[np.ndarray], words: Sequence[str] | None, columns: int, title: str | None
) -> Figure:
    """Draw captioned pictures on a figure just large enough."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell = min(WIDTH / columns, WIDTH / 2)
    letters = max(8, int(cell / LETTER))
    wrapped = [
        "\n".join(textwrap.fill(line, letters) for line in caption.splitlines())
        for caption in (words or [""] * len(pictures))
    ]
    lines = max(caption.count("\n") + 1 for caption in wrapped) if words else 0
    tallest = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    height = rows * (cell * tallest + 0.17 * lines + 0.05) + (0.3 if title else 0)
    with new_figure(cell * columns, height, title) as figure:
        draw_grid(figure, pictures, wrapped, columns)
    return figure


def imshow(
    images: Tensor | Sequence[Tensor],
    *,
    labels: Labels | None = None,
    predictions: Labels | None = None,
    classes: Sequence[str] | None = None,
    transform: object = None,
    columns: int = 4,
    title: str | None = None,
) -> Figure:
    """Show one image or a grid of images, with labels and predictions where given.

    A wrong prediction has a cross, bold words and a thick dashed frame.

    Args:
        images: one image `(C, H, W)`, a batch `(N, C, H, W)`, or a list of images, which may
            differ in size; C is 1 (grey) or 3. Floating point in [0, 1], or uint8.
        labels: for each image a class index, or any words.
        predictions: as labels.
        classes: names of the class indices.
        transform: the preprocessing, whose normalisation is undone; uint8 images had none.
        columns: pictures in a row.
        title: words above the grid.

    Returns:
        The figure, which a notebook shows once, as the last line of its cell.

    Raises:
        ValueError: if a shape, type, length, index or value is not as above.

    Example:
        >>> grey = torch.rand(2, 1, 8, 8)
        >>> figure = imshow(grey, labels=[0, 1], predictions=[0, 0], classes=["cat", "dog"])
        >>> [axes.get_title() for axes in figure.axes]
        ['✓ cat', '✗ cat\\ntrue: dog']
    """
    pictures = as_pictures(images, transform)
    true = class_names(labels, "labels", len(pictures), classes)
    predicted = class_names(predictions, "predictions", len(pictures), classes)
    return _grid(pictures, captions(true, predicted), columns, title)


def show_maps(
    maps: Tensor,
    *,
    labels: Sequence[str] | None = None,
    columns: int = 8,
    shared: bool = True,
    title: str | None = None,
) -> Figure:
    """Show activations or filters, from the smallest value in black to the largest in white.

    Args:
        maps: grey maps `(K, H, W)`, or coloured ones `(K, 3, H, W)` such as the filters of a
            first layer; any values.
        labels: words above each map.
        columns: maps in a row.
        shared: one range of values for all maps, so that they can be compared; otherwise each
            has its own, so that faint ones can be seen.
        title: words above the grid.

    Raises:
        ValueError: if there are no maps, or their shape or values do not fit.

    Example:
        >>> len(show_maps(nn.Conv2d(3, 16, 7).weight).axes)
        16
    """
    return _grid(as_pictures(scaled(maps, shared=shared)), labels, columns, title)


def plot_shapes(model: nn.Module, input_size: Sequence[int], *, title: str | None = None) -> Figure:
    """Draw the shapes that flow through a network, one block wherever the shape changes.

    A block is as high as the maps are in pixels, and as wide as the square root of their number.

    Args:
        model: maps one tensor to outputs; nothing of it is changed.
        input_size: shape of that tensor with the batch in it, `(N, C, H, W)`.
        title: words above the blocks.

    Raises:
        RuntimeError: if an input of that size does not pass through the model.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
        >>> [text.get_text() for text in plot_shapes(net, (1, 1, 8, 8)).axes[0].get_xticklabels()]
        ['input', '0', '2']
    """
    with new_figure(WIDTH, 3.4, title) as figure:
        draw_shapes(figure, shapes_along(model, input_size))
    return figure


def show_predictions(
    model: nn.Module,
    dataset: Dataset,
    *,
    count: int = 8,
    seed: int = 0,
    device: str | torch.device | None = None,
    classes: Sequence[str] | None = None,
    transform: object = None,
    columns: int = 4,
    title: str | None = None,
) -> Figure:
    """Show examples of a dataset with the model's predictions and their probabilities.

    The model runs in evaluation and inference mode, and nothing of it is changed.

    Args:
        model: maps images `(N, C, H, W)` to logits `(N, classes)`.
        dataset: gives pairs of an image `(C, H, W)` and its class index.
        count: examples to show; all where the dataset has fewer.
        seed: chooses the examples and fixes random transforms.
        device: where the images go; None is where the model is.
        classes: names of the classes; None takes the dataset's.
        transform: as in `imshow`; None takes the dataset's own.
        columns, title: as in `imshow`.

    Raises:
        ValueError: if there is nothing to show, or the outputs do not fit the classes.
        TypeError: if the dataset's images are not tensors.

    Example:
        >>> data = [(torch.rand(1, 2, 2), 0)] * 5
        >>> len(show_predictions(nn.Flatten(), data, count=3).axes)
        3
    """
    classes = dataset_attribute(dataset, "classes") if classes is None else classes
    transform = dataset_attribute(dataset, "transform") if transform is None else transform
    found = predict_examples(model, dataset, count=count, seed=seed, device=device)
    words = words_for(*found[1:], classes)
    return _grid(as_pictures(found[0], transform), words, columns, title)


def plot_history(*histories: History | Mapping[str, History], title: str | None = None) -> Figure:
    """Plot loss and accuracy by epoch: training dashed, validation solid, the best epoch starred.

    Args:
        histories: one or several histories, or one dictionary `{name: history}` to compare.
        title: words above the panels.

    Returns:
        A figure with two panels, loss per example and accuracy in [0, 1].

    Raises:
        ValueError: if there is no history, or one has no epochs.

    Example:
        >>> from tlbook.history import Epoch, History
        >>> history = History([Epoch(1, 0.9, 0.6, 0.8, 0.7, 0.1, 2.0, 500.0)])
        >>> [axes.get_ylabel() for axes in plot_history(history).axes]
        ['loss per example', 'accuracy (0 to 1)']
    """
    runs = {f"run {number}": history for number, history in enumerate(histories, start=1)}
    if len(histories) == 1 and isinstance(histories[0], Mapping):
        runs = dict(histories[0])
    empty = [name for name, history in runs.items() if not history.to_dict()["epoch"]]
    if empty or not runs:
        found = f"{', '.join(empty)} without epochs" if empty else "no history"
        raise ValueError(f"plot_history got {found}; expected histories of at least one epoch")
    rows_of_names = 0 if len(runs) == 1 else -(-len(runs) // 3)
    with new_figure(WIDTH, 3.2 + 0.2 * rows_of_names, title) as figure:
        draw_histories(figure, runs)
    return figure


def plot_confusion(
    targets: Sequence[int] | Tensor,
    predictions: Sequence[int] | Tensor,
    *,
    classes: Sequence[str],
    normalize: bool = True,
    title: str | None = None,
) -> Figure:
    """Plot how often each true class (row) was predicted as each class (column).

    Args:
        targets: true class indices `(N,)`.
        predictions: predicted class indices `(N,)`.
        classes: names of the classes.
        normalize: colour by the share of a true class's examples and write it below the count;
            otherwise colour by count.
        title: words above the matrix.

    Raises:
        ValueError: if lengths differ, there are no examples, or an index is not of a class.

    Example:
        >>> figure = plot_confusion([0, 0, 1], [0, 1, 1], classes=["cat", "dog"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['1\\n50%', '1\\n50%', '0', '1\\n100%']
    """
    counts = count_pairs(targets, predictions, len(classes))
    cell = max(0.48, 2.4 / len(classes))
    longest = max(len(name) for name in classes) * LETTER
    slanted = longest > cell
    width = cell * len(classes) + longest + 0.7
    height = (
        cell * len(classes) + (0.7 * longest if slanted else 0) + (0.9 if title is None else 1.2)
    )
    with new_figure(width, height, title) as figure:
        draw_confusion(figure, counts, classes, normalize=normalize, slanted=slanted)
    return figure
