"""What every exercise's check is made of: a prompt, a grader, three kinds of answer.

A grader gets the reader's answer, returns where it is right, and raises `NotYet` with a hint that
follows from what is wrong. What the reader sees is printed; nothing is raised into the notebook.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class NotYet(Exception):  # noqa: N818 - it is a hint for a reader, not an error
    """The answer is not right yet; the message is the hint."""


@dataclass(frozen=True)
class Exercise:
    """An exercise's prompt and its grader."""

    prompt: str
    grade: Callable[[Any], None]

    def verdict(self, answer: Any) -> str:
        """Return what the reader is told about an answer.

        Example:
            >>> Exercise("Two plus two?", functools.partial(expect, right=4)).verdict(5)
            'Not yet: 5 is not the right value.'
        """
        if answer is ... or answer is None:
            return f"To do: {self.prompt}"
        try:
            self.grade(answer)
        except NotYet as hint:
            return f"Not yet: {hint}"
        except Exception as error:  # a reader's own function or model may fail in any way
            return f"Not yet: using your answer raised {type(error).__name__}: {error}"
        return "Passed."


EXERCISES: dict[str, Exercise] = {}


def exercise(prompt: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Turn a grader into a check that prints its verdict, and register it under its name."""

    def register(grade: Callable[[Any], None]) -> Callable[[Any], None]:
        EXERCISES[grade.__name__] = Exercise(prompt, grade)

        @functools.wraps(grade)
        def check(answer: Any = ...) -> None:
            print(EXERCISES[grade.__name__].verdict(answer))

        return check

    return register


def expect(answer: Any, right: Any, **hints: str) -> None:
    """Raise `NotYet` unless the answer equals the right value.

    Args:
        answer: the reader's answer.
        right: the value, of the type that is asked for.
        hints: hints for typical wrong values, keyed by `str(value)` with an underscore before a
            leading digit (`_4="that counts one level only"`).
    """
    if isinstance(right, int | float) and not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    if not isinstance(right, int | float) and not isinstance(answer, type(right)):
        raise NotYet(f"expected {type(right).__name__}, found {type(answer).__name__}.")
    if answer != right:
        key = str(answer)
        hint = hints.get(key) or hints.get("_" + key)
        raise NotYet(hint or f"{answer!r} is not the right value.")


def expect_table(answer: Any, right: dict[str, Any], hints: dict[str, dict[str, str]]) -> None:
    """Raise `NotYet` unless the answer is a dictionary with the right value under each key.

    Args:
        answer: the reader's answer.
        right: the values.
        hints: for a key, hints for typical wrong values, as `expect` takes them.
    """
    if not isinstance(answer, dict):
        raise NotYet(f"expected a dictionary, found {type(answer).__name__}.")
    if answer.keys() != right.keys():
        missing = sorted(right.keys() - answer.keys())
        extra = sorted(map(str, answer.keys() - right.keys()))
        raise NotYet(f"wrong keys: missing {missing or 'none'}, not expected {extra or 'none'}.")
    for key, value in right.items():
        try:
            expect(answer[key], value, **hints.get(key, {}))
        except NotYet as hint:
            raise NotYet(f"{key}: {hint}") from None


def expect_function(answer: Any, arguments: str) -> None:
    """Raise `NotYet` unless the answer can be called; `arguments` says with what."""
    if not callable(answer):
        raise NotYet(f"expected a function of {arguments}, found {type(answer).__name__}.")
