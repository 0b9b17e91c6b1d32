"""tlbook.results: result files travel with the package and say how they were made."""

import importlib.util

import pytest

from tlbook import load_result
from tlbook.results import FOLDER

NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_result_names_a_command_that_is_there(name):
    command = load_result(name)["made by"].split()
    assert command[:2] == ["python", "-m"]
    assert importlib.util.find_spec(command[2]) is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_result_says_when_and_on_what_it_was_measured(name):
    result = load_result(name)
    assert result["measured"] and result["date"] and result["machine"]["processor"]
    assert {"python", "torch", "torchvision"} <= set(result["versions"])


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'fit_sped': expected one of .*fit_speed"):
        load_result("fit_sped")
