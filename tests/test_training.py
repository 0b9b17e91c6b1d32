import functools
import math
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from tlbook.batches import BatchError, TensorBatches
from tlbook.checkpoint import CheckpointError
from tlbook.training import TrainingError, evaluate, fit, predict, train_one_epoch

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
QUIET = {"precision": "float32", "device": "cpu", "progress": False}


def blobs(examples=96, classes=3, seed=0):
    """Points around one centre per class: easy to learn, not perfectly."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(examples) % classes
    noise = torch.randn(examples, 4, generator=generator)
    return TensorDataset(nn.functional.one_hot(targets, 4).float() * 2 + noise, targets)


def small_model(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))


def same_weights(first, second):
    pairs = zip(first.values(), second.values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def loop_by_hand(model, data, epochs, batch_size):
    criterion, optimizer = nn.CrossEntropyLoss(), SGD(model.parameters())
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(data, batch_size, shuffle=True, generator=generator)
    losses = []
    for _ in range(epochs):
        model.train()
        loss_sum = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(targets)
        losses.append(loss_sum / len(data))
    return losses


@pytest.mark.parametrize("batch_size", [32, 20])
def test_fit_equals_the_loop_by_hand_to_the_last_bit(batch_size):
    by_hand, fitted, data = small_model(), small_model(), blobs()
    losses = loop_by_hand(by_hand, data, 3, batch_size)
    history = fit(fitted, data, epochs=3, batch_size=batch_size, optimizer=SGD, **QUIET)
    assert [row.train_loss for row in history.epochs] == losses
    assert same_weights(by_hand.state_dict(), fitted.state_dict())


def test_batches_from_memory_are_those_of_a_loader():
    data = blobs(10)
    kept = TensorBatches(
        *data.tensors, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3)
    )
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(data, 4, shuffle=True, generator=generator)
    for _ in range(2):  # the second epoch has another order, the same for both
        for (inputs, targets), (expected, labels) in zip(kept, loader, strict=True):
            assert torch.equal(inputs, expected) and torch.equal(targets, labels)


def test_a_subset_is_batched_from_memory():
    data, chosen = blobs(), [5, 3, 8]
    outputs = predict(nn.Identity(), Subset(data, chosen))
    assert torch.equal(outputs, data.tensors[0][chosen])


def test_loss_and_accuracy_are_per_example_with_an_odd_last_batch():
    data, model = blobs(50), small_model().eval()
    logits, targets = model(data.tensors[0]), data.tensors[1]
    measured = evaluate(model, data, batch_size=16)
    assert measured.loss == pytest.approx(nn.functional.cross_entropy(logits, targets).item())
    assert measured.accuracy == (logits.argmax(1) == targets).sum().item() / 50
    assert measured.examples == 50


def test_a_summed_criterion_is_not_counted_twice():
    data, model = blobs(50), small_model()
    summed = evaluate(model, data, criterion=nn.CrossEntropyLoss(reduction="sum"), batch_size=16)
    assert summed.loss == pytest.approx(evaluate(model, data).loss)


def test_regression_has_no_accuracy():
    data = TensorDataset(torch.randn(10, 4), torch.randn(10, 1))
    history = fit(nn.Linear(4, 1), data, data, epochs=2, criterion=nn.MSELoss(), **QUIET)
    assert history.epochs[0].train_accuracy is None and history.best_epoch in (1, 2)


def test_evaluate_restores_every_modules_mode_and_the_statistics():
    model = small_model().train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, blobs())
    assert [module.training for module in model] == [True, False, True, True]
    assert same_weights(before, model.state_dict())
    assert torch.is_grad_enabled()


def test_best_weights_are_copies_of_the_best_epoch():
    model, data = small_model(), blobs()
    rising = functools.partial(
        torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 1.0 if epoch < 2 else 1e4
    )
    history = fit(
        model, data, data, epochs=4, batch_size=16, optimizer=SGD, scheduler=rising, **QUIET
    )
    best, last = history.epochs[history.best_epoch - 1], history.epochs[-1]
    assert best.val_accuracy > last.val_accuracy, "the run was meant to get worse"
    assert evaluate(model, data).accuracy == best.val_accuracy
    with torch.no_grad():
        model[0].weight.zero_()
    assert history.best_state["0.weight"].abs().sum() > 0


def test_without_validation_the_last_weights_stay():
    history = fit(small_model(), blobs(), epochs=1, **QUIET)
    assert history.best_state is None and history.best_epoch is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_precisions_learn_and_leave_ordinary_weights(precision):
    torch.manual_seed(0)
    targets = torch.arange(64) % 2
    images = torch.randn(64, 1, 8, 8) * 0.1 + targets.view(-1, 1, 1, 1)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    data = TensorDataset(images, targets)
    history = fit(model, data, data, epochs=5, batch_size=16, precision=precision, progress=False)
    assert history.epochs[-1].val_accuracy > 0.9
    assert all(p.dtype is torch.float32 and p.is_contiguous() for p in model.parameters())


def test_a_schedule_per_batch_moves_with_every_step():
    data = blobs(64)
    schedule = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=3 * 4)
    history = fit(
        small_model(), data, epochs=3, batch_size=16, optimizer=SGD,
        scheduler=schedule, scheduler_step="batch", **QUIET,
    )  # fmt: skip
    rates = [row.learning_rate for row in history.epochs]
    assert rates[1] > rates[0] and rates[2] < rates[1]


def test_a_plateau_schedule_gets_the_validation_loss():
    plateau = functools.partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10.0
    )
    history = fit(
        small_model(), blobs(), blobs(), epochs=4, optimizer=SGD, scheduler=plateau, **QUIET
    )
    assert history.epochs[-1].learning_rate < history.epochs[0].learning_rate


def test_predict_keeps_the_order_and_refuses_a_shuffling_loader():
    data = blobs(10)
    assert torch.equal(predict(nn.Identity(), data, batch_size=3), data.tensors[0])
    with pytest.raises(BatchError, match="shuffle=False"):
        predict(nn.Identity(), DataLoader(data, 3, shuffle=True))


class Layout(nn.Module):
    """Say whether a batch of images has its channels last."""

    def forward(self, images):
        return images.is_contiguous(memory_format=torch.channels_last) * torch.ones(len(images), 1)


@pytest.mark.parametrize(("precision", "channels_last"), [("bfloat16", 1), ("float32", 0)])
def test_images_from_a_loader_come_in_the_layout_of_the_precision(precision, channels_last):
    images = TensorDataset(torch.rand(4, 3, 8, 8), torch.zeros(4))
    for data in (images, DataLoader(images, 2)):
        assert (predict(Layout(), data, precision=precision) == channels_last).all()


def test_a_last_batch_of_one_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="BatchNorm"):
        history = fit(small_model(), blobs(33), epochs=1, batch_size=16, **QUIET)
    assert history.epochs[0].train_loss > 0


def test_a_last_batch_of_one_from_a_loader_is_refused_before_the_first_step():
    loader = DataLoader(blobs(33), 16)
    with pytest.raises(BatchError, match="drop_last=True"):
        fit(small_model(), loader, epochs=1, **QUIET)
    fit(small_model(), DataLoader(blobs(33), 16, drop_last=True), epochs=1, **QUIET)


def test_a_loss_that_is_not_finite_names_step_and_rate_and_keeps_the_best_weights():
    model, data = small_model(), blobs()
    explode = functools.partial(
        torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda e: math.inf if e else 1.0
    )
    with pytest.raises(TrainingError, match=r"epoch 3: the loss is nan at step 1, .* rate inf"):
        fit(model, data, data, epochs=3, optimizer=SGD, scheduler=explode, **QUIET)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert evaluate(model, data).loss < 2.0


class Named(TensorDataset):
    def __init__(self, data, classes):
        super().__init__(*data.tensors)
        self.classes = classes


@pytest.mark.parametrize(
    ("outputs", "train", "val", "message"),
    [
        (3, Named(blobs(), ["a", "b", "c"]), Named(blobs(), ["a", "c", "b"]), "validation data"),
        (4, Named(blobs(), ["a", "b", "c"]), None, "4 outputs, the data 3 classes"),
        (2, blobs(), None, "2 outputs, the data targets up to 2"),
        (3, blobs(), blobs(classes=4), "targets up to 3"),
    ],
)
def test_classes_that_do_not_fit_are_refused_before_the_first_step(outputs, train, val, message):
    model = small_model(outputs)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TrainingError, match=message):
        fit(model, train, val, epochs=1, **QUIET)
    assert same_weights(before, model.state_dict())


def test_a_model_without_trainable_parameters_is_refused():
    model = small_model().requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameter"):
        fit(model, blobs(), epochs=1, **QUIET)


def test_an_empty_dataset_is_refused():
    with pytest.raises(BatchError, match="empty"):
        evaluate(small_model(), Subset(blobs(), []))


class Interrupting(Dataset):
    """Raises KeyboardInterrupt once, as Ctrl-C would in the middle of an epoch."""

    classes = ("a", "b", "c")

    def __init__(self, at):
        self.data, self.left = blobs(), at

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.data[index]


def test_ctrl_c_keeps_history_and_best_weights_and_says_how_to_go_on(tmp_path, capsys):
    file, model, val = tmp_path / "run.pt", small_model(), blobs(seed=1)
    data = Interrupting(at=96 * 2 + 50)
    history = fit(model, data, val, epochs=5, optimizer=SGD, checkpoint=file, **QUIET)
    assert history.interrupted and len(history.epochs) == 2
    assert f'checkpoint="{file}"' in capsys.readouterr().out
    assert evaluate(model, val).accuracy == max(row.val_accuracy for row in history.epochs)
    resumed = fit(small_model(), data, val, epochs=5, optimizer=SGD, checkpoint=file, **QUIET)
    assert len(resumed.epochs) == 5 and not resumed.interrupted


def test_a_real_ctrl_c_leaves_no_worker_behind():
    others = set(torch.multiprocessing.active_children())  # such as joblib's idle workers
    loader = DataLoader(Slow(), 4, num_workers=2)
    threading.Timer(1.5, signal.raise_signal, [signal.SIGINT]).start()
    history = fit(nn.Linear(4, 2), loader, epochs=50, **QUIET)
    assert history.interrupted
    del loader
    assert set(torch.multiprocessing.active_children()) <= others


class Slow(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        time.sleep(0.02)
        return torch.ones(4), index % 2


def run_with(file, epochs, model=None, data=None, **options):
    model = model or small_model()
    schedule = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=6)
    options = {"optimizer": SGD, "scheduler": schedule, **QUIET, **options}
    history = fit(
        model, data or blobs(), blobs(seed=1), epochs=epochs, batch_size=16,
        checkpoint=file, **options,
    )  # fmt: skip
    return model, history


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(tmp_path):
    dropout = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    start = {name: tensor.clone() for name, tensor in dropout.state_dict().items()}

    def fresh():
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        model.load_state_dict(start)
        torch.manual_seed(7)
        return model

    straight, whole = run_with(None, 6, fresh())
    run_with(tmp_path / "run.pt", 2, fresh())
    torch.manual_seed(99)  # another process would have another random state
    resumed, parts = run_with(tmp_path / "run.pt", 6, fresh())
    assert same_weights(straight.state_dict(), resumed.state_dict())
    assert [r.train_loss for r in whole.epochs] == [r.train_loss for r in parts.epochs]
    assert [r.learning_rate for r in whole.epochs] == [r.learning_rate for r in parts.epochs]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Linear(4, 3)}, "entries of the model differ"),
        ({"data": blobs(seed=5)}, "training data"),
        ({"data": blobs(48)}, "training examples: 96 in the file, 48 now"),
        ({"optimizer": torch.optim.AdamW}, "optimizer: SGD in the file, AdamW now"),
    ],
)
def test_another_run_is_refused_and_nothing_overwritten(tmp_path, change, message):
    file = tmp_path / "run.pt"
    run_with(file, 1)
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=message):
        run_with(file, 2, **change)
    assert file.read_bytes() == before


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_used(tmp_path):
    file = tmp_path / "run.pt"
    run_with(file, 3)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"run\.pt \(.*is damaged: going on from .*previous"):
        _, history = run_with(file, 4)
    assert len(history.epochs) == 4
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        run_with(file, 4)


def test_a_write_that_fails_leaves_the_checkpoint_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "run.pt"
    run_with(file, 1)
    before = file.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run_with(file, 2)
    assert file.read_bytes() == before


class Dying(Slow):
    def __getitem__(self, index):
        signal.raise_signal(signal.SIGKILL)


def test_a_worker_that_dies_is_an_error_that_names_the_way_out():
    loader = DataLoader(Dying(), 4, num_workers=1)
    with pytest.raises(BatchError, match="num_workers=0"):
        train_one_epoch(nn.Linear(4, 2), loader, nn.CrossEntropyLoss(), None)


@pytest.mark.filterwarnings("ignore:Got pickle error")
def test_a_dataset_that_does_not_pickle_is_an_error_that_names_the_way_out():
    data = Slow()
    data.open_file = Path(__file__).open()  # noqa: SIM115 - what people keep in their datasets
    loader = DataLoader(data, 4, num_workers=1, multiprocessing_context="spawn")
    with data.open_file, pytest.raises(BatchError, match="num_workers=0"):
        train_one_epoch(nn.Linear(4, 2), loader, nn.CrossEntropyLoss(), None)


def test_the_bar_is_silent_where_nobody_watches_and_one_line_where_somebody_does(capsys):
    fit(small_model(), blobs(), blobs(), epochs=2, precision="float32")
    assert capsys.readouterr().err == ""
    fit(small_model(), blobs(), blobs(), epochs=2, precision="float32", progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "192/192" in last and "examples/s" in last and "epoch 2/2" in last
