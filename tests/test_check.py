"""Every exercise's check: prompts, accepts the right answer, and answers wrong ones with a hint."""

import contextlib
import importlib
import io
import pkgutil

import pytest

from tests import answers
from tlbook import check
from tlbook.check.grading import EXERCISES

CHAPTERS = [
    importlib.import_module(f"tests.answers.{module.name}")
    for module in pkgutil.iter_modules(answers.__path__)
]
RIGHT = {name: answer for chapter in CHAPTERS for name, answer in chapter.RIGHT.items()}
WRONG = {name: wrong for chapter in CHAPTERS for name, wrong in chapter.WRONG.items()}


def said(name, *answer):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        getattr(check, name)(*answer)
    return printed.getvalue().strip()


def built(name, answer):
    """Answers that are expensive to build are given as functions without arguments."""
    is_factory = callable(answer) and getattr(answer, "builds_answer", False)
    return answer() if is_factory else answer


def test_every_exercise_has_a_right_and_two_wrong_answers():
    assert set(EXERCISES) == set(RIGHT) == set(WRONG)
    assert all(callable(getattr(check, name)) for name in EXERCISES)
    assert {name: len(answers) for name, answers in WRONG.items() if len(answers) < 2} == {}


@pytest.mark.parametrize("name", sorted(EXERCISES))
def test_an_unanswered_exercise_prints_its_prompt(name):
    for nothing in [(), (...,), (None,)]:
        assert said(name, *nothing) == f"To do: {EXERCISES[name].prompt}"


@pytest.mark.parametrize("name", sorted(EXERCISES))
def test_the_right_answer_passes(name):
    assert said(name, built(name, RIGHT[name])).startswith("Passed.")


@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name in sorted(WRONG) for n in range(len(WRONG[name]))]
)
def test_wrong_answers_get_a_hint(name, number):
    verdict = said(name, built(name, WRONG[name][number]))
    assert verdict.startswith("Not yet: ") and len(verdict) > len("Not yet: ") + 15


@pytest.mark.parametrize("name", sorted(EXERCISES))
def test_an_answer_of_any_type_never_raises(name):
    for strange in ["", [], {}, object(), -1, lambda: 1 / 0]:
        assert said(name, strange).startswith("Not yet: ")
