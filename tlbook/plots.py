"""Pictures of a selection: the points of every fold, cost against accuracy, learning curves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tlbook.display import WIDTH, new_figure
from tlbook.drawing import GREY, INK, RUNS

if TYPE_CHECKING:
    from tlbook.display import Figure
    from tlbook.drawing import Axes

ACCURACY = "validation accuracy (0 to 1)"
Bounds = Mapping[str, tuple[float, float]]


def plot_folds(
    scores: Mapping[str, Sequence[float]], bounds: Bounds, *, title: str | None = None
) -> Figure:
    """Plot the accuracy of every fold as a point, one row for each candidate.

    Args:
        scores: accuracies of the folds of each candidate.
        bounds: the interval around each mean, drawn as a line through a diamond.
        title: words above the points.

    Example:
        >>> figure = plot_folds({"net": [0.8, 0.9]}, {"net": (0.75, 0.95)})
        >>> figure.axes[0].get_yticklabels()[0].get_text()
        'net'
    """
    with new_figure(WIDTH, 1.1 + 0.45 * len(scores), title) as figure:
        axes = figure.add_subplot()
        for row, (name, values) in enumerate(scores.items()):
            # Folds one above the other, in their order, so that equal points do not hide.
            spread = [row + 0.3 * ((i + 0.5) / len(values) - 0.5) for i in range(len(values))]
            axes.plot(values, spread, "o", color=RUNS[0][0], markersize=4, alpha=0.6)
            axes.plot(bounds[name], [row, row], color=INK, linewidth=1.2)
            axes.plot(sum(values) / len(values), row, "D", color=INK, markersize=6)
        axes.set_yticks(range(len(scores)), list(scores))
        axes.set(xlabel=ACCURACY, ylim=(len(scores) - 0.5, -0.5))
        axes.grid(visible=True, axis="x")
    return figure


def plot_pareto(places: Mapping[str, tuple[float, float]], *, title: str | None = None) -> Figure:
    """Plot seconds against accuracy, and join the candidates that none beats in both.

    Args:
        places: (seconds of a fold, accuracy in [0, 1]) of each candidate.
        title: words above the picture.

    Example:
        >>> figure = plot_pareto({"small": (1.0, 0.8), "large": (9.0, 0.9), "poor": (9.5, 0.7)})
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['small', 'large', 'poor']
    """
    with new_figure(WIDTH, 3.4, title) as figure:
        axes = figure.add_subplot(xscale="log")
        front, highest = [], -1.0
        for seconds, accuracy in sorted(places.values(), key=lambda place: (place[0], -place[1])):
            if accuracy > highest:
                front.append((seconds, accuracy))
                highest = accuracy
        if front:
            axes.plot(*zip(*front, strict=True), "--", color=GREY, linewidth=1.2)
        _draw_places(axes, places)
        axes.set(xlabel="seconds of a fold", ylabel=ACCURACY)
        axes.margins(x=0.15, y=0.12)
        axes.grid(visible=True)
    return figure


def plot_learning_curve(
    curves: Mapping[str, Mapping[int, Sequence[float]]], *, title: str | None = None
) -> Figure:
    """Plot the accuracy of every fold, and their mean, against the number of training images.

    Args:
        curves: for each candidate the accuracies of its folds by size.
        title: words above the picture.

    Example:
        >>> figure = plot_learning_curve({"net": {100: [0.7, 0.8], 1000: [0.85, 0.9]}})
        >>> figure.axes[0].get_xlabel()
        'training images'
    """
    with new_figure(WIDTH, 3.4, title) as figure:
        axes = figure.add_subplot(xscale="log")
        for (name, curve), (color, marker) in zip(
            curves.items(), itertools.cycle(RUNS), strict=False
        ):
            points = [(size, score) for size, scores in curve.items() for score in scores]
            axes.plot(*zip(*points, strict=True), marker, color=color, markersize=3.5, alpha=0.5)
            means = [sum(scores) / len(scores) for scores in curve.values()]
            axes.plot(list(curve), means, "-", marker=marker, color=color, label=name)
        axes.set(xlabel="training images", ylabel=ACCURACY)
        axes.grid(visible=True)
        axes.legend()
    return figure


def _draw_places(axes: Axes, places: Mapping[str, tuple[float, float]]) -> None:
    for (name, place), (color, marker) in zip(places.items(), itertools.cycle(RUNS), strict=False):
        axes.plot(*place, marker, color=color, markersize=8, markeredgecolor=INK)
        axes.annotate(name, place, xytext=(7, 5), textcoords="offset points")
