import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from tlbook.significance import (
    corrected_error,
    corrected_interval,
    corrected_t_test,
    paired_test,
    sign_flip_test,
)

SCORES = [0.81, 0.84, 0.79, 0.83, 0.85]
OTHERS = [0.80, 0.82, 0.80, 0.80, 0.83]


def test_without_correction_it_is_the_ordinary_paired_t_test():
    ordinary = ttest_rel(SCORES, OTHERS)
    found = paired_test(SCORES, OTHERS, val_per_train=0)
    assert found.p_value == pytest.approx(ordinary.pvalue)
    interval = ordinary.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert corrected_error(SCORES, 0) == pytest.approx(ttest_1samp(SCORES, 0)._standard_error)


def test_the_correction_is_that_of_nadeau_and_bengio():
    differences = np.subtract(SCORES, OTHERS)
    ratio = np.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    assert corrected_error(differences, 0.25) == pytest.approx(
        ratio * corrected_error(differences, 0)
    )
    assert corrected_t_test(differences, 0.25) > corrected_t_test(differences, 0)
    low, high = corrected_interval(SCORES, 0.25)
    assert low + high == pytest.approx(2 * np.mean(SCORES))


def test_interval_and_p_value_agree():
    for shift in np.linspace(0, 0.06, 25):
        found = paired_test(np.add(SCORES, shift), OTHERS, val_per_train=0.25)
        assert (found.low > 0 or found.high < 0) == (found.p_value < 0.05)


def test_sign_flips_are_counted_exactly():
    assert sign_flip_test([1, 1, 1, 1, 1, 1]) == 2 / 2**6
    assert sign_flip_test([1, -1, 1, -1]) == 1.0
    assert sign_flip_test([3, 2, -1]) == 4 / 8  # means of at least 4/3: +++, ++- and their mirrors
    many = np.random.default_rng(0).normal(0.3, 1, 40)
    assert sign_flip_test(many) == sign_flip_test(many)
    assert sign_flip_test(many, seed=1) == pytest.approx(sign_flip_test(many), abs=0.02)


def test_equal_scores_are_no_difference_and_a_constant_one_is():
    same = paired_test(SCORES, SCORES, val_per_train=0.25)
    assert (same.difference, same.p_value, same.sign_flip_p) == (0, 1, 1)
    assert "is noise" in str(same)
    assert corrected_t_test([0.5, 0.5, 0.5], 0.25) == 0


def scores_of_equals(random, folds=5, repeats=4, images=100):
    """Differences between two learners that are equally good: each looks at a number of its own."""
    targets = np.arange(images) % 2
    values = random.normal(size=(images, 2)) + targets[:, None]
    differences = []
    for _ in range(repeats):
        for val in np.array_split(random.permutation(images), folds):
            train = np.delete(np.arange(images), val)
            means = [values[train][targets[train] == label].mean(axis=0) for label in (0, 1)]
            right = (values[val] > np.mean(means, axis=0)) == (targets[val] == 1)[:, None]
            differences.append(right[:, 0].mean() - right[:, 1].mean())
    return differences


def test_the_corrected_test_keeps_its_error_rate_where_the_ordinary_one_does_not():
    random = np.random.default_rng(0)
    runs = [scores_of_equals(random) for _ in range(400)]
    ordinary = np.mean([corrected_t_test(run, 0) < 0.05 for run in runs])
    corrected = np.mean([corrected_t_test(run, 0.25) < 0.05 for run in runs])
    assert corrected <= 0.07
    assert ordinary > 0.15


def test_scores_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="5 and 4 scores"):
        paired_test(SCORES, OTHERS[:4], val_per_train=0.25)
    with pytest.raises(ValueError, match="1 and 1 scores"):
        paired_test([1], [1], val_per_train=0.25)
    assert np.isnan(corrected_interval([0.5], 0.25)).all()
