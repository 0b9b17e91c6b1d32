"""What the last steps give a fine-tuned network: averaged weights, several views, calibration.

Solar cells: 1,568 photographs to train on, 400 to fit temperatures on, and 656 (a quarter, as in
the published protocol) that only measure. Each seed draws its own parts, stratified by label; the
test parts of two seeds overlap, and cells of one module may lie in several parts.

The network is EfficientNet-Lite0 from ImageNet on whole cells of 96 pixels. All but its last stage
is frozen, so its features are computed once, for the four flips of each cell. The last stage and a
new head are fine-tuned with a one-cycle schedule, each cell in a random flip. Averages of the
weights run along. The last weights count: no epoch, setting or temperature is chosen on the
test cells. Temperatures fitted on the training and on the test cells are stored to be compared
with; what is called "scaled" uses the one of the validation cells.

    python -m benchmarks.better_at_the_end [--seeds 0 1 2 3 4] [--write]
    python -m benchmarks.better_at_the_end --seeds 0 --images 96 --epochs 1   # a try

A try shows the validation accuracy and nothing of the test cells. Seeds that are in the result file
already are not trained again. The outputs of the networks stay in the cache folder, from where
`benchmarks.distillation` takes them. Takes about two minutes on two cores.
"""

import argparse
import copy
import time
from collections import OrderedDict
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from benchmarks.results import stored_result, write_result
from tlbook import (
    fit,
    load_dataset,
    load_pretrained,
    param_groups,
    predict,
    seed_everything,
    stratified_split,
)
from tlbook.files import read_weights, save_weights
from tlbook.runtime import cache_dir

NAME = "better_at_the_end"
PARTS = (1568, 400, 656)  # training, validation, test
VIEWS = {"upright": (), "left-right": (3,), "upside down": (2,), "both": (2, 3)}
TEACHER_SIDE, TEACHER_EPOCHS, TEACHER_BATCH = 96, 5, 16
RATES = {"late.head": 3e-3}  # the rest of what trains has RATE
RATE, DECAY = 5e-4, 0.01
EMA = (0.98, 0.999)


class Task(NamedTuple):
    """What a call of the script was asked for."""

    images: int | None = None
    epochs: int = TEACHER_EPOCHS

    @property
    def parts(self) -> tuple[int, ...]:
        """The numbers of photographs for training, validation and test."""
        n = self.images
        return PARTS if n is None else (n // 2, n // 4, n // 4)


class Grey(nn.Module):
    """Give grey images the form that the weights of a network expect."""

    def __init__(self, network: nn.Module, normalise: nn.Module) -> None:
        super().__init__()
        self.network, self.normalise = network, normalise

    def forward(self, x: Tensor) -> Tensor:
        """Map grey images `(N, 1, S, S)` in [0, 1] to what the network gives for them."""
        return self.network(self.normalise(x.expand(-1, 3, -1, -1)))


class OneView(nn.Module):
    """Take one of several views of each cell, a random one in training and else the first."""

    def __init__(self, late: nn.Module) -> None:
        super().__init__()
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        """Map features `(N, V, C, H, W)` of all views, or `(N, C, H, W)` of one, to logits."""
        if x.ndim == 5:
            drawn = torch.randint(x.shape[1], (len(x),)) if self.training else torch.zeros(len(x))
            x = x[torch.arange(len(x)), drawn.long()]
        return self.late(x)


@cache
def photographs(side: int) -> TensorDataset:
    """Return all cells, whole, as images `(2624, 1, side, side)` in [0, 1] with their labels."""
    shrink = v2.Resize((side, side), interpolation=v2.InterpolationMode.BICUBIC)
    steps = v2.Compose([shrink, v2.PILToTensor()])
    cells = load_dataset("solar_cells", "all", transform=steps)
    return TensorDataset(torch.stack([image for image, _ in cells]) / 255, cells.targets)


def rows_of(task: Task, seed: int) -> list[Tensor]:
    """Return the numbers of the cells for training, validation and test."""
    parts = stratified_split(load_dataset("solar_cells", "all"), task.parts, seed=seed)
    return [torch.tensor(part.indices) for part in parts]


def flipped(images: Tensor, view: str) -> Tensor:
    return images.flip(VIEWS[view]) if VIEWS[view] else images


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Return what a network gives for images."""
    data = TensorDataset(images, torch.zeros(len(images)))
    return predict(model, data, batch_size=64, precision="auto")


def margins(model: nn.Module, images: Tensor) -> Tensor:
    """Return how much higher each image's logit of defective is than that of sound."""
    logits = outputs(model, images)
    return logits[:, 1] - logits[:, 0]


@cache
def pieces() -> tuple[nn.Module, nn.Module]:
    """Return the part of the pretrained network that stays as it is, and the part that trains."""
    network, transform, _ = load_pretrained("efficientnet_lite0")
    early = nn.Sequential(network.conv_stem, network.bn1, network.blocks[:6])
    late = {"stage": network.blocks[6], "conv": network.conv_head, "norm": network.bn2}
    late |= {"pool": network.global_pool, "head": nn.Identity()}
    return Grey(early, transform.transforms[-1]).eval(), nn.Sequential(OrderedDict(late)).eval()


@cache
def features() -> Tensor:
    """Return the frozen features of all views of all cells, `(2624, 4, C, H, W)`."""
    images, _ = photographs(TEACHER_SIDE).tensors
    early, _ = pieces()
    return torch.stack([outputs(early, flipped(images, view)) for view in VIEWS], dim=1)


# The teacher


def fine_tuned(train: TensorDataset, task: Task, seed: int) -> dict[str, nn.Module]:
    """Return the network as it was, as it is after training, and its running averages."""
    seed_everything(seed)
    model = OneView(copy.deepcopy(pieces()[1]))
    model.late.head = nn.Linear(1280, 2)
    start = copy.deepcopy(model)
    averages = {
        str(decay): AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        for decay in EMA
    }
    optimizer = AdamW(param_groups(model, RATES, lr=RATE), weight_decay=DECAY)
    optimizer.register_step_post_hook(
        lambda *_: [average.update_parameters(model) for average in averages.values()]
    )
    steps = task.epochs * -(-len(train) // TEACHER_BATCH)
    highest = [group["lr"] for group in optimizer.param_groups]
    fit(
        model,
        train,
        epochs=task.epochs,
        batch_size=TEACHER_BATCH,
        optimizer=optimizer,
        scheduler=partial(OneCycleLR, max_lr=highest, total_steps=steps),
        scheduler_step="batch",
        precision="float32",
        seed=seed,
    )
    return {"start": start, "last": model} | {k: a.module for k, a in averages.items()}


def with_buffers(average: nn.Module, source: nn.Module) -> nn.Module:
    """Return a copy with averaged parameters and the statistics of another network."""
    copied = copy.deepcopy(average)
    for own, other in zip(copied.buffers(), source.buffers(), strict=True):
        own.copy_(other)
    return copied


def recomputed(average: nn.Module, train: TensorDataset) -> nn.Module:
    """Return a copy whose statistics are means over one pass of the training cells, flipped."""
    copied = copy.deepcopy(average)
    update_bn(DataLoader(train, 32, shuffle=True, drop_last=True), copied)
    return copied.eval()


def teacher_outputs(task: Task, seed: int) -> dict[str, Tensor]:
    """Return the margins of all views of all cells, and those of the averages; trained once."""
    name = "-".join(map(str, (seed, task.epochs, sum(task.parts))))
    file = cache_dir() / "better_at_the_end" / f"{name}.safetensors"
    if file.is_file():
        return read_weights(file)
    cells, labels = features(), photographs(TEACHER_SIDE).tensors[1]
    train, _, test = rows_of(task, seed)
    data = TensorDataset(cells[train], labels[train])
    began = time.process_time()
    networks = fine_tuned(data, task, seed)
    seconds = time.process_time() - began
    last, average = networks["last"], networks["0.98"]
    compared = {
        "0.98, averaged": average,
        "0.98, copied": with_buffers(average, last),
        "0.98, recomputed": recomputed(average, data),
        "0.98, left": with_buffers(average, networks["start"]),
        "0.999, averaged": networks["0.999"],
    }
    found = {"seconds": torch.tensor(seconds)}
    found |= {f"ema {key}": margins(net.eval(), cells[test]) for key, net in compared.items()}
    found |= {f"view {view}": margins(last, cells[:, k]) for k, view in enumerate(VIEWS)}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_weights(found, file)
    return found


# Measures


def calibration_error(labels: np.ndarray, p: np.ndarray, *, strategy: str) -> float:
    """Return the expected calibration error over ten bins of the probability of defective."""
    shares = np.linspace(0, 1, 11)
    edges = shares if strategy == "uniform" else np.quantile(p, shares)
    counts = np.bincount(np.searchsorted(edges[1:-1], p), minlength=10)
    observed, stated = calibration_curve(labels, p, n_bins=10, strategy=strategy)
    return float(np.sum(counts[counts > 0] / len(p) * np.abs(observed - stated)))


def scores(labels: np.ndarray, margin: np.ndarray) -> dict[str, float]:
    p = expit(margin)
    return {
        "accuracy": round(float(np.mean((margin > 0) == labels)), 4),
        "log loss": round(float(log_loss(labels, p)), 4),
        "Brier score": round(float(brier_score_loss(labels, p)), 4),
        "calibration error": round(calibration_error(labels, p, strategy="uniform"), 4),
        "calibration error, quantiles": round(
            calibration_error(labels, p, strategy="quantile"), 4
        ),
    }  # fmt: skip


def best_temperature(labels: np.ndarray, margin: np.ndarray) -> float:
    """Return the temperature with the least log loss."""
    found = minimize_scalar(
        lambda power: log_loss(labels, expit(margin / np.exp(power))),
        bounds=(-3, 3),
        method="bounded",
    )
    return round(float(np.exp(found.x)), 3)


def in_hundredths(values: np.ndarray) -> str:
    """Return numbers as one short text, which keeps the result file small."""
    return " ".join(str(round(100 * value)) for value in values.tolist())


def teacher_run(task: Task, seed: int) -> dict:
    """Measure one teacher: its averages, its views, its probabilities."""
    found = {key: value.double().numpy() for key, value in teacher_outputs(task, seed).items()}
    train, val, test = (rows.numpy() for rows in rows_of(task, seed))
    labels = photographs(TEACHER_SIDE).tensors[1].numpy()
    views = {view: found[f"view {view}"] for view in VIEWS}
    plain, truth = views["upright"], labels[test]
    two = [expit(views[view][test]) for view in ("upright", "left-right")]
    four = [expit(view[test]) for view in views.values()]
    mean = logit(np.mean(four, axis=0).clip(1e-6, 1 - 1e-6))
    parts = {"training": train, "validation": val, "test": test}
    temperatures = {name: best_temperature(labels[r], plain[r]) for name, r in parts.items()}
    kept = {"validation": plain[val], "test": plain[test], "test, four views": mean}
    result = {
        "seed": seed,
        "processor seconds of training": round(float(found["seconds"])),
        "validation accuracy": scores(labels[val], plain[val])["accuracy"],
        "ema": {k[4:]: scores(truth, v) for k, v in found.items() if k.startswith("ema ")},
        "views": {
            "one": scores(truth, plain[test]),
            "two": scores(truth, logit(np.mean(two, axis=0).clip(1e-6, 1 - 1e-6))),
            "four": scores(truth, mean),
            "four, logits": scores(truth, np.mean([v[test] for v in views.values()], axis=0)),
        },
        "temperature": temperatures,
        "scaled": scores(truth, plain[test] / temperatures["validation"]),
        "margins in hundredths": {key: in_hundredths(value) for key, value in kept.items()},
    }
    if seed == 0:  # what the chapter on distillation trains a student with
        result["training margins in hundredths"] = {
            view: in_hundredths(values[train]) for view, values in views.items()
        }
    return result


def main() -> None:
    """Train the seeds that are not stored yet, and print, or store, what is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    parser.add_argument("--images", type=int, help="fewer photographs, to try it out")
    parser.add_argument("--epochs", type=int, default=TEACHER_EPOCHS)
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    task = Task(options.images, options.epochs)
    for seed in options.seeds:
        if seed in [run["seed"] for run in stored_result(NAME).get("runs", [])]:
            continue
        run = teacher_run(task, seed)
        # A try may lead to other settings, so it shows nothing of the test photographs.
        tried = ("seed", "processor seconds of training", "validation accuracy")
        shown = [key for key in run if options.write or key in tried]
        print({key: run[key] for key in shown if "hundredths" not in key}, flush=True)
        if options.write:
            stored = stored_result(NAME)  # another process may have added to it
            runs = [*stored.get("runs", []), run]
            about = {"pixels": TEACHER_SIDE, "epochs": task.epochs, "parts": list(task.parts)}
            about["steps"] = task.epochs * -(-task.parts[0] // TEACHER_BATCH)
            write_result(NAME, about | {"runs": sorted(runs, key=lambda run: run["seed"])})


if __name__ == "__main__":
    main()
