"""What a network forgets when it is tuned to another task, and what each remedy gives up for it.

SlimVGG learns five classes of Fashion-MNIST (the source) and is then tuned to the other five (the
target) with 20 images of each, behind a second, fresh head. The source's own head stays as it was,
so what falls is what the shared body has lost. Every way is trained at several strengths; which of
them counts is chosen, for each seed anew, by the mean of source and target accuracy on validation
images out of the training split. Only the chosen networks see the test images, once.

    python -m benchmarks.forgetting [--seeds 0 1 2 3 4] [--quick | --write]

Seeds that are in the result file already are not run again.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from benchmarks.results import stored_result, write_result
from tlbook import (
    SlimVGG,
    evaluate,
    few_shot_subset,
    fit,
    freeze,
    load_dataset,
    replace,
    stratified_split,
    trainable_parameters,
)
from tlbook.weights import FASHION_MEAN, FASHION_SD, FASHION_SOURCE

TARGET = tuple(label for label in range(10) if label not in FASHION_SOURCE)
SOURCE_IMAGES, TARGET_IMAGES, VALIDATION = 500, 20, 100  # of each class
SOURCE_EPOCHS, EPOCHS, BATCH, RATE = 6, 15, 20, 0.02
STRENGTHS = (0.1, 0.3, 1.0, 3.0)
KEPT = (5, 20, 100)  # source images of each class that rehearsal may keep
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of the tuned weights, in an average with the start
FAMILIES = (
    "fine-tuned", "statistics held", "weight decay", "L2-SP", "L2-SP, statistics held",
    "rehearsal", "first half frozen", "body frozen", "averaged", "averaged, statistics held",
    "averaged, head fitted first",
)  # fmt: skip


class TwoHeads(nn.Module):
    """A shared body with the head of the old task and one of the new task."""

    def __init__(self, body: nn.Module, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.body, self.old, self.new = body, old, new

    def forward(self, x: Tensor, old: bool = False) -> Tensor:
        """Map images `(N, 1, 28, 28)` to the new task's logits `(N, 5)`, or the old one's."""
        return (self.old if old else self.new)(self.body(x))


class Data(NamedTuple):
    """Images and labels of both tasks; labels count from 0 in each."""

    source: TensorDataset
    source_val: TensorDataset
    target: TensorDataset
    target_val: TensorDataset


Pull = Callable[[nn.Module], None]
Tuned = tuple[str, float, TwoHeads]


def only(split: str, classes: tuple[int, ...]) -> TensorDataset:
    """Return the normalised images `(N, 1, 28, 28)` of some classes, which count from 0 anew."""
    images, targets = load_dataset("fashion_mnist", split).tensors
    known = torch.tensor(classes)
    chosen = torch.isin(targets, known)
    normalised = (images[chosen] - FASHION_MEAN) / FASHION_SD
    return TensorDataset(normalised, torch.searchsorted(known, targets[chosen]))


def in_memory(part: Subset) -> TensorDataset:
    rows = torch.tensor(part.indices)
    return TensorDataset(*(tensor[rows] for tensor in part.dataset.tensors))


def drawn(seed: int, source_images: int) -> Data:
    """Draw training and validation images of both tasks; nothing of the test split."""
    parts = []
    for classes, count in ((FASHION_SOURCE, source_images), (TARGET, TARGET_IMAGES)):
        sizes = (len(classes) * count, len(classes) * VALIDATION)
        for part in stratified_split(only("train", classes), sizes, seed=seed):
            parts.append(in_memory(part))
    return Data(*parts)


def source_network(data: Data, seed: int, epochs: int) -> TwoHeads:
    """Train SlimVGG on the source and give it a fresh second head."""
    torch.manual_seed(seed)
    network = SlimVGG(num_classes=len(FASHION_SOURCE))
    fit(network, data.source, epochs=epochs, progress=False, seed=seed)
    old = network.classifier[3]
    body = replace(network, "classifier.3", nn.Identity())
    return TwoHeads(body, old, nn.Linear(old.in_features, len(TARGET)))


def tune(
    model: TwoHeads,
    data: TensorDataset,
    seed: int,
    *,
    epochs: int,
    pull: Pull | None = None,
    memory: TensorDataset | None = None,
) -> TwoHeads:
    """Train what is not frozen on the target, with a pull or old images in every step."""
    optimizer = torch.optim.SGD(trainable_parameters(model), lr=RATE, momentum=0.9)
    torch.manual_seed(seed)  # of dropout
    order = torch.Generator().manual_seed(seed)
    images, labels = data.tensors
    for rows in (r for _ in range(epochs) for r in shuffled(len(labels), order)):
        model.train()
        loss = joint_loss(model, images[rows], labels[rows], memory, order)
        optimizer.zero_grad()
        loss.backward()
        if pull is not None:
            pull(model)  # before the step, with the old weights: as AdamW does with weight decay
        optimizer.step()
    return model.eval()


def shuffled(count: int, order: torch.Generator) -> Iterator[Tensor]:
    yield from torch.randperm(count, generator=order).split(BATCH)


def joint_loss(
    model: TwoHeads,
    images: Tensor,
    labels: Tensor,
    memory: TensorDataset | None,
    order: torch.Generator,
) -> Tensor:
    """Return the target's loss, plus the source's on as many kept images where there are some."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if memory is None:
            return F.cross_entropy(model(images).float(), labels)
        old_images, old_labels = memory.tensors
        rows = torch.randint(len(old_labels), (len(labels),), generator=order)
        # One batch for both, so that BatchNorm sees the two tasks together.
        features = model.body(torch.cat([images, old_images[rows]]))
        new, old = model.new(features[: len(labels)]), model.old(features[len(labels) :])
    return F.cross_entropy(new.float(), labels) + F.cross_entropy(old.float(), old_labels[rows])


def pull_to(start: dict[str, Tensor], strength: float) -> Pull:
    """Return L2-SP in its decoupled form: a step towards the start, for what has a start."""

    @torch.no_grad()
    def pull(model: nn.Module) -> None:
        for name, parameter in model.body.named_parameters():
            parameter.lerp_(start[name], RATE * strength)

    return pull


def pull_to_zero(strength: float) -> Pull:
    """Return decoupled weight decay on the same parameters."""

    @torch.no_grad()
    def pull(model: nn.Module) -> None:
        for parameter in model.body.parameters():
            parameter.mul_(1 - RATE * strength)

    return pull


def held(model: TwoHeads) -> TwoHeads:
    """Hold every BatchNorm of the body in evaluation mode; its weight and bias train on."""
    kinds = nn.BatchNorm1d | nn.BatchNorm2d
    paths = [f"body.{p}" for p, m in model.body.named_modules() if isinstance(m, kinds)]
    for path in paths:
        freeze(model, path).get_submodule(path).requires_grad_(True)
    return model


def average(start: TwoHeads, end: TwoHeads, share: float) -> TwoHeads:
    """Return a network between two; what does not float, such as counters, is the end's."""
    between = copy.deepcopy(end)
    first, second = start.state_dict(), end.state_dict()
    mixed = {
        name: torch.lerp(first[name], value, share) if value.is_floating_point() else value
        for name, value in second.items()
    }
    between.load_state_dict(mixed)
    return between


def averages(name: str, start: TwoHeads, end: TwoHeads) -> Iterator[Tuned]:
    for share in SHARES:
        yield name, share, average(start, end, share)


def all_ways(start: TwoHeads, data: Data, seed: int, epochs: int) -> Iterator[Tuned]:
    """Yield name, strength and network of every way at every strength."""

    def new() -> TwoHeads:
        model = copy.deepcopy(start)
        model.old.requires_grad_(False)
        return model

    def run(model: TwoHeads, **settings: Any) -> TwoHeads:
        return tune(model, data.target, seed, epochs=epochs, **settings)

    body = {name: p.detach().clone() for name, p in start.body.named_parameters()}
    plain, still = run(new()), run(held(new()))
    yield "fine-tuned", 0.0, plain
    yield "statistics held", 0.0, still
    for strength in STRENGTHS:
        yield "weight decay", strength, run(new(), pull=pull_to_zero(strength))
        yield "L2-SP", strength, run(new(), pull=pull_to(body, strength))
        yield "L2-SP, statistics held", strength, run(held(new()), pull=pull_to(body, strength))
    for count in KEPT:
        kept = in_memory(few_shot_subset(data.source, count, seed=seed))
        yield "rehearsal", float(count), run(new(), memory=kept)
    half = [f"body.features.{i}" for i in range(8)]  # up to the first pooling and dropout
    yield "first half frozen", 0.0, run(freeze(new(), *half))
    fitted = run(freeze(new(), "body"))
    yield "body frozen", 0.0, copy.deepcopy(fitted)
    yield from averages("averaged", joined(start, plain), plain)
    yield from averages("averaged, statistics held", joined(start, still), still)
    begun, ended = joined(start, fitted), run(joined(new(), fitted))
    yield from averages("averaged, head fitted first", begun, ended)


def joined(start: TwoHeads, end: TwoHeads) -> TwoHeads:
    """Return the start with the end's new head, which has no start of its own."""
    model = copy.deepcopy(start)
    model.new.load_state_dict(end.new.state_dict())
    return model


def both(model: TwoHeads, source: TensorDataset, target: TensorDataset) -> dict[str, float]:
    """Return the accuracy on both tasks, each by its own head."""
    old = nn.Sequential(model.body, model.old)
    new = nn.Sequential(model.body, model.new)
    return {
        "source": round(evaluate(old, source, precision="auto").accuracy, 4),
        "target": round(evaluate(new, target, precision="auto").accuracy, 4),
    }


def one_seed(seed: int, *, quick: bool = False) -> dict[str, Any]:
    """Train every way from one seed; the chosen networks look at the test images once."""
    data = drawn(seed, max(KEPT) if quick else SOURCE_IMAGES)
    start = source_network(data, seed, 1 if quick else SOURCE_EPOCHS).eval()
    curves: dict[str, list[dict]] = {name: [] for name in FAMILIES}
    best: dict[str, tuple[float, float, TwoHeads]] = {}
    for name, strength, model in all_ways(start, data, seed, 1 if quick else EPOCHS):
        row = both(model, data.source_val, data.target_val)
        curves[name].append({"strength": strength, **row})
        score = row["source"] + row["target"]
        if name not in best or score > best[name][0]:
            best[name] = (score, strength, model)
    tests = only("test", FASHION_SOURCE), only("test", TARGET)
    return {
        "seed": seed,
        "start, validation": both(start, data.source_val, data.target_val),
        "start, test": both(start, *tests),
        "validation": curves,
        "test": {name: {"strength": s} | both(m, *tests) for name, (_, s, m) in best.items()},
    }


def main() -> None:
    """Run every seed that is asked for and print, or store, what it finds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--quick", action="store_true", help="few images, to try it out")
    either.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    for seed in options.seeds:
        runs = stored_result("forgetting").get("runs", []) if options.write else []
        if seed in [run["seed"] for run in runs]:
            continue
        start = time.perf_counter()
        run = one_seed(seed, quick=options.quick)
        run["seconds"] = round(time.perf_counter() - start)
        print(seed, run["seconds"], "s", run["start, test"], run["test"], flush=True)
        if options.write:
            write_result("forgetting", {"runs": sorted([*runs, run], key=lambda r: r["seed"])})


if __name__ == "__main__":
    main()
