"""What a small network gains from a large one: students on labels alone, and distilled.

The teachers are the fine-tuned networks of `benchmarks.better_at_the_end`, one for each seed, with
the same parts: 1,568 solar cells to train on, 656 that only measure. Students are `SlimVGG` on 32
and 64 pixels. For one seed and size, all arms start from the same weights and see the same four
flips of the same photographs, in the same order and for the same number of steps.

Only the targets differ: labels; labels smoothed by 0.1; or a tenth of the labels and nine tenths
of the teacher at temperature 4. Smoothing is the control, soft targets that know nothing of the
image, on 32 pixels only. No setting was tuned.

    python -m benchmarks.distillation [--seeds 0 1 2 3 4] [--sides 32 64] [--write]
    python -m benchmarks.distillation --seeds 0 --sides 32 --images 96 --epochs 1 --passes 1

The second line is a try. Runs that are in the result file already are not done again. Teachers
are trained where the cache folder does not hold their outputs. With the teachers there, training
takes about 20 minutes of processor time, two thirds of it for the students on 64 pixels.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset

from benchmarks.better_at_the_end import (
    DECAY,
    TEACHER_EPOCHS,
    TEACHER_SIDE,
    VIEWS,
    Grey,
    Task,
    flipped,
    margins,
    photographs,
    rows_of,
    scores,
    teacher_outputs,
)
from benchmarks.results import stored_result, write_result
from tlbook import SlimVGG, fit, load_pretrained, seed_everything

PASSES = {32: 3, 64: 2}  # over all four views of the training photographs
BATCH, RATE = 64, 2e-3
TEMPERATURE, SHARE, SMOOTHING = 4.0, 0.9, 0.1
ARMS = {32: ("labels", "smoothed", "distilled"), 64: ("labels", "distilled")}


class Arm(nn.Module):
    """The loss of one arm; targets hold the label and, behind it, the teacher's logits."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.share = SHARE if name == "distilled" else 0.0
        self.smoothing = SMOOTHING if name == "smoothed" else 0.0

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits `(N, 2)` and targets `(N, 3)`."""
        labels, theirs = targets[:, 0].long(), targets[:, 1:]
        hard = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        soft = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, dim=1),
            F.log_softmax(theirs / TEMPERATURE, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.share) * hard + self.share * TEMPERATURE**2 * soft


def targets_for(task: Task, seed: int, rows: Tensor, side: int) -> TensorDataset:
    """Return all views of some cells, each with its label and the teacher's logits for it."""
    images, labels = (tensor[rows] for tensor in photographs(side).tensors)
    found = teacher_outputs(task, seed)
    columns = []
    for view in VIEWS:
        half = found[f"view {view}"][rows] / 2
        columns.append(torch.stack([labels.float(), -half, half], dim=1))
    return TensorDataset(torch.cat([flipped(images, view) for view in VIEWS]), torch.cat(columns))


def student_run(task: Task, side: int, arm: str, seed: int, passes: int) -> dict:
    """Train one student and look at the test images once."""
    train, val, test = rows_of(task, seed)
    data = targets_for(task, seed, train, side)
    seed_everything(seed)
    model = SlimVGG(num_classes=2, image_size=side)
    model.compile()
    began = time.process_time()
    fit(
        model,
        data,
        epochs=passes,
        batch_size=BATCH,
        optimizer=partial(AdamW, lr=RATE, weight_decay=DECAY),
        scheduler=partial(
            OneCycleLR,
            max_lr=RATE,
            total_steps=passes * -(-len(data) // BATCH),
        ),
        scheduler_step="batch",
        criterion=Arm(arm),
        seed=seed,
    )
    seconds = time.process_time() - began
    images, labels = photographs(side).tensors
    with torch.compiler.set_stance("force_eager"):  # not worth compiling: these are few images
        found = margins(model, images[test]).double().numpy()
        checked = (margins(model, images[val]) > 0) == labels[val]
    theirs = teacher_outputs(task, seed)["view upright"][test].numpy()
    return {
        "arm": arm,
        "seed": seed,
        "validation accuracy": round(checked.double().mean().item(), 4),
        **scores(labels[test].numpy(), found),
        "agreement with the teacher": round(float(np.mean((found > 0) == (theirs > 0))), 4),
        "processor seconds of training": round(seconds),
    }


def costs(model: nn.Module, side: int) -> dict:
    """Return the parameters of a network, and how many images it judges in a second."""
    images = torch.rand(256, 1, side, side)
    seconds = []
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        margins(model.eval(), images)
        seconds.append(time.perf_counter() - began)
    return {
        "pixels": side,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "images per second": round(len(images) / min(seconds[1:])),
    }


def all_costs() -> dict[str, dict]:
    network, transform, _ = load_pretrained("efficientnet_lite0", num_classes=2)
    students = {side: SlimVGG(num_classes=2, image_size=side) for side in PASSES}
    return {
        "teacher": costs(Grey(network, transform.transforms[-1]), TEACHER_SIDE),
        **{str(side): costs(student, side) for side, student in students.items()},
    }


def is_stored(side: int, arm: str, seed: int) -> bool:
    runs = stored_result("distillation").get(str(side), {}).get("runs", [])
    return (arm, seed) in [(run["arm"], run["seed"]) for run in runs]


def store(side: int, run: dict) -> None:
    """Add a run to the result file as it is now: another process may have added to it."""
    stored = stored_result("distillation") or all_costs()
    runs = [*stored[str(side)].get("runs", []), run]
    stored[str(side)]["runs"] = sorted(runs, key=lambda run: (run["seed"], run["arm"]))
    write_result("distillation", stored)


def main() -> None:
    """Train the students that are not stored yet, and print, or store, each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    parser.add_argument("--sides", nargs="*", type=int, default=list(PASSES))
    parser.add_argument("--images", type=int, help="fewer photographs, to try it out")
    parser.add_argument("--epochs", type=int, default=TEACHER_EPOCHS, help="of the teacher")
    parser.add_argument("--passes", type=int, help="of the students over all four views")
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    task = Task(options.images, options.epochs)
    for side in options.sides:
        torch.compiler.reset()  # what was compiled for the other size is of no use
        for seed in options.seeds:
            for arm in ARMS[side]:
                if is_stored(side, arm, seed):
                    continue
                run = student_run(task, side, arm, seed, options.passes or PASSES[side])
                # A try may lead to other settings, so it shows nothing of the test photographs.
                tried = ("arm", "seed", "processor seconds of training", "validation accuracy")
                shown = [key for key in run if options.write or key in tried]
                print(side, {key: run[key] for key in shown}, flush=True)
                if options.write:
                    store(side, run)


if __name__ == "__main__":
    main()
