"""The plan of a split on disk, and the journal that keeps it in the folder.

The journal is what makes an interrupted split safe: it names every move before the first one.
"""

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tlbook.files import whole_file
from tlbook.folders import DataError

# Hidden, so that a folder with a journal is still read as one of classes.
JOURNAL = ".tlbook_split.json"

Move = tuple[str, str]


@dataclass(frozen=True)
class Plan:
    """Which file of a folder goes where. Printed, it is a table of counts.

    Attributes:
        folder: the folder of class folders.
        parts: name to share, as given.
        seed: as given.
        moves: (source, target) of every image, relative to the folder, with forward slashes.
        modes: the folders that the images leave, outer ones first, and their permissions.
    """

    folder: Path
    parts: dict[str, float | int]
    seed: int
    moves: list[Move] = field(repr=False)
    modes: dict[str, int] = field(repr=False)

    def left(self) -> list[str]:
        """Return the files that stay where they are; a hidden folder counts as one."""
        planned = {path for move in self.moves for path in move}
        found = []
        for parent, folders, names in os.walk(self.folder):
            hidden = {name for name in folders if name.startswith(".")}
            folders[:] = set(folders) - hidden
            found += [Path(parent, name) for name in {*hidden, *names} if JOURNAL not in name]
        return sorted({path.relative_to(self.folder).as_posix() for path in found} - planned)

    def __str__(self) -> str:
        """Return a table of how many images of each class go into each part."""
        counts = Counter(tuple(target.split("/")[:2]) for _, target in self.moves)
        totals = Counter(target.split("/")[0] for _, target in self.moves)
        rows = [["class", *self.parts]]
        for name in sorted({name for _, name in counts}):
            rows.append([name, *(str(counts[part, name]) for part in self.parts)])
        rows.append(["all", *(str(totals[part]) for part in self.parts)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )


def write_journal(plan: Plan) -> None:
    """Put a plan on the disk for good, complete or not at all."""
    for cut_short in plan.folder.glob(f".{JOURNAL}.*.part"):
        cut_short.unlink()
    with whole_file(plan.folder / JOURNAL) as part:
        # The folder itself may get another name before the split is undone.
        part.write_text(json.dumps(asdict(plan) | {"folder": None}))
    if os.name == "posix":
        # The journal's name, too, must be on the disk before the first move is.
        descriptor = os.open(plan.folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read_journal(folder: Path) -> Plan | None:
    """Return the plan whose journal lies in a folder, None if there is no journal.

    Raises:
        DataError: if it is damaged, or names files outside of the folder, as one that came
            with a stranger's data may.
    """
    path = folder / JOURNAL
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        moves = [(source, target) for source, target in content["moves"]]
        plan = Plan(**content | {"folder": folder, "moves": moves})
        named = [Path(name) for name in (*plan.modes, *(n for move in moves for n in move))]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}): nothing was moved") from error
    if any(name.is_absolute() or ".." in name.parts for name in named):
        raise DataError(f"{path} names files outside of {folder}: nothing was moved")
    return plan
