"""Whether a difference between two cross-validated candidates is more than noise.

The folds of a cross-validation share most of their training data, so their scores are no
independent measurements, and an ordinary t-test calls noise a difference far too often. Nadeau and
Bengio (2003) give the variance a term for what the folds share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairedTest:
    """Two candidates on the same folds. Printed, it is a sentence.

    Attributes:
        first, second: their names.
        difference: mean accuracy of the first minus that of the second.
        low, high: interval around it, from the corrected t-test.
        confidence: of the interval, in (0, 1).
        p_value: of the corrected resampled t-test, two-sided.
        sign_flip_p: of the sign-flip test, two-sided.
        folds: pairs of scores that both candidates have.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    sign_flip_p: float
    folds: int

    def __str__(self) -> str:
        verdict = "is noise, as far as these folds tell"
        if self.p_value < 1 - self.confidence:
            verdict = "is more than noise"
        return (
            f"{self.first} minus {self.second}: {self.difference:+.4f}, {self.confidence:.0%} "
            f"interval {self.low:+.4f} to {self.high:+.4f}, p = {self.p_value:.3f} (sign flips "
            f"{self.sign_flip_p:.3f}), {self.folds} folds: the difference {verdict}"
        )


def corrected_error(scores: Sequence[float] | np.ndarray, val_per_train: float) -> float:
    """Return the standard error of the mean of cross-validated scores.

    The variance of n scores is divided not by n but multiplied with 1/n + m/k, for folds of m
    validation and k training items.

    Args:
        scores: of n >= 2 folds, over all repetitions.
        val_per_train: m/k, which is 1/4 for 5 folds. 0 gives the ordinary standard error.

    Example:
        >>> round(corrected_error([0.8, 0.9], 0.0), 3), round(corrected_error([0.8, 0.9], 0.5), 3)
        (0.05, 0.071)
    """
    scores = np.asarray(scores, dtype=float)
    return float(np.sqrt((1 / len(scores) + val_per_train) * scores.var(ddof=1)))


def corrected_interval(
    scores: Sequence[float] | np.ndarray, val_per_train: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval around the mean of cross-validated scores; NaN for fewer than two.

    Example:
        >>> low, high = corrected_interval([0.8, 0.82, 0.81, 0.83, 0.79], 0.25)
        >>> round(low, 3), round(high, 3)
        (0.781, 0.839)
    """
    from scipy.stats import t

    if len(scores) < 2:
        return float("nan"), float("nan")
    reach = t.ppf((1 + confidence) / 2, len(scores) - 1) * corrected_error(scores, val_per_train)
    return float(np.mean(scores) - reach), float(np.mean(scores) + reach)


def corrected_t_test(differences: Sequence[float] | np.ndarray, val_per_train: float) -> float:
    """Return the p-value of the corrected resampled t-test that a mean difference is zero.

    Args:
        differences: between two candidates, one for each fold they share; n >= 2.
        val_per_train: as for `corrected_error`; 0 makes it the ordinary paired t-test.

    Example:
        >>> found = [0.02, 0.01, 0.03, 0.02, 0.01]
        >>> round(corrected_t_test(found, 0.0), 3), round(corrected_t_test(found, 0.25), 3)
        (0.009, 0.033)
    """
    from scipy.stats import t

    mean, error = float(np.mean(differences)), corrected_error(differences, val_per_train)
    if error == 0:
        return float(mean == 0)
    return float(2 * t.sf(abs(mean) / error, len(differences) - 1))


def sign_flip_test(differences: Sequence[float] | np.ndarray, *, seed: int = 0) -> float:
    """Return the p-value of a permutation test: how often flipped signs give as large a mean.

    With n folds no p-value is below 2 / 2**n, so five folds cannot go under 0.06. It takes the
    folds for independent, which those of one cross-validation are not: with repetitions trust
    the corrected t-test.

    Args:
        differences: as for `corrected_t_test`.
        seed: of the flips, which are all tried where there are fewer than 10,000.

    Example:
        >>> sign_flip_test([0.02, 0.01, 0.03, 0.02, 0.01])
        0.0625
    """
    from scipy.stats import permutation_test

    found = permutation_test(
        (np.asarray(differences, dtype=float),),
        np.mean,
        permutation_type="samples",
        n_resamples=9_999,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def paired_test(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    val_per_train: float,
    names: tuple[str, str] = ("first", "second"),
    confidence: float = 0.95,
) -> PairedTest:
    """Compare the scores of two candidates on the same folds.

    Args:
        first: scores, one for each fold.
        second: scores on the same folds in the same order.
        val_per_train: validation items of a fold for each training item: 1/4 for 5 folds.
        names: of the two.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: if there are not the same folds of both, or fewer than two.

    Example:
        >>> test = paired_test([0.83, 0.85, 0.84], [0.80, 0.84, 0.82], val_per_train=0.5)
        >>> round(test.difference, 3), round(test.p_value, 2)
        (0.02, 0.16)
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"{len(first)} and {len(second)} scores: expected those of the same two or more folds"
        )
    differences = np.subtract(first, second)
    low, high = corrected_interval(differences, val_per_train, confidence)
    return PairedTest(
        *names,
        difference=float(differences.mean()),
        low=low,
        high=high,
        confidence=confidence,
        p_value=corrected_t_test(differences, val_per_train),
        sign_flip_p=sign_flip_test(differences),
        folds=len(differences),
    )
