"""The checks of the exercises, one module a chapter: `check.<chapter>_<n>(answer)`."""

from tlbook.check.feature_extraction import (
    feature_extraction_1,
    feature_extraction_2,
    feature_extraction_3,
    feature_extraction_4,
)
from tlbook.check.loop import loop_1, loop_2, loop_3, loop_4
from tlbook.check.modules import modules_1, modules_2, modules_3, modules_4
