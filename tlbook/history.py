"""What a training run measured, epoch by epoch, and which epoch was best."""

import math
from dataclasses import asdict, dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Epoch:
    """Measurements of one epoch.

    Attributes:
        epoch: its number, from 1.
        train_loss: loss per training example, averaged while the weights were moving.
        train_accuracy: share of training examples classified correctly, in [0, 1]; None where
            the targets are not class indices.
        val_loss: loss per validation example after the epoch; None without validation data.
        val_accuracy: as train_accuracy, on the validation data.
        learning_rate: of the optimizer's first parameter group, during the epoch.
        seconds: wall-clock time of training and validation.
        examples_per_second: training examples per second of training alone.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    seconds: float
    examples_per_second: float


@dataclass
class History:
    """The epochs of a run, and a copy of the weights of its best one.

    Attributes:
        epochs: one `Epoch` for each finished epoch.
        best_state: a copy of the state_dict after the best epoch, on the CPU; None without
            validation data.
        interrupted: whether Ctrl-C ended the run early.

    Example:
        >>> history = History([Epoch(1, 0.9, 0.6, 0.8, 0.7, 0.1, 2.0, 500.0)])
        >>> history
        History(1 epoch; best: epoch 1, validation loss 0.8000, accuracy 0.7000)
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_state: dict[str, Tensor] | None = None
    interrupted: bool = False

    @property
    def best_epoch(self) -> int | None:
        """Number of the epoch with the highest validation accuracy; a tie goes to the lower loss.

        Without accuracies the lowest validation loss decides. An epoch whose validation loss is
        not finite is never the best; None without validation data.
        """
        losses = [(row, row.val_loss) for row in self.epochs if row.val_loss is not None]
        validated = [row for row, loss in losses if math.isfinite(loss)]
        if not validated:
            return None
        return min(validated, key=lambda row: (-(row.val_accuracy or 0.0), row.val_loss)).epoch

    def to_dict(self) -> dict[str, list]:
        """Return the measurements as columns, ready for a table or a plot."""
        names = Epoch.__dataclass_fields__
        return {name: [getattr(row, name) for row in self.epochs] for name in names}

    def rows(self) -> list[dict]:
        """Return the measurements as one dictionary per epoch."""
        return [asdict(row) for row in self.epochs]

    def __repr__(self) -> str:
        count = f"{len(self.epochs)} epoch{'s' if len(self.epochs) != 1 else ''}"
        if self.interrupted:
            count += ", interrupted"
        if self.best_epoch is None:
            return f"History({count})"
        best = self.epochs[self.best_epoch - 1]
        figures = f"epoch {best.epoch}, validation loss {best.val_loss:.4f}"
        if best.val_accuracy is not None:
            figures += f", accuracy {best.val_accuracy:.4f}"
        return f"History({count}; best: {figures})"
