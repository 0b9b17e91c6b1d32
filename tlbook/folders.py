"""Photographs in folders: one sub-folder per class, checked before training.

A file that cannot be read stops a run after hours if nobody looks first. Here every file is
decoded once when the dataset is made, and whatever a camera or a tool wrote becomes plain RGB.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets import VisionDataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

Transform = Callable[[Image.Image], Any]

# Written by desktops into every folder somebody opens.
_CLUTTER = ("Thumbs.db", "desktop.ini")
_OTHER_KIND = "an image of a kind that is left out"


class DataError(ValueError):
    """A dataset is missing, damaged or not of the expected form."""


class ImageFiles(VisionDataset):
    """Labelled image files, read when they are asked for.

    An item is `(transform(image), label)`, the image being a PIL image and the label an int.
    Without a transform the image is a float32 tensor (C, H, W) in [0, 1].

    Attributes:
        samples: list of (path, label).
        classes: names; the label is the position in this list.
        class_to_idx: name to label.
        targets: int64 tensor (N,) of labels.
        source: where the files came from, in words.

    Args:
        root: the folder they lie in.
        samples: list of (path, label).
        classes: names of the classes.
        source: where the files came from.
        transform: applied to each PIL image.
        mode: "RGB", or "L" for grey images.
    """

    def __init__(
        self,
        root: Path,
        samples: list[tuple[Path, int]],
        *,
        classes: Sequence[str],
        source: str,
        transform: Transform | None = None,
        mode: str = "RGB",
    ) -> None:
        super().__init__(root, transform=transform)
        self.samples, self.source, self.mode = samples, source, mode
        self.classes = list(classes)
        self.class_to_idx = {name: label for label, name in enumerate(classes)}
        self.targets = torch.tensor([label for _, label in samples], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        return (self.transform or to_tensor)(load_image(path, self.mode)), label


def load_image(path: str | Path, mode: str = "RGB") -> Image.Image:
    """Read an image file, turned as its EXIF tag says, as 8-bit RGB or grey.

    Grey, palette, CMYK and 16-bit files are converted (the upper 8 of the 16 bits are kept).
    An alpha channel is dropped, as torchvision's own loader does.

    Args:
        path: the file.
        mode: "RGB" or "L" (grey).

    Raises:
        DataError: if the file is truncated, not an image, of floating-point pixels, or larger
            than `PIL.Image.MAX_IMAGE_PIXELS`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "dot.png")
        >>> Image.new("L", (3, 2), 255).save(path)
        >>> image = load_image(path)
        >>> image.mode, image.size, image.getpixel((0, 0))
        ('RGB', (3, 2), (255, 255, 255))
    """
    try:
        with _opened(path) as image:
            _refuse_unfit(image)
            return _decode(image, mode)
    except Exception as error:  # a broken file makes Pillow's decoders raise anything at all
        raise DataError(f"{path}: {_reason(error)}; replace or remove the file") from error


def image_folder(
    path: str | Path,
    *,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
    ignore: str | Sequence[str] = (),
    verify: bool = True,
) -> ImageFiles:
    """Return the images of a folder that has one sub-folder per class, after checking them all.

    Labels follow the sub-folders' names sorted as text. Beware of numbers: "10" sorts before
    "2", so that folders 1, 2 and 10 get the labels 0, 2 and 1; look at `class_to_idx`.
    Hidden files are passed over. Images of a kind that torchvision's ImageFolder does not take
    (.gif), or that lie beside the class folders, are left out with a warning that names them.

    Args:
        path: the folder.
        transform: applied to each RGB PIL image; None gives tensors (3, H, W) in [0, 1].
        classes: names that must be there, in label order, such as the training set's `classes`.
        ignore: shell patterns, such as `"*.txt"`, of files and folders to pass over.
        verify: False does not decode each file once, which takes a millisecond a photograph.

    Raises:
        DataError: if a class is missing, unexpected or without images, or a file is truncated
            or not an image; all such files are listed in one error.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("ants", "bees"):
        ...     (root / name).mkdir()
        ...     Image.new("RGB", (4, 4)).save(root / name / "photo.jpg")
        >>> image_folder(root).class_to_idx
        {'ants': 0, 'bees': 1}
    """
    root = Path(path).expanduser()
    patterns = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    names = _class_folders(root, patterns, classes)
    samples = _usable_samples(root, names, patterns, verify)
    return ImageFiles(root, samples, classes=names, source=f"folder {root}", transform=transform)


def find_images(root: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    """Return (path, label) of every image, known by its suffix and unread, and the class names.

    Raises:
        DataError: if there is no such folder, or it has no class folders.
    """
    names = _class_folders(root, (), None)
    found = [(file, i) for i, name in enumerate(names) for file in _files(root / name, root, ())]
    return [(file, label) for file, label in found if _is_listed_kind(file)], names


def _class_folders(
    root: Path, patterns: tuple[str, ...], required: Sequence[str] | None
) -> list[str]:
    """Return the class names in the order of their labels."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root} (looked from {Path.cwd()})")
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and _wanted(p.name, patterns))
    if not found:
        raise DataError(f"{root} has no sub-folders: expected one folder of images per class")
    if required is not None and sorted(required) != found:
        raise DataError(
            f"{root} has the class folders {found}, expected {sorted(required)}: "
            "both sets must have the same classes, or their labels mean different things"
        )
    return found if required is None else list(required)


def _usable_samples(
    root: Path, names: list[str], patterns: tuple[str, ...], verify: bool
) -> list[tuple[Path, int]]:
    """Return (path, label) of every image, or raise one error with everything that is wrong."""
    samples = [(f, i) for i, name in enumerate(names) for f in _files(root / name, root, patterns)]
    verdicts = _verdicts([file for file, _ in samples], verify)
    filled = {label for file, label in samples if verdicts[file] != _OTHER_KIND}
    wrong = [
        f"{file.relative_to(root)}: {verdict}"
        for file, verdict in verdicts.items()
        if verdict not in (None, _OTHER_KIND)
    ]
    wrong += [f"{name}: no image in this folder" for i, name in enumerate(names) if i not in filled]
    if wrong:
        raise DataError(
            f"{root} cannot be used because of {len(wrong)} of its files and folders:\n  "
            + "\n  ".join(wrong)
            + "\nReplace or remove them, or name them in ignore=[...]"
        )
    beside = [f for f in root.iterdir() if _is_listed_kind(f) and _wanted(f.name, patterns)]
    left_out = [f for f, verdict in verdicts.items() if verdict == _OTHER_KIND] + sorted(beside)
    if left_out:
        listed = ", ".join(str(file.relative_to(root)) for file in left_out)
        warnings.warn(
            f"left out of {root}, being of a kind that ImageFolder does not take or beside the "
            f"class folders: {listed}",
            stacklevel=3,
        )
    return [(file, label) for file, label in samples if verdicts[file] is None]


def _wanted(name: str, patterns: tuple[str, ...]) -> bool:
    hidden = name.startswith(".") or name in _CLUTTER
    return not hidden and not any(fnmatch(name, pattern) for pattern in patterns)


def _files(folder: Path, root: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """Yield the wanted files below a folder, in the order of torchvision's ImageFolder."""
    for parent, _, names in sorted(os.walk(folder, followlinks=True)):
        for name in sorted(names):
            path = Path(parent, name)
            if all(_wanted(part, patterns) for part in path.relative_to(root).parts):
                yield path


def _is_listed_kind(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS


def _verdicts(files: list[Path], verify: bool) -> dict[Path, str | None]:
    """Return for each file None if it is usable, else what is wrong with it."""
    doubtful = [file for file in files if verify or not _is_listed_kind(file)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # The delay keeps the bar away from everything but very large trees.
        found = tqdm(
            pool.map(_verdict, doubtful),
            total=len(doubtful),
            desc="checking images",
            delay=5,
            leave=False,
            disable=None,
        )
        return dict.fromkeys(files) | dict(zip(doubtful, found, strict=True))


def _verdict(path: Path) -> str | None:
    try:
        with _opened(path) as image:
            _refuse_unfit(image)
            image.draft(None, (1, 1))  # a JPEG then decodes at an eighth of its size
            _decode(image, "RGB")
    except Exception as error:  # a broken file makes Pillow's decoders raise anything at all
        return _reason(error)
    return None if _is_listed_kind(path) else _OTHER_KIND


def _opened(path: str | Path) -> Image.Image:
    """Open an image; what Pillow would warn about a large one, `_refuse_unfit` refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path)


def _refuse_unfit(image: Image.Image) -> None:
    """Refuse, before it is decoded, an image whose size or kind of pixels we do not take."""
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit and width * height > limit:
        # Pillow itself warns here, and refuses only twice that size.
        raise DataError(
            f"{width} x {height} pixels could be a decompression bomb: the limit "
            f"PIL.Image.MAX_IMAGE_PIXELS is {limit}"
        )
    if image.mode == "F":
        raise DataError("floating-point pixels, whose white is not defined; expected 8 or 16 bits")


def _decode(image: Image.Image, mode: str) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow's own conversion turns everything above 255 of 65,535 white.
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return (str(error) or type(error).__name__).splitlines()[0]
