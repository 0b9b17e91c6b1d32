"""The command line: what is on this machine, and how to get the rest.

`python -m tlbook doctor` looks, `python -m tlbook fetch` downloads, and `python -m tlbook split`
divides a folder of your own images into train, val and test folders.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from tlbook.data import DATASETS, DatasetStatus, dataset_status, fetch_dataset
from tlbook.moving import carry_out, plan_split, undo
from tlbook.runtime import best_precision, cache_dir, get_device
from tlbook.weights import WEIGHTS, WeightsStatus, fetch_weights, weights_status

# What chapters need; the rest is for the two case studies with photographs and for exploring.
NEEDED = ("fashion_mnist", "solar_cells", "efficientnet_lite0", "resnet18_fashion")
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
    options = _read_options(arguments)
    if options.command == "split":
        return split(options)
    return doctor() if options.command == "doctor" else fetch_all(options.name)


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tlbook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="say what is on this machine, and how to get the rest")
    fetch = commands.add_parser("fetch", help="download data sets and pretrained weights")
    fetch.add_argument("name", nargs="*", help="default: everything that doctor calls missing")
    divide = commands.add_parser("split", help="move images into train, val and test folders")
    divide.add_argument("folder", help="holds one folder of images per class")
    way = divide.add_mutually_exclusive_group(required=True)
    example = "such as train=0.8 val=0.2, or numbers of images"
    way.add_argument("--parts", nargs="+", type=_part, metavar="NAME=SHARE", help=example)
    way.add_argument("--undo", action="store_true", help="bring every file back")
    divide.add_argument("--seed", type=int, default=0, help="default: 0")
    divide.add_argument("--dry-run", action="store_true", help="show the counts, move nothing")
    options = parser.parse_args(arguments)
    if options.command == "split" and options.undo and options.dry_run:
        divide.error("--dry-run goes with --parts")
    if options.command == "split" and len(dict(options.parts or [])) < len(options.parts or []):
        divide.error("each part needs a name of its own")
    return options


def _part(text: str) -> tuple[str, float | int]:
    name, _, share = text.partition("=")
    try:
        return name, int(share) if share.isdigit() else float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a name and a share such as train=0.8"
        ) from None


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


def split(options: argparse.Namespace) -> int:
    """Divide a folder of images, show how it would be divided, or put it back.

    Args:
        options: with `folder`, `parts`, `seed`, `dry_run` and `undo`.

    Returns:
        1 if it was refused, or some files to bring back were no longer there.
    """
    try:
        return _undo(options.folder) if options.undo else _split(options)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def _split(options: argparse.Namespace) -> int:
    plan = plan_split(options.folder, dict(options.parts), seed=options.seed)
    print(plan)
    if options.dry_run:
        print("dry run: nothing was moved")
    else:
        print(f"{carry_out(plan)} files moved; --undo brings them back")
    _list("left in place", plan.left())
    return 0


def _undo(folder: str) -> int:
    undone = undo(folder)
    print(f"{undone.moved} files brought back")
    _list("kept because of other files in it", undone.kept)
    _list("not brought back, no longer there", undone.missing)
    return int(bool(undone.missing))


def _list(what: str, paths: Sequence[str]) -> None:
    for path in paths:
        print(f"  {path}: {what}")


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
