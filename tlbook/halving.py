"""Successive halving through scikit-learn, which knows nothing of networks and needs not to.

HalvingGridSearchCV searches over names: epochs are its resource, and a cross-validation of one
candidate is its score.
"""

from collections.abc import Callable, Sequence

import joblib
import numpy as np
from joblib.parallel import get_active_backend
from sklearn.base import BaseEstimator


class _Named(BaseEstimator):
    """What scikit-learn sees of a candidate: its name and its epochs."""

    def __init__(
        self,
        score_of: Callable[[str, int], float] | None = None,
        name: str = "",
        epochs: int = 1,
    ) -> None:
        self.score_of, self.name, self.epochs = score_of, name, epochs

    def fit(self, x: np.ndarray, y: np.ndarray) -> "_Named":
        return self

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        return self.score_of(self.name, self.epochs)


def halve(
    names: Sequence[str], score_of: Callable[[str, int], float], *, epochs: int, factor: int
) -> str:
    """Ask for the score of every name, then of the better ones with more epochs; return the best.

    Args:
        names: of the candidates.
        score_of: gives the score of a name after a number of epochs; NaN is the worst.
        epochs: of the last round at most.
        factor: how many names there are for each that goes on.

    Example:
        >>> asked = []
        >>> def score_of(name, epochs):
        ...     asked.append((name, epochs))
        ...     return len(name)
        >>> halve(["a", "bbb", "cc"], score_of, epochs=3, factor=3)
        'bbb'
        >>> asked
        [('a', 1), ('bbb', 1), ('cc', 1), ('bbb', 3)]
    """
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - what it is for
    from sklearn.model_selection import HalvingGridSearchCV

    backend, jobs = get_active_backend()

    def outside(name: str, epochs: int) -> float:
        with joblib.parallel_config(backend=backend, n_jobs=jobs):
            return score_of(name, epochs)

    search = HalvingGridSearchCV(
        _Named(outside),
        {"name": list(names)},
        resource="epochs",
        max_resources=epochs,
        factor=factor,
        cv=[([0], [1])],  # the score is that of a whole cross-validation already
        refit=False,
        return_train_score=False,
        error_score="raise",
    )
    # The search itself stays in this process; only what it asks for is spread out.
    with joblib.parallel_config(backend="sequential"):
        search.fit(np.zeros((2, 1)), np.zeros(2))
    return search.cv_results_["params"][search.best_index_]["name"]
