"""The checks of the exercises, one function for each: `check.<chapter>_<n>(answer)`."""

from tlbook.check.look import modules_1, modules_2, modules_3, modules_4
from tlbook.check.train import loop_1, loop_2, loop_3, loop_4
from tlbook.check.transfer import (
    feature_extraction_1,
    feature_extraction_2,
    feature_extraction_3,
    feature_extraction_4,
)

__all__ = [
    "feature_extraction_1",
    "feature_extraction_2",
    "feature_extraction_3",
    "feature_extraction_4",
    "loop_1",
    "loop_2",
    "loop_3",
    "loop_4",
    "modules_1",
    "modules_2",
    "modules_3",
    "modules_4",
]
