"""Photographs in folders: what is refused, what is converted, what is left out."""

import os
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from tlbook.folders import DataError, image_folder, load_image


def picture(size=(40, 30), seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def tree(tmp_path):
    """Two classes of three photographs each."""
    for label, name in enumerate(("ants", "bees")):
        (tmp_path / name).mkdir()
        for i in range(3):
            picture(seed=10 * label + i).save(tmp_path / name / f"{i}.jpg")
    return tmp_path


def refusal(*args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        image_folder(*args, **kwargs)
    return str(caught.value)


# --- what it returns ---------------------------------------------------------------------------


def test_it_agrees_with_torchvision(tree):
    (tree / "ants" / "nest").mkdir()
    (tree / "ants" / "nest-2").mkdir()
    for folder in ("nest", "nest-2"):
        picture(seed=5).save(tree / "ants" / folder / "0.png")
    ours, theirs = image_folder(tree), ImageFolder(tree)
    assert [(str(path), label) for path, label in ours.samples] == theirs.samples
    assert ours.classes == theirs.classes and ours.class_to_idx == theirs.class_to_idx
    assert ours.targets.tolist() == theirs.targets and ours.targets.dtype == torch.int64
    with_transform = image_folder(tree, transform=lambda image: image)
    for i in range(len(ours)):
        assert with_transform[i] == theirs[i]


def test_an_item_is_a_float_tensor_and_an_int(tree):
    image, label = image_folder(tree)[3]
    assert image.dtype == torch.float32 and image.shape == (3, 30, 40)
    assert torch.equal((image * 255).round().byte(), torch.tensor(pixels(tree / "bees" / "0.jpg")))
    assert type(label) is int and label == 1


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).transpose(2, 0, 1).copy()


def test_it_goes_through_worker_processes(tree):
    again = pickle.loads(pickle.dumps(image_folder(tree)))
    assert torch.equal(again[4][0], image_folder(tree)[4][0])
    assert again.classes == ["ants", "bees"]


def test_numbered_folders_sort_as_text(tmp_path):
    for name in ("1", "2", "10"):
        (tmp_path / name).mkdir()
        picture().save(tmp_path / name / "a.png")
    assert image_folder(tmp_path).class_to_idx == {"1": 0, "10": 1, "2": 2}


# --- classes -----------------------------------------------------------------------------------


def test_required_classes_fix_the_labels(tree):
    dataset = image_folder(tree, classes=["bees", "ants"])
    assert dataset.class_to_idx == {"bees": 0, "ants": 1}
    assert {path.parent.name: label for path, label in dataset.samples} == dataset.class_to_idx


@pytest.mark.parametrize("required", [["ants"], ["ants", "bees", "wasps"], ["ants", "wasps"]])
def test_other_classes_are_refused_with_both_sides(tree, required):
    message = refusal(tree, classes=required)
    assert "['ants', 'bees']" in message and str(required) in message


def test_empty_class_folders_are_refused_by_name(tree):
    (tree / "wasps").mkdir()
    (tree / "hornets").mkdir()
    (tree / "hornets" / ".hidden.jpg").write_bytes(b"")
    message = refusal(tree)
    assert "wasps: no image" in message and "hornets: no image" in message
    assert "ants" not in message


def test_a_class_of_nothing_but_gifs_is_empty(tree):
    (tree / "wasps").mkdir()
    picture().save(tree / "wasps" / "a.gif")
    assert "wasps: no image" in refusal(tree)


def test_a_missing_folder_and_one_without_classes(tree):
    assert "there is no folder" in refusal(tree / "moths")
    assert "expected one folder of images per class" in refusal(tree / "ants")


# --- files that are not what they should be ----------------------------------------------------


def test_every_bad_file_is_listed_in_one_error(tree):
    whole = (tree / "ants" / "0.jpg").read_bytes()
    (tree / "ants" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tree / "ants" / "tail.jpg").write_bytes(whole[:-2])
    picture().save(tree / "ants" / "cut.png")
    png = (tree / "ants" / "cut.png").read_bytes()
    (tree / "ants" / "cut.png").write_bytes(png[: len(png) // 2])
    picture((300, 300)).save(tree / "bees" / "progressive.jpg", progressive=True)
    progressive = (tree / "bees" / "progressive.jpg").read_bytes()
    (tree / "bees" / "progressive.jpg").write_bytes(progressive[: len(progressive) * 3 // 4])
    (tree / "bees" / "page.jpg").write_text("<html>not found</html>")
    (tree / "bees" / "nothing.png").write_bytes(b"")
    (tree / "bees" / "notes.txt").write_text("remember the honey")
    message = refusal(tree)
    bad = ("ants/cut.jpg", "ants/tail.jpg", "ants/cut.png", "bees/progressive.jpg")
    for name in (*bad, "bees/page.jpg", "bees/nothing.png", "bees/notes.txt"):
        assert f"  {os.path.normpath(name)}: " in message
    assert message.count("truncated") >= 3 and message.count("not an image") == 3
    assert "because of 7 of its files" in message and "0.jpg" not in message


def test_bad_files_can_be_ignored_by_name(tree):
    (tree / "bees" / "notes.txt").write_text("remember the honey")
    (tree / "drafts").mkdir()
    assert len(image_folder(tree, ignore=["*.txt", "drafts"])) == 6
    (tree / "drafts").rmdir()
    assert len(image_folder(tree, ignore="*.txt")) == 6


def test_hidden_files_and_desktop_clutter_are_passed_over(tree):
    for folder in (tree, tree / "ants"):
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / "0-checkpoint.jpg").write_bytes(b"not an image")
    (tree / "bees" / ".DS_Store").write_bytes(b"\0")
    (tree / "bees" / "Thumbs.db").write_bytes(b"\0")
    (tree / "README.md").write_text("about these files")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = image_folder(tree)
    assert dataset.classes == ["ants", "bees"] and len(dataset) == 6


def test_a_tree_inside_a_hidden_folder_is_not_hidden(tree):
    hidden = tree / ".cache" / "photos" / "ants"
    hidden.mkdir(parents=True)
    picture().save(hidden / "a.jpg")
    assert len(image_folder(hidden.parent)) == 1


def test_what_torchvision_would_skip_is_named(tree):
    picture().save(tree / "ants" / "moving.gif")
    picture().save(tree / "cover.jpg")
    with pytest.warns(UserWarning, match="moving.gif, cover.jpg") as caught:
        dataset = image_folder(tree)
    assert len(dataset) == 6 and caught[0].filename == __file__


def test_without_verification_the_item_still_names_its_file(tree):
    (tree / "ants" / "1.jpg").write_bytes((tree / "ants" / "1.jpg").read_bytes()[:-200])
    dataset = image_folder(tree, verify=False)
    with pytest.raises(DataError, match=r"1\.jpg: .*replace or remove"):
        dataset[1]


def test_a_file_that_vanishes_later_is_named(tree):
    dataset = image_folder(tree)
    (tree / "ants" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1\.jpg"):
        dataset[1]


# --- decompression bombs -----------------------------------------------------------------------


def png_of_zeros(path, side: int) -> None:
    """Write a grey PNG of side x side pixels without ever holding them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("factor", [1.1, 2.5])
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_by_name(tree, factor):
    side = int((Image.MAX_IMAGE_PIXELS * factor) ** 0.5)
    png_of_zeros(tree / "bees" / "bomb.png", side)
    assert (tree / "bees" / "bomb.png").stat().st_size < 500_000
    message = refusal(tree)
    assert "bees/bomb.png: " in message.replace("\\", "/")
    assert "decompression bomb" in message and "ants" not in message


# --- conversion --------------------------------------------------------------------------------


def test_all_kinds_of_pixels_become_the_same_rgb(tmp_path):
    grey = picture().convert("L")
    wide = np.asarray(grey).astype(np.uint16) * 256 + 77
    kinds = {
        "grey.png": grey,
        "rgb.png": grey.convert("RGB"),
        "rgba.png": grey.convert("RGBA"),
        "grey_alpha.png": grey.convert("LA"),
        "palette.png": grey.convert("P"),
        "wide.png": Image.fromarray(wide),
        "wide.tif": Image.fromarray(wide),
        "int32.tif": Image.fromarray(wide.astype(np.int32)),
        "cmyk.tif": grey.convert("RGB").convert("CMYK"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
    assert Image.open(tmp_path / "wide.png").mode == "I;16"
    for name in kinds:
        found = load_image(tmp_path / name)
        assert found.mode == "RGB"
        assert np.array_equal(np.asarray(found), np.asarray(grey.convert("RGB"))), name
        assert np.array_equal(np.asarray(load_image(tmp_path / name, "L")), np.asarray(grey)), name


def test_alpha_is_dropped_and_transparent_palettes_do_not_warn(tmp_path):
    image = picture()
    see_through = image.copy()
    see_through.putalpha(100)
    see_through.save(tmp_path / "alpha.png")
    palette = image.quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(0, 160, 10)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.asarray(load_image(tmp_path / "alpha.png")), np.asarray(image))
        found = np.asarray(load_image(tmp_path / "palette.png"))
    assert np.array_equal(found, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_rotation_is_applied(tmp_path, suffix):
    upright = Image.new("RGB", (64, 32), "red")
    upright.paste("blue", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"a.{suffix}", exif=exif)
    found = np.asarray(load_image(tmp_path / f"a.{suffix}")).astype(int)
    assert found.shape == (32, 64, 3)
    assert np.abs(found - np.asarray(upright)).mean() < 5


def test_a_rotated_16_bit_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((4, 8), 0x8000, np.uint16)).save(tmp_path / "a.png", exif=exif)
    image = load_image(tmp_path / "a.png")
    assert image.size == (4, 8) and image.getpixel((0, 0)) == (128, 128, 128)


def test_floating_point_pixels_are_refused(tree):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tree / "ants" / "depth.tif")
    assert "depth.tif: floating-point pixels" in refusal(tree)
