"""Right and typically wrong answers to the exercises of *images in folders*."""

from pathlib import Path

import torch

LABELS = {"10": 0, "100": 1, "9": 2, "Zebra": 3, "ant": 4}
BATCHES = {"batches": 32, "last": 11, "with_drop_last": 31}


def shared(train, val):
    patients = [{Path(name).name.split("_")[0] for name in part} for part in (train, val)]
    return sorted(patients[0] & patients[1])


def shared_eyes(train, val):
    eyes = [{"_".join(Path(name).name.split("_")[:2]) for name in part} for part in (train, val)]
    return sorted(eyes[0] | eyes[1])


def shared_files(train, val):
    return sorted(set(train) & set(val))


def shared_with_folders(train, val):
    return sorted({n.split("_")[0] for n in train} & {n.split("_")[0] for n in val})


def shared_as_set(train, val):
    return set(shared(train, val))


def shared_repeated(train, val):
    patients = {Path(name).name.split("_")[0] for name in train}
    return [p for p in (Path(name).name.split("_")[0] for name in val) if p in patients]


def shared_numbers(train, val):
    return [int(name[1:]) for name in shared(train, val)]


def shared_by_three_letters(train, val):
    return sorted({Path(n).name[:3] for n in train} & {Path(n).name[:3] for n in val})


def all_patients(train, val):
    return sorted({Path(name).name.split("_")[0] for name in train + val})


def shared_and_emptied(train, val):
    found = shared(train, val)
    train.clear()
    return found


def as_tensors(mean, std):
    return (torch.tensor(values).view(3, 1, 1) for values in (mean, std))


def to_bytes(images, mean, std):
    mean, std = as_tensors(mean, std)
    return (255 * (images * std + mean)).round().clamp(0, 255).to(torch.uint8)


def cut_to_bytes(images, mean, std):
    mean, std = as_tensors(mean, std)
    return (255 * (images * std + mean)).clamp(0, 255).to(torch.uint8)


def times_256(images, mean, std):
    mean, std = as_tensors(mean, std)
    return (256 * (images * std + mean)).round().clamp(0, 255).to(torch.uint8)


def wrapped_bytes(images, mean, std):
    mean, std = as_tensors(mean, std)
    return (255 * (images * std + mean)).round().to(torch.int64).remainder(256).to(torch.uint8)


def normalised_again(images, mean, std):
    mean, std = as_tensors(mean, std)
    return (255 * ((images - mean) / std)).round().clamp(0, 255).to(torch.uint8)


def add_first(images, mean, std):
    mean, std = as_tensors(mean, std)
    return (255 * ((images + mean) * std)).round().clamp(0, 255).to(torch.uint8)


def zeros_and_ones(images, mean, std):
    mean, std = as_tensors(mean, std)
    return (images * std + mean).round().clamp(0, 1).to(torch.uint8)


def still_floats(images, mean, std):
    mean, std = as_tensors(mean, std)
    return images * std + mean


def to_pictures(images, mean, std):
    return to_bytes(images, mean, std).permute(0, 2, 3, 1)


def without_a_view(images, mean, std):
    return (255 * (images * torch.tensor(std) + torch.tensor(mean))).to(torch.uint8)


def in_place(images, mean, std):
    mean, std = as_tensors(mean, std)
    return images.mul_(std).add_(mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def to_array(images, mean, std):
    return to_bytes(images, mean, std).numpy()


RIGHT = {
    "image_folders_1": LABELS,
    "image_folders_2": BATCHES,
    "image_folders_3": shared,
    "image_folders_4": to_bytes,
}
WRONG = {
    "image_folders_1": [
        list(LABELS),
        {label: name for name, label in LABELS.items()},
        {".cache": 0} | {name: label + 1 for name, label in LABELS.items()},
        {10: 0, 100: 1, 9: 2, "Zebra": 3, "ant": 4},
        {"9": 0, "10": 1, "100": 2, "Zebra": 3, "ant": 4},
        {"10": 0, "100": 1, "9": 2, "ant": 3, "Zebra": 4},
        {name: label + 1 for name, label in LABELS.items()},
        {name: str(label) for name, label in LABELS.items()},
        {"10": 0, "100": 1, "9": 2, "zebra": 3, "ant": 4},
        {"Zebra": 0, "ant": 1, "9": 2, "10": 3, "100": 4},
        {(1, 2): 0},
    ],
    "image_folders_2": [
        32,
        {"batches": 32},
        BATCHES | {"batches": 31},
        BATCHES | {"last": 32},
        BATCHES | {"last": 21},
        BATCHES | {"with_drop_last": 32},
        BATCHES | {"with_drop_last": 30},
        BATCHES | {"batches": 31.34},
        BATCHES | {"last": "11"},
    ],
    "image_folders_3": [
        ["P014"],
        shared_eyes,
        shared_files,
        shared_with_folders,
        shared_as_set,
        shared_repeated,
        shared_numbers,
        shared_by_three_letters,
        all_patients,
        shared_and_emptied,
    ],
    "image_folders_4": [
        torch.zeros(1),
        cut_to_bytes,
        times_256,
        wrapped_bytes,
        normalised_again,
        add_first,
        zeros_and_ones,
        still_floats,
        to_pictures,
        without_a_view,
        in_place,
        to_array,
    ],
}
