import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Subset, TensorDataset

from tlbook.data import DataError, image_folder
from tlbook.leaks import difference_hash, find_duplicates, joined


def smooth(count, side=32, seed=0):
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=side, mode="bicubic").clamp(0, 1)


def test_copies_are_found_whatever_their_label():
    images = smooth(6)
    images[5], images[3] = images[0], images[1]
    data = TensorDataset(images, torch.arange(6))
    assert find_duplicates(data) == [[0, 5], [1, 3]]
    assert find_duplicates(Subset(data, [5, 4, 0])) == [[0, 2]]
    assert find_duplicates(Subset(data, [0, 1, 2])) == []


def test_images_that_look_alike_are_found_on_request():
    images = smooth(40)
    noise = 0.002 * torch.rand(3, 32, 32)
    images[30], images[31] = images[2] * 0.9 + noise, images[3] * 0.7 + 0.1
    data = TensorDataset(images, torch.zeros(40))
    assert find_duplicates(data) == []
    assert find_duplicates(data, distance=3) == [[2, 30], [3, 31]]


def test_the_hash_does_not_depend_on_size_and_brightness():
    image = smooth(1)[0]
    larger = nn.functional.interpolate(image[None], size=160, mode="bilinear")[0]
    assert int((difference_hash(image) != difference_hash(larger * 0.5)).sum()) <= 4
    assert difference_hash(image).shape == (64,)


def test_files_are_compared_as_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            picture = Image.new("RGB", (8, 8), (number * 80, 0, 0 if number else 90))
            picture.save(tmp_path / name / f"{number}.png")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "b" / "1.png")
    assert find_duplicates(image_folder(tmp_path)) == [[0, 3], [2, 5]]
    pictures = image_folder(tmp_path, transform=lambda image: image)
    with pytest.raises(DataError, match="give it a transform that makes tensors"):
        find_duplicates(pictures, distance=0)


def test_labels_join_what_any_of_them_joins():
    assert joined([0, 1, 2, 3, 4], [7, 7, 8, 9, 9], [1, 2, 2, 3, 4]).tolist() == [0, 0, 0, 1, 1]
    assert joined(["x", "x"]).tolist() == [0, 0]
