"""How fast `fit` trains, against loops that people write and libraries that people use.

Every contender trains the same small CNN on the same 4096 images of 1x28x28 for the same epochs,
float32 unless its name says otherwise. Rounds are interleaved and reported as ratios to the
hand-written DataLoader loop of the same round, because single times mean nothing on a busy
machine. Peers that are not installed are left out by name (benchmarks/requirements.txt).

    python -m benchmarks.fit_speed [--rounds 7] [--write]
"""

import argparse
import functools
import importlib.util
import statistics
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.results import write_result
from tlbook import fit

BATCH = 128
EPOCHS = 2


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def small_data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4096, 1, 28, 28, generator=generator)
    return TensorDataset(images, torch.randint(10, (4096,), generator=generator))


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def hand_written(data: TensorDataset) -> None:
    model, criterion = small_cnn(), nn.CrossEntropyLoss()
    optimizer = sgd(model.parameters())
    loader = DataLoader(data, BATCH, shuffle=True)
    for _ in range(EPOCHS):
        model.train()
        loss_sum, correct = 0.0, 0
        for inputs, targets in loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(targets)
            correct += (outputs.argmax(1) == targets).sum().item()


def with_fit(data: TensorDataset, precision: str) -> None:
    fit(
        small_cnn(), data, epochs=EPOCHS, batch_size=BATCH, optimizer=sgd,
        precision=precision, progress=False,
    )  # fmt: skip


def with_accelerate(data: TensorDataset) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    model, criterion = small_cnn(), nn.CrossEntropyLoss()
    model, optimizer, loader = accelerator.prepare(
        model, sgd(model.parameters()), DataLoader(data, BATCH, shuffle=True)
    )
    for _ in range(EPOCHS):
        loss_sum, correct = 0.0, 0
        for inputs, targets in loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            accelerator.backward(loss)
            optimizer.step()
            loss_sum += loss.item() * len(targets)
            correct += (outputs.argmax(1) == targets).sum().item()


def with_skorch(data: TensorDataset) -> None:
    from skorch import NeuralNetClassifier

    NeuralNetClassifier(
        small_cnn(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=0.01,
        optimizer__momentum=0.9, batch_size=BATCH, max_epochs=EPOCHS, train_split=None,
        iterator_train__shuffle=True, verbose=0,
    ).fit(*data.tensors)  # fmt: skip


CONTENDERS = {
    "DataLoader loop by hand": hand_written,
    "fit, float32": functools.partial(with_fit, precision="float32"),
    "fit, auto precision": functools.partial(with_fit, precision="auto"),
    "accelerate": with_accelerate,
    "skorch": with_skorch,
}


def measure(rounds: int) -> dict[str, list[float]]:
    """Return for every contender its speed in each round, relative to the loop by hand."""
    data = small_data()
    names = [n for n in CONTENDERS if n != "skorch" or importlib.util.find_spec("skorch")]
    for name in names:  # warm-up: lazy imports, allocator, oneDNN's kernels
        CONTENDERS[name](data)
    speeds = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            start = time.perf_counter()
            CONTENDERS[name](data)
            speeds[name].append(EPOCHS * len(data) / (time.perf_counter() - start))
    base = speeds["DataLoader loop by hand"]
    return {n: [v / b for v, b in zip(values, base, strict=True)] for n, values in speeds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="store the result file")
    arguments = parser.parse_args()
    ratios = measure(arguments.rounds)
    medians = {name: round(statistics.median(values), 2) for name, values in ratios.items()}
    for name, ratio in medians.items():
        print(f"{name:28} {ratio:5.2f}")
    if arguments.write:
        write_result("fit_speed", {"speed relative to the loop by hand": medians,
                                   "rounds": arguments.rounds})  # fmt: skip


if __name__ == "__main__":
    main()
