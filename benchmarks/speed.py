"""What channels-last, bfloat16, compilation, memory and workers gain, and how much is left.

Networks, layouts and number formats take turns, one step each a round, beside a matrix product:
gains are medians of ratios within a round, so that a busy moment slows both sides of each. A
multiplication with its addition counts as two operations, a training step as three forward passes.

    python -m benchmarks.speed [--parts feeding ...] [--rounds 5] [--write]
"""

import argparse
import functools
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.models import mobilenet_v3_small, resnet18
from torchvision.transforms import v2

from benchmarks.results import stored_result, write_result
from tlbook import HybridNet, evaluate, fit, load_dataset, replace_stem, stratified_split, summary
from tlbook.batches import TensorBatches

SIDE = 2048  # of the matrices whose product says what the processor can do
SEEDS = 3
BATCH = 64  # images per step where the data are compared


class Case(NamedTuple):
    """A network and a batch `(N, C, H, W)` for it."""

    build: Callable[[], nn.Module]
    batch: tuple[int, int, int, int]
    compiled: bool = True


class Way(NamedTuple):
    """How a network is run."""

    channels_last: bool = False
    bfloat16: bool = False
    compiled: bool = False


CASES = {
    "HybridNet, 32 pixels": Case(HybridNet, (64, 1, 32, 32)),
    "ResNet-18, 224 pixels": Case(functools.partial(resnet18, num_classes=10), (16, 3, 224, 224)),
    "MobileNetV3-small, 128 pixels": Case(
        functools.partial(mobilenet_v3_small, num_classes=10), (32, 3, 128, 128), compiled=False
    ),
}
WAYS = {
    "float32": Way(),
    "channels-last": Way(channels_last=True),
    "bfloat16": Way(bfloat16=True),
    "both": Way(channels_last=True, bfloat16=True),
    "both, compiled": Way(channels_last=True, bfloat16=True, compiled=True),
}
PARTS = {
    "convolution": lambda: nn.Conv2d(64, 64, 3, padding=1, bias=False),
    "BatchNorm and ReLU": lambda: nn.Sequential(nn.BatchNorm2d(64), nn.ReLU()),
    "depthwise 3 x 3": lambda: nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False),
    "depthwise 3 x 3, stride 2": lambda: nn.Conv2d(64, 64, 3, 2, 1, groups=64, bias=False),
    "depthwise 5 x 5": lambda: nn.Conv2d(64, 64, 5, 1, 2, groups=64, bias=False),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def steps(case: Case, way: Way) -> dict[str, Callable[[], object]]:
    """Return two calls: one training step, and one forward pass of the same network."""
    torch.manual_seed(0)
    model, images = case.build(), torch.randn(case.batch)
    labels = torch.randint(10, case.batch[:1])
    if way.channels_last:
        model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    if way.compiled:
        model.compile()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16, enabled=way.bfloat16)

    def train() -> None:
        model.train()
        with autocast():
            outputs = model(images)
        optimizer.zero_grad()
        F.cross_entropy(outputs.float(), labels).backward()
        optimizer.step()

    def forward() -> None:
        model.eval()
        with torch.inference_mode(), autocast():
            model(images)

    return {"training": train, "forward": forward}


def product(dtype: torch.dtype) -> Callable[[], object]:
    """Return a call that multiplies two square matrices."""
    left, right = torch.randn(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(dtype)
    return functools.partial(torch.mm, left, right)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def race(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every call in each round; they take turns."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def relative(times: dict[str, list[float]], base: str) -> dict[str, float]:
    """Return how many times as fast as `base` each is: the median over the rounds."""
    return {
        name: round(statistics.median(b / t for b, t in zip(times[base], values, strict=True)), 2)
        for name, values in times.items()
    }


def network(case: Case, rounds: int) -> dict:
    """Measure one network, trained and forward only, in every way."""
    ways = {name: way for name, way in WAYS.items() if case.compiled or not way.compiled}
    calls = {name: steps(case, way) for name, way in ways.items()}
    products = {name: product(dtype) for name, dtype in DTYPES.items() if name != "float16"}
    mult_adds = summary(case.build(), (1, *case.batch[1:])).total_mult_adds
    measured = {"batch": list(case.batch), "mult-adds": mult_adds}
    for kind, passes in {"training": 3, "forward": 1}.items():
        racers = {name: call[kind] for name, call in calls.items()}
        first = {name: round(seconds(call), 2) for name, call in racers.items()}
        race(racers, 1)  # the second step still allocates
        times = race(racers | {f"product {name}": call for name, call in products.items()}, rounds)
        work = 2 * passes * mult_adds * case.batch[0]
        best = {name: min(times[name]) for name in ways}
        peak = {name: 2 * SIDE**3 / min(times[f"product {name}"]) for name in products}
        same_type = {name: peak["bfloat16" if way.bfloat16 else "float32"]
                     for name, way in ways.items()}  # fmt: skip
        measured[kind] = {
            "relative to float32": relative({name: times[name] for name in ways}, "float32"),
            "images per second": {name: round(case.batch[0] / best[name], 1) for name in ways},
            "first step, seconds": first,
            "matrix product, TFLOP/s": {name: round(peak[name] / 1e12, 4) for name in products},
            "share of matrix product": {
                name: round(work / best[name] / same_type[name], 3) for name in ways
            },
        }
    return measured


def by_part(rounds: int) -> dict[str, dict[str, float]]:
    """Return what channels-last with bfloat16 gains for single layers, trained and forward only."""
    gains = {"training": {}, "forward": {}}
    for name, build in PARTS.items():
        calls = {}
        for way in ("float32", "both"):
            layer, x = build(), torch.randn(16, 64, 56, 56)
            if way == "both":
                layer.to(memory_format=torch.channels_last)
                x = x.to(torch.bfloat16, memory_format=torch.channels_last)
            calls[way] = functools.partial(_passes, layer, x.requires_grad_(), way == "both")
        for kind, found in gains.items():
            racers = {way: functools.partial(call, kind) for way, call in calls.items()}
            race(racers, 2)
            found[name] = relative(race(racers, 3 * rounds), "float32")["both"]
    return gains


def _passes(layer: nn.Module, x: Tensor, bfloat16: bool, kind: str) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        outputs = layer(x)
    if kind == "training":
        outputs.backward(torch.ones_like(outputs))


def matrix_product(rounds: int) -> dict[str, float]:
    """Return the TFLOP/s of a product of two square matrices in each number format."""
    products = {name: product(dtype) for name, dtype in DTYPES.items()}
    race(products, 1)
    times = race(products, 2 * rounds)
    return {name: round(2 * SIDE**3 / min(values) / 1e12, 3) for name, values in times.items()}


class Photographs(Dataset):
    """Pictures that are decoded, cropped and scaled each time they are read."""

    def __init__(self, count: int) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize((320, 240)).save(file, "JPEG")
        self.file, self.count = file.getvalue(), count
        self.transform = v2.Compose([
            v2.RandomResizedCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
            v2.Grayscale(),
        ])  # fmt: skip

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(io.BytesIO(self.file)).convert("RGB")), index % 10


def epoch(batches: Iterable, train: bool) -> Callable[[], object]:
    """Return a call that reads all batches once, and trains a small network on them if asked."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1),
        nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def run() -> None:
        for images, labels in batches:
            if train:
                optimizer.zero_grad()
                F.cross_entropy(model(images), labels).backward()
                optimizer.step()

    return run


def feeding(rounds: int) -> dict:
    """Measure where batches come from: indexed in memory, or loaders with workers."""
    tensors = TensorDataset(torch.rand(8192, 1, 32, 32), torch.arange(8192) % 10)
    measured = {}
    for name, data in {"tensors": tensors, "photographs": Photographs(1024)}.items():
        sources = {"in memory": TensorBatches(*tensors.tensors, batch_size=BATCH, shuffle=True)}
        if name == "photographs":
            sources = {}
        for workers in (0, 1, 2, 4):
            sources[f"{workers} workers"] = DataLoader(
                data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
            )
        for kind in ("reading", "training"):
            calls = {key: epoch(source, kind == "training") for key, source in sources.items()}
            race(calls, 1)  # starts the workers
            times = race(calls, rounds)
            measured[f"{name}, {kind}"] = {
                "relative to 0 workers": relative(times, "0 workers"),
                "images per second": {key: round(len(data) / min(t)) for key, t in times.items()},
            }
    return measured


def threads(rounds: int) -> dict[str, float]:
    """Return the speed of a training step of HybridNet by threads, relative to one.

    The counts take no turns: the first steps after a change of threads are slow.
    """
    train = steps(CASES["HybridNet, 32 pixels"], WAYS["both"])["training"]
    usual, fastest = torch.get_num_threads(), {}
    for count in (1, os.cpu_count(), 2 * os.cpu_count()):
        torch.set_num_threads(count)
        race({"after the change": train}, 3)
        fastest[count] = min(race({"timed": train}, 2 * rounds)["timed"])
    torch.set_num_threads(usual)
    return {str(count): round(fastest[1] / time, 2) for count, time in fastest.items()}


def accuracies(seeds: int) -> dict[str, list[float]]:
    """Train ResNet-18 on 2,000 small images in both formats; return validation accuracies."""
    everything = load_dataset("fashion_mnist", "train")
    train, val = stratified_split(everything, (2000, 2000), seed=0)
    found = {"float32": [], "bfloat16": []}
    for seed in range(seeds):
        for precision, values in found.items():
            torch.manual_seed(seed)
            model = replace_stem(resnet18(num_classes=10), in_channels=1)
            fit(
                model, train, epochs=4, batch_size=100, precision=precision, seed=seed,
                scheduler=functools.partial(CosineAnnealingLR, T_max=80), scheduler_step="batch",
            )  # fmt: skip
            values.append(round(evaluate(model, val, precision=precision).accuracy, 4))
    return found


def main() -> None:
    """Measure everything, or the parts that are named; print it, and store it if asked."""
    everything = {
        "matrix product, TFLOP/s": matrix_product,
        **{name: functools.partial(network, case) for name, case in CASES.items()},
        "gain of both, by part": by_part,
        "feeding": feeding,
        "threads, relative to one": threads,
        "accuracy of ResNet-18, 28 pixels": lambda rounds: accuracies(SEEDS),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=everything, default=list(everything))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    measured = stored_result("speed") if options.write else {}
    cache = tempfile.TemporaryDirectory()  # what the compiler kept from another run costs no time
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
    for name in options.parts:
        start = time.perf_counter()
        measured[name] = everything[name](options.rounds)
        measured.setdefault("threads", {})[name] = torch.get_num_threads()
        print(f"{name} ({time.perf_counter() - start:.0f} s)", measured[name], flush=True)
    if options.write:
        write_result("speed", measured | {"rounds": options.rounds})


if __name__ == "__main__":
    main()
