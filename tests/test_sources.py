"""Bringing datasets: all is checked on arrival, and the cache holds whole folders or none."""

import gzip
import hashlib
import http.server
import io
import stat
import tarfile
import threading
import time
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import FashionMNIST, OxfordIIITPet

from tlbook import sources
from tlbook.data import DataError, dataset_status, fetch_dataset, load_dataset
from tlbook.sources import find_photographs, read_fashion, unpack_checked


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("TLBOOK_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path):
    """Serve a folder on this machine; returns the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{http_server.server_port}/"
    http_server.shutdown()
    http_server.server_close()


@pytest.fixture
def offline(monkeypatch):
    """Cut this process off: a proxy where nothing listens."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def jpeg(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()


# --- ants and bees -----------------------------------------------------------------------------

PHOTOS = {
    f"hymenoptera_data/{split}/{name}/a.jpg": jpeg(seed)
    for seed, (split, name) in enumerate(
        (split, name) for split in ("train", "val") for name in ("ants", "bees")
    )
}


@pytest.fixture
def hymenoptera(server, tmp_path, monkeypatch):
    """Let the ants and bees come from this machine; returns a function that publishes files."""
    folder, address = server
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in PHOTOS.items()]
    (tmp_path / "manifest").write_text("".join(lines))
    monkeypatch.setattr(sources, "HYMENOPTERA_MANIFEST", tmp_path / "manifest")
    monkeypatch.setattr(sources, "HYMENOPTERA_URL", f"{address}hymenoptera_data.zip")

    def publish(files: dict[str, bytes]) -> None:
        with zipfile.ZipFile(folder / "hymenoptera_data.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    return publish


def test_ants_and_bees_arrive_checked(hymenoptera, cache):
    hymenoptera(PHOTOS | {"hymenoptera_data/.DS_Store": b"clutter", "__MACOSX/x": b"more"})
    assert not dataset_status("hymenoptera").present
    val = load_dataset("hymenoptera", "val")
    assert len(val) == 2 and val.classes == ["ants", "bees"]
    assert val.source == "ants and bees of the PyTorch tutorial, downloaded"
    assert dataset_status("hymenoptera").present
    assert [path.name for path in cache.iterdir()] == ["hymenoptera_data"]
    found = {p.relative_to(cache).as_posix() for p in cache.rglob("*") if p.is_file()}
    assert found == set(PHOTOS)


def test_what_is_here_is_not_fetched_again(hymenoptera, cache, monkeypatch):
    hymenoptera(PHOTOS)
    fetch_dataset("hymenoptera")
    monkeypatch.setattr(sources, "HYMENOPTERA_URL", "http://127.0.0.1:9/gone.zip")
    assert fetch_dataset("hymenoptera").present


@pytest.mark.parametrize("change", ["altered", "missing"])
def test_an_altered_archive_is_refused_whole(hymenoptera, cache, change):
    name = "hymenoptera_data/train/bees/a.jpg"
    files = PHOTOS | {name: jpeg(99)}
    if change == "missing":
        del files[name]
    hymenoptera(files)
    with pytest.raises(DataError) as caught:
        load_dataset("hymenoptera")
    expected = hashlib.sha256(PHOTOS[name]).hexdigest()
    found = hashlib.sha256(files.get(name, b"")).hexdigest()
    for part in (sources.HYMENOPTERA_URL, name, expected, found, "1 of 4 files", "TLBOOK_DATA"):
        assert part in str(caught.value)
    assert list(cache.iterdir()) == []


def test_something_that_is_no_archive_is_refused(server, hymenoptera, cache):
    (server[0] / "hymenoptera_data.zip").write_bytes(b"PK but then nothing of the kind")
    with pytest.raises(DataError, match="the archive is damaged"):
        load_dataset("hymenoptera")
    assert list(cache.iterdir()) == []


def test_a_failure_leaves_an_older_folder_alone(hymenoptera, cache):
    half = cache / "hymenoptera_data" / "train"
    half.mkdir(parents=True)
    (half / "mine.txt").write_text("kept")
    hymenoptera({})
    with pytest.raises(DataError, match="4 of 4 files"):
        load_dataset("hymenoptera")
    assert (half / "mine.txt").read_text() == "kept"
    hymenoptera(PHOTOS)
    assert len(load_dataset("hymenoptera")) == 2


LEAVING = [
    "../evil.txt",
    "a/../../evil.txt",
    "/evil.txt",
    "C:/evil.txt",
    "C:evil.txt",
    "..\\evil.txt",
    "\\evil",
]


@pytest.mark.parametrize("name", [*LEAVING, "link"])
def test_entries_that_leave_the_folder_are_refused(tmp_path, name):
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name  # the constructor would tidy it
    if name == "link":
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.txt", b"good")
        archive.writestr(entry, b"/etc/passwd")
    manifest = tmp_path / "manifest"
    manifest.write_text(f"{hashlib.sha256(b'good').hexdigest()}  good.txt\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="would leave the folder"):
        unpack_checked(tmp_path / "a.zip", manifest, tmp_path / "target")
    assert sorted(tmp_path.rglob("*")) == before


# --- cats and dogs -----------------------------------------------------------------------------


@pytest.fixture
def pets(server, monkeypatch):
    """Publish a tiny Oxford-IIIT Pet; returns the folder it is served from."""
    folder, address = server
    listings = {"trainval": ["Siamese_1 1 1 1", "pug_1 2 2 1"], "test": ["pug_2 2 2 1"]}
    listings["test"].append("Siamese_2 1 1 1")
    images = {
        f"images/{line.split()[0]}.jpg": jpeg(3) for part in listings.values() for line in part
    }
    images["images/not_listed.jpg"] = jpeg(4)
    texts = {
        f"annotations/{name}.txt": "\n".join(lines).encode() for name, lines in listings.items()
    }
    resources = []
    for name, files in (("images", images), ("annotations", texts)):
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            for path, content in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        md5 = hashlib.md5((folder / f"{name}.tar.gz").read_bytes()).hexdigest()
        resources.append((f"{address}{name}.tar.gz", md5))
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", tuple(resources))
    return folder


def test_cats_and_dogs_are_sorted_into_folders(pets, cache):
    train, val = (load_dataset("cats_and_dogs", split) for split in ("train", "val"))
    assert [(path.name, label) for path, label in train.samples] == [
        ("Siamese_1.jpg", 0),
        ("pug_1.jpg", 1),
    ]
    assert [path.name for path, _ in val.samples] == ["Siamese_2.jpg", "pug_2.jpg"]
    assert train.classes == ["cat", "dog"] and "Oxford-IIIT Pet" in train.source
    assert [path.name for path in cache.iterdir()] == ["cats_and_dogs"]


def test_a_wrong_md5_is_refused(pets, cache):
    right = hashlib.md5((pets / "images.tar.gz").read_bytes()).hexdigest()
    (pets / "images.tar.gz").write_bytes(b"\x1f\x8b another file")
    found = hashlib.md5(b"\x1f\x8b another file").hexdigest()
    with pytest.raises(DataError) as caught:
        load_dataset("cats_and_dogs")
    for part in (right, found, "/images.tar.gz", "in a browser", "TLBOOK_DATA"):
        assert part in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert not dataset_status("cats_and_dogs").present


# --- Fashion-MNIST -----------------------------------------------------------------------------


def idx_files(count: int) -> dict[str, bytes]:
    """Return the four files of a Fashion-MNIST of `count` images, the i-th all of value i."""
    images = np.arange(count, dtype=np.uint8).repeat(28 * 28).tobytes()
    labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
    files = {}
    for prefix in ("train", "t10k"):
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(bytes(16) + images)
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(bytes(8) + labels)
    return files


@pytest.fixture
def fashion(server, tmp_path, monkeypatch):
    """Publish a tiny Fashion-MNIST where there is no Debian package."""
    folder, address = server
    resources = []
    for name, content in idx_files(12).items():
        (folder / name).write_bytes(content)
        resources.append((name, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    monkeypatch.setattr(sources, "DEBIAN_FASHION", tmp_path / "no such package")
    return folder


def test_the_full_fashion_mnist_is_downloaded_where_debian_has_none(fashion, cache):
    train = load_dataset("fashion_mnist_full")
    assert train.tensors[0].shape == (12, 1, 28, 28)
    assert train[11][1] == 1 and (train[11][0] * 255).round().unique().tolist() == [11]
    assert train.source == "Fashion-MNIST, downloaded"
    assert len(list((cache / "FashionMNIST" / "raw").iterdir())) == 4


def test_a_wrong_file_of_fashion_mnist_is_refused(fashion, cache):
    name = "t10k-images-idx3-ubyte.gz"
    (fashion / name).write_bytes(b"another file")
    with pytest.raises(DataError, match=rf"{name} was refused and removed: MD5 expected .*"):
        load_dataset("fashion_mnist_full", "test")
    assert not (cache / "FashionMNIST" / "raw" / name).exists()
    assert not dataset_status("fashion_mnist_full").present


@pytest.mark.parametrize("damage", ["cut", "text", "short"])
def test_damaged_files_of_fashion_mnist_are_named(tmp_path, damage):
    for name, content in idx_files(12).items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    replacements = {"cut": whole[:-20], "text": b"text", "short": gzip.compress(bytes(800))}
    path.write_bytes(replacements[damage])
    with pytest.raises(DataError, match=str(tmp_path)):
        read_fashion(tmp_path, "train")


# --- where they are looked for -----------------------------------------------------------------


def test_the_own_folder_comes_before_the_cache(cache, tmp_path, monkeypatch):
    def find(*splits):
        return find_photographs("pictures", splits, "Pictures")

    for parent in (cache, tmp_path / "own"):
        (parent / "pictures" / "train").mkdir(parents=True)
    cached = (cache / "pictures", "Pictures, downloaded")
    assert find("train") == cached
    monkeypatch.setenv("TLBOOK_DATA", str(tmp_path / "own"))
    assert find("train") == (tmp_path / "own" / "pictures", "the folder pictures in TLBOOK_DATA")
    assert find("train", "val") is None
    monkeypatch.setenv("TLBOOK_DATA", str(tmp_path / "nowhere"))
    assert find("train") == cached


def test_an_own_copy_of_fashion_mnist_comes_first(tmp_path, monkeypatch):
    folder = tmp_path / "own" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in idx_files(5).items():
        (folder / name).write_bytes(content)
    monkeypatch.setenv("TLBOOK_DATA", str(tmp_path / "own"))
    test = load_dataset("fashion_mnist_full", "test")
    assert len(test) == 5 and test.source == "the folder FashionMNIST/raw in TLBOOK_DATA"


@pytest.mark.parametrize("name", ["fashion_mnist_full", "hymenoptera", "cats_and_dogs"])
def test_offline_the_way_out_is_named_within_seconds(offline, cache, tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "DEBIAN_FASHION", tmp_path / "no such package")
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        load_dataset(name)
    assert time.perf_counter() - start < 5
    assert f"python -m tlbook fetch {name}" in str(caught.value)
    assert "set TLBOOK_DATA to a folder that holds" in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
