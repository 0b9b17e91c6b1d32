"""The wheel alone is enough to run a chapter, from a folder that is not the checkout."""

import zipfile

import pytest

from tools import chapters as book
from tools.run_from_wheel import build_wheel, new_environment, run_chapter


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_the_package_and_its_data_and_is_small(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < 10 * 2**20
    bundled = {path.name for path in (book.ROOT / "tlbook" / "assets").rglob("*.*")}
    assert bundled <= {name.rsplit("/", 1)[1] for name in names if "/assets/" in name}
    outside = {name.split("/")[0] for name in names} - {"tlbook"}
    assert all(name.endswith(".dist-info") for name in outside)


def test_a_chapter_runs_with_the_wheel_alone(wheel, tmp_path):
    python = new_environment(tmp_path / "environment", wheel)
    chapter = book.ROOT / "book" / "train" / "loop.ipynb"  # it reads the bundled data
    run = run_chapter(python, chapter)
    assert run.returncode == 0, run.stderr[-3000:]
