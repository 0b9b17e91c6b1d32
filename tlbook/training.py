"""`fit`: the book's only training loop, with validation, best weights and resuming.

It joins `train_one_epoch` and `evaluate` of `tlbook.loop`. The best weights are copies, Ctrl-C
loses nothing, and a run with a checkpoint goes on to the last bit.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from tlbook import runtime
from tlbook.batches import BatchError, Batches, Data, example_count, make_batches
from tlbook.checkpoint import (
    CheckpointError,
    describe_run,
    get_random_state,
    load_checkpoint,
    refuse_other_run,
    save_checkpoint,
    set_random_state,
)
from tlbook.history import Epoch, History
from tlbook.loop import Criterion, Metrics, TrainingError, evaluate, predict, train_one_epoch
from tlbook.preflight import avoid_batch_of_one, check_classes
from tlbook.ranks import Ranks

__all__ = [
    "BatchError",
    "CheckpointError",
    "Epoch",
    "History",
    "Metrics",
    "TrainingError",
    "evaluate",
    "fit",
    "predict",
    "train_one_epoch",
]


def fit(
    model: nn.Module,
    train: Data,
    val: Data | None = None,
    *,
    epochs: int,
    batch_size: int = 128,
    optimizer: Optimizer | Callable[..., Optimizer] | None = None,
    scheduler: LRScheduler | Callable[[Optimizer], LRScheduler] | None = None,
    scheduler_step: str = "epoch",
    criterion: Criterion | None = None,
    device: str | torch.device | None = None,
    precision: str = "auto",
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    seed: int = 0,
) -> History:
    """Train a model; with validation data it ends with the weights of its best epoch.

    Args:
        model: any module; moved to the device, trained in place, left in evaluation mode.
        train: a Dataset of pairs (input `(C, H, W)`, class), or a DataLoader of batches of them.
            A TensorDataset, or a Subset of one, is kept on the device and batched by indexing.
        val: as train; measured after every epoch, and what the best epoch is chosen by. Never
            the test data.
        epochs: passes over the training data, those of a resumed checkpoint included.
        batch_size: examples per step, for Datasets.
        optimizer: an optimizer, or what makes one from the trainable parameters, such as
            `functools.partial(torch.optim.SGD, lr=0.1)`; None is AdamW at 0.001.
        scheduler: a scheduler, or what makes one from the optimizer.
        scheduler_step: "epoch" or "batch": how often the scheduler moves.
        criterion: loss of (outputs, targets), a mean over the batch's examples or, with
            `reduction="sum"`, a sum; None is cross entropy.
        device: None takes the fastest (`get_device`).
        precision: "auto" (`best_precision`), "float32" or "bfloat16". On a processor, training
            networks of depthwise convolutions (MobileNet, EfficientNet) is faster in "float32".
        checkpoint: file written after every epoch; if it is there, the run goes on from it.
        progress: a progress bar; None shows one where somebody watches.
        seed: of the order of the examples.

    Returns:
        The measurements of every epoch, and a copy of the best weights.

    Raises:
        TrainingError: classes that do not fit the model or the validation data; a loss that is
            not finite (the model then holds its best weights).
        BatchError: batches that the model cannot be trained on.
        CheckpointError: a checkpoint that is damaged or belongs to another run.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.eye(4).repeat(8, 1), torch.arange(4).repeat(8))
        >>> fit(nn.Linear(4, 4), data, data, epochs=2, precision="float32").best_epoch
        2
    """
    ranks = Ranks(runtime.get_device(device))
    device = ranks.device
    layout = runtime.precision(precision, device).memory_format
    model.to(device, memory_format=layout)
    check_classes(model, train, val, device)
    order = torch.Generator().manual_seed(seed)
    batches = make_batches(
        train, batch_size, device=device, memory_format=layout, shuffle=True, generator=order
    )
    if val is not None:
        val = make_batches(val, batch_size, device=device, memory_format=layout)
    if not isinstance(optimizer, Optimizer):
        optimizer = _new_optimizer(model, optimizer)
    if scheduler is not None and not isinstance(scheduler, LRScheduler):
        scheduler = scheduler(optimizer)
    run = _Run(
        model=model,
        train=avoid_batch_of_one(batches, model),
        val=val,
        criterion=criterion or nn.CrossEntropyLoss(),
        optimizer=optimizer,
        scheduler=scheduler,
        scheduler_step=scheduler_step,
        how={"device": device, "precision": precision},
        checkpoint=None if checkpoint is None else Path(checkpoint),
        ranks=ranks,
    )
    run.start()
    with _progress_bar(progress, run, epochs) as bar:
        _train(run, epochs, bar)
    return run.history


@dataclass
class _Run:
    """A training run between two epochs: all that is needed to go on, or to stop well."""

    model: nn.Module
    train: Batches
    val: Batches | None
    criterion: Criterion
    optimizer: Optimizer
    scheduler: LRScheduler | None
    scheduler_step: str
    how: dict
    checkpoint: Path | None
    ranks: Ranks
    history: History = field(default_factory=History)

    def start(self) -> None:
        """Go on from a checkpoint where there is one, and join the other processes of the run."""
        self.description = describe_run(self.model, self.train, self.optimizer)
        self._resume()
        self.wrapped = self.ranks.wrap(self.model)
        self.shares = self.ranks.share(self.train), self.val and self.ranks.share(self.val)

    def one_epoch(self, number: int, on_batch: Callable[[int], object]) -> Epoch:
        rate, start = self.optimizer.param_groups[0]["lr"], time.perf_counter()
        per_batch = self.scheduler if self.scheduler_step == "batch" else None
        try:
            trained = train_one_epoch(
                self.wrapped,
                self.shares[0],
                self.criterion,
                self.optimizer,
                scheduler=per_batch,
                on_batch=on_batch,
                backward=self.ranks.backward,
                **self.how,
            )
        except TrainingError as error:
            raise TrainingError(f"epoch {number}: {error}") from None
        trained = self.ranks.combine(trained)
        self.ranks.agree_on_buffers(self.model)
        speed = trained.examples / (time.perf_counter() - start)
        checked = Metrics(None, None, 0)
        if self.val is not None:
            checked = evaluate(self.model, self.shares[1], criterion=self.criterion, **self.how)
            checked = self.ranks.combine(checked)
        if self.scheduler is not None and per_batch is None:
            plateau = isinstance(self.scheduler, ReduceLROnPlateau)
            self.scheduler.step(*([checked.loss] if plateau else []))
        row = Epoch(
            epoch=number,
            train_loss=trained.loss,
            train_accuracy=trained.accuracy,
            val_loss=checked.loss,
            val_accuracy=checked.accuracy,
            learning_rate=rate,
            seconds=time.perf_counter() - start,
            examples_per_second=speed,
        )
        self._keep(row)
        return row

    def _keep(self, row: Epoch) -> None:
        self.history.epochs.append(row)
        if self.history.best_epoch == row.epoch:
            # state_dict() holds the live tensors: without a copy the next step would change it.
            self.history.best_state = _copy_to_cpu(self.model.state_dict())
        if self.checkpoint is not None and self.ranks.is_first:
            save_checkpoint(self.checkpoint, self._state())
        self.ranks.wait()  # a rank that reads the checkpoint must find it whole

    def _state(self) -> dict:
        return {
            "run": self.description,
            "history": self.history.rows(),
            "model": self.model.state_dict(),
            "best": self.history.best_state,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "random": get_random_state(self.train.generator),
        }

    def _resume(self) -> None:
        state = None if self.checkpoint is None else load_checkpoint(self.checkpoint)
        if state is None:
            return
        refuse_other_run(self.checkpoint, state["run"], self.description)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.history.epochs = [Epoch(**row) for row in state["history"]]
        self.history.best_state = state["best"]
        set_random_state(state["random"], self.train.generator)

    def finish(self) -> None:
        """Leave the model with its best weights, in the ordinary layout, ready to be used."""
        if self.history.best_state is not None:
            self.model.load_state_dict(self.history.best_state)
        self.model.to(memory_format=torch.contiguous_format).eval()

    def how_to_resume(self, epochs: int) -> str:
        done = f"Interrupted after {len(self.history.epochs)} of {epochs} epochs. "
        if self.checkpoint is None:
            return done + 'To be able to resume, pass checkpoint="run.pt" next time.'
        return done + f'Resume with the same call: fit(..., checkpoint="{self.checkpoint}").'


def _train(run: _Run, epochs: int, bar: tqdm) -> None:
    """Run the epochs that are left; whatever happens, the model ends with its best weights."""
    try:
        for number in range(len(run.history.epochs) + 1, epochs + 1):
            row = run.one_epoch(number, on_batch=lambda n: bar.update(n * run.ranks.count))
            bar.set_postfix_str(_line(row, epochs))
    except KeyboardInterrupt:
        run.history.interrupted = True
        print(run.how_to_resume(epochs))
    except RuntimeError as error:
        if lost := run.ranks.loss_of_others(error):
            raise lost from error
        raise
    finally:
        run.finish()


def _new_optimizer(model: nn.Module, make: Callable[..., Optimizer] | None) -> Optimizer:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainingError(
            "no parameter of the model is trainable: expected at least a head that is not frozen; "
            "unfreeze one"
        )
    return torch.optim.AdamW(trainable, lr=1e-3) if make is None else make(trainable)


def _copy_to_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def _line(row: Epoch, epochs: int) -> str:
    parts = [f"epoch {row.epoch}/{epochs}", f"loss {row.train_loss:.4f}"]
    if row.val_loss is not None:
        parts.append(f"validation {row.val_loss:.4f}")
    if row.val_accuracy is not None:
        parts.append(f"accuracy {row.val_accuracy:.4f}")
    return ", ".join(parts)


def _progress_bar(progress: bool | None, run: _Run, epochs: int) -> tqdm:
    """One bar over all examples of all epochs; its speed is in examples per second."""
    examples = example_count(run.train)
    return tqdm(
        total=epochs * examples,
        initial=len(run.history.epochs) * examples,
        unit=" examples",
        disable=not runtime.is_watched(progress) or not run.ranks.is_first,
    )
