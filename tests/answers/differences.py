"""Right and typically wrong answers to the exercises of *is the difference real?*."""

import numpy as np
from scipy.stats import binomtest, chi2, ttest_rel


def image_test(first_right, second_right):
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    if only_first + only_second == 0:
        return np.float64(1)
    return binomtest(only_first, only_first + only_second).pvalue


def one_sided(first_right, second_right):
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    return binomtest(only_first, only_first + only_second, alternative="greater").pvalue


def by_t_test(first_right, second_right):
    return ttest_rel(first_right * 1.0, second_right * 1.0).pvalue


def of_all_images(first_right, second_right):
    return binomtest(int(np.sum(first_right & ~second_right)), len(first_right)).pvalue


def by_chi_square(first_right, second_right):
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    return chi2.sf((only_first - only_second) ** 2 / max(only_first + only_second, 1), 1)


def survivors(p_values, level):
    left = []
    for name in sorted(p_values, key=p_values.get):
        if p_values[name] > level / (len(p_values) - len(left)):
            break
        left.append(name)
    return tuple(left)


def bonferroni(p_values, level):
    return [name for name in sorted(p_values, key=p_values.get)
            if p_values[name] <= level / len(p_values)]  # fmt: skip


def uncorrected(p_values, level):
    return [name for name in sorted(p_values, key=p_values.get) if p_values[name] <= level]


def never_stops(p_values, level):
    names = sorted(p_values, key=p_values.get)
    return [
        name for rank, name in enumerate(names) if p_values[name] <= level / (len(names) - rank)
    ]


def strictly(p_values, level):
    left = []
    for name in sorted(p_values, key=p_values.get):
        if p_values[name] >= level / (len(p_values) - len(left)):
            break
        left.append(name)
    return left


def in_their_order(p_values, level):
    return [name for name in p_values if name in survivors(p_values, level)]


RIGHT = {
    "differences_1": [0.863, np.float64(0.983)],
    "differences_2": {"corrected": np.float64(0.2385), "naive": 0.0077},
    "differences_3": image_test,
    "differences_4": survivors,
}

WRONG = {
    "differences_1": [
        (0.895, 1.005), (0.895, 1.0), (0.861, 0.990), (0.017, 0.137), (86.3, 98.3), (0.983, 0.863),
        (0.863,), 0.863, "0.863, 0.983", (None, 0.983), (0.8, 0.9),
    ],
    "differences_2": [
        {"naive": 0.0077},
        {"naive": 0.0077, "corrected": 0.1193},
        {"naive": 0.0029, "corrected": 0.2385},
        {"naive": 0.0077, "corrected": 0.2236},
        {"naive": 0.2385, "corrected": 0.0077},
        {"naive": "small", "corrected": "large"},
        [0.0077, 0.2385],
    ],
    "differences_3": [
        one_sided,
        by_t_test,
        of_all_images,
        by_chi_square,
        lambda first, second: None,
        lambda first, second: float(np.mean(first != second)),
        0.0352,
    ],
    "differences_4": [
        bonferroni,
        uncorrected,
        never_stops,
        strictly,
        in_their_order,
        lambda p_values, level: len(p_values),
        lambda p_values, level: "a",
        ["a", "b"],
    ],
}  # fmt: skip
