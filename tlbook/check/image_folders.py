"""Checks of the exercises in *images in folders*.

Functions that a reader writes are run on names and pixels on which every typical mistake gives
another result than the right way.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table

LABELS = {"10": 0, "100": 1, "9": 2, "Zebra": 3, "ant": 4}
BY_NUMBER = {"9": 0, "10": 1, "100": 2, "Zebra": 3, "ant": 4}
SMALL_FIRST = {"10": 0, "100": 1, "9": 2, "ant": 3, "Zebra": 4}

BATCHES = {"batches": 32, "last": 11, "with_drop_last": 31}
BATCH_HINTS = {
    "batches": {"_31": "the images that fill no whole batch make one, too."},
    "last": {
        "_32": "1,003 is not a multiple of 32.",
        "_21": "that is what the last batch lacks, not what it holds.",
    },
    "with_drop_last": {
        "_32": "the last batch is smaller than the others, and drop_last leaves it out.",
        "_30": "drop_last leaves out one batch.",
    },
}

TRAIN = ["P014_left_1.png", "P014_left_2.png", "P002_right_1.png", "P030_left_1.png"]
TRAIN += ["data/P100_right_1.png", "P007_left_1.png"]
VAL = ["P014_right_1.png", "other/data/P100_left_3.png", "P003_left_1.png", "P030_left_7.png"]
VAL += ["P030_right_1.png", "P001_left_1.png"]
BOTH = ["P014", "P030", "P100"]


@exercise("Which class_to_idx has this folder? answer = a dictionary.")
def image_folders_1(answer: Any) -> None:
    """Class folders of numbers, capitals and small letters, and a hidden one."""
    if not isinstance(answer, dict):
        raise NotYet(f"expected a dictionary from name to label, found {type(answer).__name__}.")
    if answer == LABELS:
        return
    if answer == {label: name for name, label in LABELS.items()}:
        raise NotYet("the labels are right; class_to_idx leads from the name to the label.")
    if ".cache" in answer:
        raise NotYet("image_folder passes over a hidden folder.")
    if all(isinstance(name, int) or name in LABELS for name in answer) and 9 in answer:
        raise NotYet("the names of folders are text.")
    if answer.keys() != LABELS.keys():
        raise NotYet("expected the names of five folders, written as on the disk.")
    if answer == BY_NUMBER:
        raise NotYet('text is compared letter by letter, and "1" comes before "9".')
    if answer == SMALL_FIRST:
        raise NotYet("the numbers are right; the order of text is not that of a dictionary.")
    if answer == {name: label + 1 for name, label in LABELS.items()}:
        raise NotYet("the order is right; labels begin at 0.")
    if any(isinstance(label, str) for label in answer.values()):
        raise NotYet("the names are text, the labels whole numbers.")
    raise NotYet("sort the names as text, then number them from 0.")


@exercise('Count the batches: answer = {"batches": ..., "last": ..., "with_drop_last": ...}.')
def image_folders_2(answer: Any) -> None:
    """1,003 images in batches of 32."""
    expect_table(answer, BATCHES, BATCH_HINTS)


@exercise("Who is in both parts? answer = a function of two lists of names.")
def image_folders_3(answer: Any) -> None:
    """Patients, each with two eyes and several shots, some names with folders before them."""
    expect_function(answer, "two lists of file names")
    train, val = list(TRAIN), list(VAL)
    found = _tried(answer, train, val)
    if (train, val) != (TRAIN, VAL):
        raise NotYet("your function changes the lists that it gets.")
    if not isinstance(found, list):
        raise NotYet(f"expected a list of patients, found {type(found).__name__}.")
    if found == BOTH:
        if _tried(answer, TRAIN[2:3], VAL[2:3]) != []:
            raise NotYet("for parts that share nobody, expected an empty list.")
        return
    if not found:
        raise NotYet("nobody was found, but the left and the right eye can be one person's.")
    if not all(isinstance(name, str) for name in found):
        raise NotYet("expected names of patients, such as P014.")
    if sorted(set(found)) == BOTH:
        raise NotYet("these are the patients: each of them once, and in sorted order.")
    if any("_" in name for name in found):
        raise NotYet("the eye does not belong to the group; both eyes are one person's.")
    if any("/" in name for name in found) or set(found) == {"P014", "P030"}:
        raise NotYet("a name may have folders before it, which are not the patient's.")
    raise NotYet("the patient is what stands before the first _ of the file's name.")


@exercise("Undo the normalisation: answer = a function of images, mean and std.")
def image_folders_4(answer: Any) -> None:
    """All bytes, and values outside of their range, under the preset of mobilenet_v3_small."""
    from torchvision.models import MobileNet_V3_Small_Weights

    expect_function(answer, "images, mean and std")
    preset = MobileNet_V3_Small_Weights.IMAGENET1K_V1.transforms()
    pixels = torch.arange(256, dtype=torch.uint8).repeat(6).view(2, 3, 16, 16)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    images = (pixels / 255 - mean) / std
    given = images.clone()
    found = _tried(answer, given, list(preset.mean), list(preset.std))
    if not torch.equal(given, images):
        raise NotYet("your function changes the batch that it gets.")
    _judge(found, pixels)
    outside = torch.tensor([-0.1, 1.1]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    found = _tried(answer, (outside - mean) / std, list(preset.mean), list(preset.std))
    if not torch.equal(found, torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2)):
        raise NotYet("values outside of 0 to 255 must be cut off before they become bytes.")


def _tried(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # a reader's function may fail in any way
        names = "(train, val)" if len(arguments) == 2 else "(images, mean, std)"
        raise NotYet(
            f"called as f{names}, your function stopped with {type(error).__name__}: {error}; "
            "mean and std are plain lists of three numbers."
            if len(arguments) == 3
            else f"called as f{names}, your function stopped with {type(error).__name__}: {error}."
        ) from None


def _judge(found: Any, pixels: Tensor) -> None:
    """Compare the bytes, and name the mistake by what it leaves."""
    if not isinstance(found, Tensor):
        raise NotYet(f"expected a tensor, found {type(found).__name__}.")
    if found.shape != pixels.shape:
        raise NotYet(f"expected the shape {tuple(pixels.shape)}, found {tuple(found.shape)}.")
    if found.dtype != torch.uint8:
        raise NotYet(f"expected torch.uint8, found {found.dtype}.")
    if torch.equal(found, pixels):
        return
    off = found.int() - pixels.int()
    if off.min() == 0 and off.max() == 1:
        raise NotYet("some values are too high by one: 1.0 becomes 255, so multiply by that.")
    if off.min() == -1 and off.max() == 0:
        raise NotYet(
            "some values are too low by one: a conversion to bytes cuts, it does not round."
        )
    if found.max() <= 1:
        raise NotYet("the values are still between 0 and 1; bytes go to 255.")
    raise NotYet(
        f"the first values of the first channel should be 0, 1, 2, found "
        f"{found.flatten()[:3].tolist()}: normalising subtracts the mean, then divides by std."
    )
