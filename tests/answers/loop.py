"""Right and typically wrong answers to the exercises of *the training loop*."""

from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset

from tlbook import History, fit


def measure(model, loader):
    was_training = model.training
    model.eval()
    losses, correct, examples = [], 0, 0
    with torch.inference_mode():
        for images, labels in loader:
            outputs = model(images)
            losses.append(nn.functional.cross_entropy(outputs, labels, reduction="sum").item())
            correct += (outputs.argmax(dim=1) == labels).sum().item()
            examples += len(labels)
    model.train(was_training)
    return sum(losses) / examples, correct / examples


def measure_by_batch_means(model, loader, divide_by="batches"):
    model.eval()
    losses, accuracies = [], []
    with torch.inference_mode():
        for images, labels in loader:
            outputs = model(images)
            losses.append(nn.functional.cross_entropy(outputs, labels).item())
            accuracies.append((outputs.argmax(dim=1) == labels).float().mean().item())
    model.train()
    count = len(losses) if divide_by == "batches" else len(loader.dataset)
    return sum(losses) / count, sum(accuracies) / count


def measure_a_mean_accuracy(model, loader):
    return measure(model, loader)[0], measure_by_batch_means(model, loader)[1]


def measure_while_training(model, loader):
    with torch.inference_mode():
        for images, _ in loader:
            model(images)
    return measure(model, loader)


def measure_and_stay(model, loader):
    model.eval()
    return measure(model, loader)


def measure_and_train(model, loader):
    loss, accuracy = measure(model, loader)
    model.train()
    return loss, accuracy


def measure_as_tensors(model, loader):
    loss, accuracy = measure(model, loader)
    return torch.tensor(loss), torch.tensor(accuracy)


def measure_with_gradients(model, loader):
    model.eval()
    losses, correct = 0.0, 0
    for images, labels in loader:
        outputs = model(images)
        losses = losses + nn.functional.cross_entropy(outputs, labels, reduction="sum")
        correct += (outputs.argmax(dim=1) == labels).sum().item()
    model.train()
    return losses / len(loader.dataset), correct / len(loader.dataset)


def measure_without_accuracy(model, loader):
    return measure(model, loader)[0]


def early_stop(history, patience):
    best, lowest = 0, float("inf")
    for row in history.epochs:
        if row.val_loss < lowest:
            best, lowest = row.epoch, row.val_loss
        elif row.epoch - best >= patience:
            break
    return best


def keep_the_lowest(history, patience):
    return min(history.epochs, key=lambda row: row.val_loss).epoch


def keep_the_most_accurate(history, patience):
    return history.best_epoch


def keep_an_index(history, patience):
    return early_stop(history, patience) - 1


def keep_the_last(history, patience):
    return len(history.epochs)


def stop_one_too_late(history, patience):
    return early_stop(history, patience + 1)


def never_start_again(history, patience):
    best, lowest, waited = 0, float("inf"), 0
    for row in history.epochs:
        if row.val_loss < lowest:
            best, lowest = row.epoch, row.val_loss
        else:
            waited += 1
        if waited == patience:
            break
    return best


def compare_with_the_last(history, patience):
    losses, best, waited = [row.val_loss for row in history.epochs], 1, 0
    for epoch in range(2, len(losses) + 1):
        lower = losses[epoch - 1] < losses[epoch - 2]
        waited = 0 if lower else waited + 1
        best = epoch if losses[epoch - 1] < losses[best - 1] else best
        if waited == patience:
            break
    return best


def one_cycle_run(epochs=3, batch_size=64, total_steps=48, scheduler_step="batch", max_lr=0.01):
    """Return what builds the history of a one-cycle run on 1,000 tiny images."""

    def build():
        images = torch.rand(1000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        data = TensorDataset(images, torch.arange(1000) % 10)
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
        cycle = partial(OneCycleLR, max_lr=max_lr, total_steps=total_steps)
        return fit(
            network, data, epochs=epochs, batch_size=batch_size, device="cpu", progress=False,
            scheduler=None if total_steps is None else cycle, scheduler_step=scheduler_step,
        )  # fmt: skip

    build.builds_answer = True
    return build


RIGHT = {
    "loop_1": 0.879,
    "loop_2": measure,
    "loop_3": early_stop,
    "loop_4": one_cycle_run(),
}
WRONG = {
    "loop_1": [0.8, 0.88, 0.799, 880, 8.8, 87.9, 0.5, True],
    "loop_2": [
        measure_by_batch_means,
        partial(measure_by_batch_means, divide_by="examples"),
        measure_a_mean_accuracy,
        measure_while_training,
        measure_and_stay,
        measure_and_train,
        measure_as_tensors,
        measure_with_gradients,
        measure_without_accuracy,
    ],
    "loop_3": [
        keep_the_lowest,
        keep_the_most_accurate,
        keep_an_index,
        keep_the_last,
        stop_one_too_late,
        never_start_again,
        compare_with_the_last,
    ],
    "loop_4": [
        History(),
        one_cycle_run(epochs=2),
        one_cycle_run(total_steps=None),
        one_cycle_run(scheduler_step="epoch"),
        one_cycle_run(total_steps=3, scheduler_step="epoch"),
        one_cycle_run(batch_size=128),
        one_cycle_run(max_lr=0.1),
    ],
}
