"""A folder of images divided on disk into train, val and test folders, and put back.

Moving thousands of files can be cut short at any of them. So a journal of all the moves stands
on the disk before the first is made: a second run finishes them, and `undo` reverses them.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_IMODE

from tqdm import tqdm

from tlbook.folders import DataError, ImageFiles, find_images
from tlbook.journal import JOURNAL, Move, Plan, read_journal, write_journal
from tlbook.splits import stratified_split


@dataclass(frozen=True)
class Undone:
    """What `undo` did.

    Attributes:
        moved: number of files brought back.
        missing: files that were no longer where the split had put them.
        kept: folders of the split that stay because they hold other files.
    """

    moved: int
    missing: list[str]
    kept: list[str]


def plan_split(folder: str | Path, parts: Mapping[str, float | int], *, seed: int) -> Plan:
    """Plan which images of a folder go into which part; nothing is moved.

    `ants/1.jpg` goes to `train/ants/1.jpg`. Every part gets an equal share of each class. Images
    are known by their suffix and are not opened; whatever else there is stays in its place. For
    a folder whose split was begun or finished, the plan is the one it was begun with.

    Args:
        folder: holds one folder of images per class.
        parts: name of the part to its share, such as `{"train": 0.8, "val": 0.2}`, or to its
            number of images. What the parts leave over stays in its place.
        seed: any integer from 0 to 2**32 - 1.

    Returns:
        The plan; `plan.moves` are pairs of source and target, `print(plan)` shows the counts.

    Raises:
        DataError: if a class has too few images for every part, a part's name is taken or no
            name, images are reached through links, or the folder was split otherwise before.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("ants", "bees"):
        ...     (root / name).mkdir()
        ...     for number in range(4):
        ...         (root / name / f"{number}.jpg").touch()
        >>> print(plan_split(root, {"train": 0.5, "val": 0.5}, seed=0))
        class  train  val
        ants       2    2
        bees       2    2
        all        4    4
    """
    root, parts = Path(folder).expanduser(), dict(parts)
    begun = read_journal(root)
    if begun is None:
        _check_names(root, parts)
        moves = sorted(_draw_moves(root, parts, seed))
        folders = _folders_of(source for source, _ in moves)
        _refuse_links(root, [*folders, *(source for source, _ in moves)])
        modes = {path: S_IMODE((root / path).stat().st_mode) for path in folders}
        return Plan(root, parts, seed, moves, modes)
    if (list(begun.parts.items()), begun.seed) != (list(parts.items()), seed):
        raise DataError(
            f"{root} was split into {begun.parts} with seed {begun.seed}, not into {parts} "
            f"with seed {seed}: undo that first, or ask for the same to finish it"
        )
    return begun


def carry_out(plan: Plan) -> int:
    """Make the moves of a plan, or those that an interrupted run left to be made.

    Class folders are removed when nothing is left in them.

    Args:
        plan: from `plan_split`.

    Returns:
        The number of files moved now.

    Raises:
        DataError: before the first move if a target exists, a file has vanished or another
            split was begun; later only if the disk refuses a move. No file is lost then, and a
            second call goes on.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "ants").mkdir()
        >>> for number in range(4):
        ...     (root / "ants" / f"{number}.jpg").touch()
        >>> carry_out(plan_split(root, {"train": 0.5, "val": 0.5}, seed=0))
        4
        >>> undo(root).moved, [path.name for path in root.iterdir()]
        (4, ['ants'])
    """
    begun = read_journal(plan.folder)
    if begun not in (None, plan):
        raise DataError(f"{plan.folder}: another split was begun here; undo it first")
    todo, taken, gone = _compare(plan.folder, plan.moves)
    if taken:
        raise _refusal(plan.folder, "already there, and never overwritten", [t for _, t in taken])
    if gone:
        raise _refusal(plan.folder, "vanished since the split was planned", [s for s, _ in gone])
    if begun is None:
        write_journal(plan)
    _make(plan.folder, todo)
    _remove_empty(plan.folder, plan.modes)
    return len(todo)


def undo(folder: str | Path) -> Undone:
    """Bring every file of a split back, whether the split was finished or not.

    Folders are as they were before; those of the split that now hold other files stay.

    Args:
        folder: the folder that was split.

    Raises:
        DataError: before the first move if there was no split or a file's old place is taken;
            later only if the disk refuses a move. A second call goes on then.

    Example:
        >>> import tempfile
        >>> undo(tempfile.mkdtemp())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        tlbook.folders.DataError: ... was not split by tlbook: there is no .tlbook_split.json ...
    """
    root = Path(folder).expanduser()
    plan = read_journal(root)
    if plan is None:
        raise DataError(f"{root} was not split by tlbook: there is no {JOURNAL} to go by")
    todo, taken, gone = _compare(root, [(target, source) for source, target in plan.moves])
    if taken:
        raise _refusal(root, "in its old place again, and never overwritten", [s for _, s in taken])
    for path, mode in plan.modes.items():
        (root / path).mkdir(exist_ok=True)
        if S_IMODE((root / path).stat().st_mode) != mode:
            (root / path).chmod(mode)
    _make(root, todo)
    folders = _folders_of(target for _, target in plan.moves)
    _remove_empty(root, folders)
    kept = [path for path in folders if (root / path).exists()]
    (root / JOURNAL).unlink()
    return Undone(len(todo), [target for target, _ in gone], kept)


def _check_names(root: Path, parts: Mapping[str, float | int]) -> None:
    wrong = [
        name
        for name in parts
        if Path(name).name != name or name[:1] in ("", ".") or len(os.fsencode(name)) > 255
    ]
    if wrong:
        raise DataError(f"{wrong} cannot name parts: expected names of folders such as 'train'")
    taken = [name for name in parts if os.path.lexists(root / name)]
    if taken:
        raise DataError(
            f"{root} already holds {', '.join(taken)}: choose other names for the parts, or "
            "another folder if this one is divided already"
        )


def _draw_moves(root: Path, parts: dict[str, float | int], seed: int) -> Iterable[Move]:
    samples, classes = find_images(root)
    filled = {label for _, label in samples}
    empty = [name for label, name in enumerate(classes) if label not in filled]
    if empty:
        raise DataError(f"{root}: no image in {', '.join(empty)}; remove or fill these folders")
    images = ImageFiles(root, samples, classes=classes, source=f"folder {root}")
    subsets = stratified_split(images, list(parts.values()), seed=seed)
    for part, subset in zip(parts, subsets, strict=True):
        for index in subset.indices:
            source = samples[index][0].relative_to(root).as_posix()
            yield source, f"{part}/{source}"


def _folders_of(files: Iterable[str]) -> list[str]:
    """Return the folders that the files lie in, outer ones first."""
    return sorted({p.as_posix() for file in files for p in Path(file).parents if p != Path()})


def _refuse_links(root: Path, paths: Iterable[str]) -> None:
    """Refuse links, because a relative one leads elsewhere from another folder."""
    links = [path for path in paths if (root / path).is_symlink()]
    if links:
        raise _refusal(root, "a link, expected the file or folder itself", links)


def _refusal(root: Path, what: str, paths: list[str]) -> DataError:
    return DataError(
        f"{root}: nothing was moved, because of {len(paths)} files or folders:\n"
        + "\n".join(f"  {path}: {what}" for path in paths)
        + "\nMove, restore or remove them; where a split was begun, undo brings the rest back"
    )


def _compare(root: Path, moves: list[Move]) -> tuple[list[Move], list[Move], list[Move]]:
    """Return the moves to make, those whose target is taken and those whose file is gone."""
    todo, taken, gone = [], [], []
    for source, target in moves:
        here, there = (os.path.lexists(root / path) for path in (source, target))
        if here:
            (taken if there else todo).append((source, target))
        elif not there:
            gone.append((source, target))
    return todo, taken, gone


def _make(root: Path, moves: list[Move]) -> None:
    bar = tqdm(moves, desc="moving files", delay=5, leave=False, disable=None)
    try:
        for source, target in bar:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (root / source).rename(root / target)
    except OSError as error:
        raise DataError(
            f"{root}: stopped by the disk ({error}). No file is lost: run the same again when "
            "that is put right, or undo"
        ) from error


def _remove_empty(root: Path, folders: Iterable[str]) -> None:
    for path in sorted(folders, reverse=True):
        if (root / path).is_dir() and not any((root / path).iterdir()):
            (root / path).rmdir()
