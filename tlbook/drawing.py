"""Marks on a figure: the book's colours and style, and how grids, curves and matrices are drawn.

Nothing here imports matplotlib: `display` makes the figures and hands them over.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tlbook.history import History

# Okabe and Ito's palette, which people with any form of colour blindness can tell apart.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY = "#E69F00", "#56B4E9"
RUNS = [(BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P")]
INK, GREY = "#1A1A1A", "#767676"
STAR = {
    "marker": "*",
    "markersize": 12,
    "markeredgecolor": INK,
    "linestyle": "none",
    "zorder": 3,
}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 10,
    "figure.titlesize": 11,
    "legend.frameon": False,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor"], INK),
    **dict.fromkeys(["xtick.color", "ytick.color"], INK),
}


def draw_grid(
    figure: Figure, pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int
) -> None:
    """Draw pictures `(H, W, C)` in rows; a caption with a cross is bold, its frame thick dashes."""
    rows = -(-len(pictures) // columns)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        axes = figure.add_subplot(rows, columns, place + 1, xticks=[], yticks=[])
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        wrong = caption.startswith("✗")
        axes.set_title(caption, weight="bold" if wrong else "normal")
        color, width, line = (VERMILION, 3, (0, (3, 2))) if wrong else (GREY, 0.8, "-")
        for spine in axes.spines.values():
            spine.set(visible=True, color=color, linewidth=width, linestyle=line)


def draw_histories(figure: Figure, runs: Mapping[str, History]) -> None:
    """Draw loss and accuracy of named runs in two panels, with what the marks mean."""
    figure.get_layout_engine().set(wspace=0.06)
    looks = dict(zip(runs, itertools.cycle(RUNS), strict=False))
    panels = figure.subplots(1, 2)
    for axes, measure in zip(panels, ("loss", "accuracy"), strict=True):
        for name, run in runs.items():
            _draw_run(axes, run, measure, *looks[name])
        longest = max(max(run.to_dict()["epoch"]) for run in runs.values())
        axes.set(xlabel="epoch", xlim=(0.5, longest + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(visible=True)
        if not axes.has_data():
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
    low, high = panels[1].get_ylim()[0], panels[0].get_ylim()[1]
    panels[0].set(ylabel="loss per example", ylim=(min(0, panels[0].get_ylim()[0]), 1.1 * high))
    panels[1].set(ylabel="accuracy (0 to 1)", ylim=(low - 0.06 * (1 - low), 1 + 0.03 * (1 - low)))
    validated = any(run.best_epoch is not None for run in runs.values())
    _draw_legend(figure, panels[0], looks, validated)


def _draw_run(axes: Axes, run: History, measure: str, color: str, marker: str) -> None:
    columns = run.to_dict()
    epochs = columns["epoch"]
    dots = {"marker": marker if len(epochs) <= 20 else "", "markersize": 4.5}
    for split, look in (("train", {"ls": "--", "markerfacecolor": "white"}), ("val", {"ls": "-"})):
        values = np.array(columns[f"{split}_{measure}"], dtype=float)  # None becomes NaN
        if np.isnan(values).all():
            continue
        axes.plot(epochs, values, color=color, **look, **dots)
        if split == "val":
            best = epochs.index(run.best_epoch)
            axes.plot(epochs[best], values[best], color=color, **STAR)


def _draw_legend(
    figure: Figure, axes: Axes, looks: Mapping[str, tuple[str, str]], validated: bool
) -> None:
    """Explain line styles in the first row and, where there are several runs, colours below it."""
    dots = {"color": GREY, "marker": "o", "markersize": 4.5}
    keys = axes.plot([], [], "--", markerfacecolor="white", label="training", **dots)
    if validated:
        keys += axes.plot([], [], "-", label="validation", **dots)
        keys += axes.plot([], [], color=GREY, label="best epoch", **STAR)
    for name, (color, marker) in looks.items() if len(looks) > 1 else ():
        keys += axes.plot([], [], color=color, marker=marker, label=name)
    by_column = [key for column in range(3) for key in keys[column::3]]  # how legends are filled
    figure.legend(handles=by_column, loc="outside lower center", ncols=3)


def draw_confusion(
    figure: Figure, counts: np.ndarray, classes: Sequence[str], *, normalize: bool, slanted: bool
) -> None:
    """Draw a confusion matrix `(classes, classes)`: counts, and their shares of the rows."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    depth = shares if normalize else counts / counts.max()
    axes = figure.add_subplot()
    axes.imshow(depth, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count}\n{shares[row, column]:.0%}" if normalize and count else str(count)
        color = "white" if depth[row, column] > 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", color=color)
    places = range(len(classes))
    axes.set_xticks(places, classes, **({"rotation": 40, "ha": "right"} if slanted else {}))
    axes.set_yticks(places, classes)
    axes.spines[["top", "right"]].set_visible(True)
    note = "count, share of row" if normalize else "count"
    axes.set(xlabel=f"predicted class\n({note})", ylabel="true class")


def draw_shapes(figure: Figure, stages: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Draw shapes without the batch as blocks: height is the side, width grows with channels."""
    axes = figure.add_subplot(yticks=[])
    tallest = max(shape[1] if len(shape) > 1 else 1 for _, shape in stages)
    widths = [(shape[0] if len(shape) == 3 else shape[-1]) ** 0.5 for _, shape in stages]
    room = 0.06 * sum(widths)  # what slanted words need
    left, centres = 0.0, []
    for (_, shape), width in zip(stages, widths, strict=True):
        is_map = len(shape) == 3
        height = max((shape[1] if is_map else 1) / tallest, 0.01)
        # Tokens and vectors have no height in pixels: thin lines of another colour.
        color = SKY if is_map else ORANGE
        axes.bar(left, height, width, -height / 2, align="edge", color=color, edgecolor=INK)
        centres.append(left + width / 2)
        text = "\u2009×\u2009".join(map(str, shape))
        axes.text(centres[-1], height / 2 + 0.03, text, va="bottom", rotation=40)
        left += max(width, room) + room / 3
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(centres, [name for name, _ in stages], **slanted)
    axes.set(ylim=(-0.6, 1.0), xlabel="layer, and its output: channels × height × width")
    axes.spines["left"].set_visible(False)
