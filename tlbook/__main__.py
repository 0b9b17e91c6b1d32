"""The command line: what is on this machine, and how to get the rest.

`python -m tlbook doctor` looks, `python -m tlbook fetch` downloads.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from tlbook.data import DATASETS, DatasetStatus, dataset_status, fetch_dataset
from tlbook.runtime import best_precision, cache_dir, get_device
from tlbook.weights import WEIGHTS, WeightsStatus, fetch_weights, weights_status

# What chapters need; the rest is for the two case studies with photographs and for exploring.
NEEDED = ("fashion_mnist", "solar_cells", "efficientnet_lite0")
PACKAGES = ("tlbook", "torch", "torchvision", "timm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what stands behind `python -m tlbook`; None reads the command line.

    Returns:
        The exit status: 0, or 1 when something needed is missing or could not be fetched.

    Example:
        >>> main(["fetch", "efficientnet_lite0"])
        efficientnet_lite0: here
        0
    """
    parser = argparse.ArgumentParser(prog="python -m tlbook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="say what is on this machine, and how to get the rest")
    fetch = commands.add_parser("fetch", help="download data sets and pretrained weights")
    fetch.add_argument("name", nargs="*", help="default: everything that doctor calls missing")
    options = parser.parse_args(arguments)
    return doctor() if options.command == "doctor" else fetch_all(options.name)


def doctor() -> int:
    """Print what is on this machine; return 1 when something a chapter needs is missing."""
    precision = best_precision()
    _table("versions", [("python", sys.version.split()[0]), *((p, _version(p)) for p in PACKAGES)])
    rows = [
        ("device", str(get_device())),
        ("precision", f"{precision.name} ({precision.reason})"),
        ("threads", str(torch.get_num_threads())),
        ("cache", str(cache_dir())),
    ]
    _table("machine", rows)
    data = [dataset_status(name) for name in DATASETS]
    weights = [weights_status(name) for name in WEIGHTS]
    for title, statuses in (("data", data), ("weights", weights)):
        _table(title, [_row(status) for status in statuses])
    missing = [s.name for s in (*data, *weights) if not s.present and s.name in NEEDED]
    if missing:
        print(f"the chapters still need: {', '.join(missing)}")
        return 1
    print("the chapters have all they need")
    return 0


def fetch_all(names: Sequence[str]) -> int:
    """Fetch data sets and weights by name, all that are missing if none is given.

    Returns:
        1 if one or more could not be fetched, which does not keep the others from coming.
    """
    everything = [*map(dataset_status, DATASETS), *map(weights_status, WEIGHTS)]
    names = names or [status.name for status in everything if not status.present]
    if not names:
        print("everything is here")
    failed = False
    for name in names:
        try:
            fetch_dataset(name) if name in DATASETS else fetch_weights(name)
            print(f"{name}: here")
        except (OSError, RuntimeError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    return int(failed)


def _row(status: DatasetStatus | WeightsStatus) -> tuple[str, str]:
    if status.present:
        return status.name, f"here: {status.source}"
    need = "needed" if status.name in NEEDED else "optional"
    return status.name, f"missing ({need}): {status.how_to_get}"


def _table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    print(title)
    for name, value in rows:
        print(f"  {name:<20}{value}")
    print()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    raise SystemExit(main())
