"""A linear classifier on fixed features: the first number to have for any transfer.

scikit-learn fits it and chooses its one setting inside the training data; as an `nn.Linear` it
becomes the head of the network that made the features.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from tlbook.batches import in_memory

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

STRENGTHS = tuple(10.0**power for power in range(-5, 2))


def linear_probe(
    features: Dataset | Tensor,
    targets: Tensor | None = None,
    *,
    folds: int = 5,
    strengths: tuple[float, ...] = STRENGTHS,
    seed: int = 0,
) -> "Pipeline":
    """Fit a linear classifier; cross-validation inside these data chooses its penalty.

    Views of one example, as `extract_features` makes them, are never in two folds.

    Args:
        features: what `extract_features` returns, a `TensorDataset` or a `Subset` of one; or a
            tensor (N, ...), flattened to (N, F).
        targets: class indices (N,), where `features` is a tensor.
        folds: of the cross-validation.
        strengths: inverse penalties C to choose from.
        seed: of the order of the examples.

    Returns:
        A fitted scikit-learn pipeline of `StandardScaler` and `LogisticRegression`.

    Raises:
        ValueError: if the features are not in memory, or a class has fewer examples than folds.

    Example:
        >>> classes = torch.arange(2).repeat(20)
        >>> points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> linear_probe(points + 4 * classes[:, None], classes).predict([[0, 0, 0], [4, 4, 4]])
        array([0, 1])
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y, groups = _arrays(features, targets)
    classes, counts = np.unique(_first_of_each(y, groups), return_counts=True)
    if counts.min() < folds:
        rarest = classes[counts.argmin()]
        raise ValueError(
            f"{folds} folds need as many examples of each class, and class {rarest} has "
            f"{counts.min()}: pass a smaller folds=, or leave the class out"
        )
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": sorted(strengths)},
        cv=StratifiedGroupKFold(folds, shuffle=True, random_state=seed),
        scoring="neg_log_loss",
    )
    return search.fit(x, y, groups=groups).best_estimator_


def to_linear(probe: "Pipeline") -> nn.Linear:
    """Turn a probe into an `nn.Linear` with the same predictions, scaling included.

    Args:
        probe: what `linear_probe` returns, fitted on classes 0, 1, ..., none left out.

    Returns:
        A layer from features (N, F) to logits (N, classes), a start for fine-tuning. Put it in
        place of the head of the network that made the features.

    Raises:
        ValueError: if a class is left out, since row k of a head is class k.

    Example:
        >>> classes = torch.arange(2).repeat(20)
        >>> points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> to_linear(linear_probe(points, classes))
        Linear(in_features=3, out_features=2, bias=True)
    """
    scaler, classifier = (step for _, step in probe.steps)
    classes = classifier.classes_.tolist()
    if classes != list(range(len(classes))):
        raise ValueError(
            f"the probe knows the classes {classes}: expected 0, 1, ..., none left out"
        )
    weight, bias = classifier.coef_, classifier.intercept_
    if len(classes) == 2:
        # One row tells two classes apart; half of it against half of it gives the same odds.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    head = nn.Linear(weight.shape[1], len(classes))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias - weight @ scaler.mean_))
    return head


def _arrays(
    features: Dataset | Tensor, targets: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (N, F), class indices (N,) and the example that each row is a view of."""
    groups = None
    if not isinstance(features, Tensor):
        groups = _examples(features)
        pair = in_memory(features)
        if pair is None:
            raise ValueError(
                f"{type(features).__name__} is not in memory: expected a tensor or a "
                "TensorDataset; make one with extract_features"
            )
        features, targets = pair
    if groups is None:
        groups = torch.arange(len(features))
    return features.flatten(1).numpy(), targets.numpy(), groups.numpy()


def _examples(dataset: Dataset) -> Tensor | None:
    if isinstance(dataset, Subset):
        whole = _examples(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices)]
    return getattr(dataset, "examples", None)


def _first_of_each(targets: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return targets[np.unique(groups, return_index=True)[1]]
