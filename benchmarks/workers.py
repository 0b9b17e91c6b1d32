"""How much faster two worker processes cross-validate small networks than one.

Two cores, one thread for each worker. One worker and two take turns; ratios of wall times count.

    python -m benchmarks.workers [--write]
"""

import argparse
import functools
import time
from collections.abc import Callable
from statistics import median

from torch import nn

from benchmarks.results import write_result
from tlbook import SlimVGG, cross_validate, load_dataset, stratified_split

FOLDS, ROUNDS, IMAGES = 4, 3, 2000


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def hidden() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 24, 3),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4608, 10),
    )


# Epochs, so that a fold takes about half a second or more: what small selections look like.
CANDIDATES = {
    "linear": (linear, 20),
    "hidden": (hidden, 20),
    "two convolutions": (convolutions, 6),
    "SlimVGG": (SlimVGG, 2),
}


def seconds(build: Callable[[], nn.Module], epochs: int, n_jobs: int) -> float:
    """Return the wall time of a cross-validation, which gives the same report each time."""
    data, _ = stratified_split(load_dataset("fashion_mnist"), (IMAGES, 100), seed=0)
    start = time.perf_counter()
    cross_validate({"network": build}, data, folds=FOLDS, epochs=epochs, n_jobs=n_jobs)
    return time.perf_counter() - start


def compared(build: Callable[[], nn.Module], epochs: int) -> dict:
    """Return the wall times of one worker and of two, measured in turns, and their ratio."""
    run = functools.partial(seconds, build, epochs)
    times = [(run(1), run(2)) for _ in range(ROUNDS)]
    return {
        "folds": FOLDS,
        "epochs": epochs,
        "seconds with one worker": [round(one, 2) for one, _ in times],
        "seconds with two": [round(two, 2) for _, two in times],
        "times faster": round(median(one / two for one, two in times), 2),
    }


def main() -> None:
    """Compare one worker with two for each network; print or store the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    seconds(linear, 1, n_jobs=2)  # the workers start, and stay
    measured = {name: compared(*candidate) for name, candidate in CANDIDATES.items()}
    for name, result in measured.items():
        print(name, result)
    if options.write:
        write_result("workers", measured)


if __name__ == "__main__":
    main()
