"""Features of a frozen network, computed once and kept on disk.

What is kept goes by a hash of the weights, the preprocessing and the data, and one example is
computed again at each use, so that what has changed is never taken for what is stored.
"""

import contextlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from tqdm import tqdm

from tlbook import runtime
from tlbook.checkpoint import get_random_state, set_random_state
from tlbook.cutting import feature_extractor, split_at
from tlbook.files import WeightsError, read_weights, save_weights, whole_file
from tlbook.fingerprints import data_digest, digest, draws_at_random, model_digest
from tlbook.loop import device_of, forward_batches
from tlbook.probes import linear_probe, to_linear

__all__ = [
    "FeatureDataset",
    "extract_features",
    "feature_extractor",
    "linear_probe",
    "split_at",
    "to_linear",
]

CHUNK = 128  # examples between two writes: what an interrupted run may have to do again
FORMAT = 1  # of the stored files; another number makes the older ones count for nothing
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}  # of a feature computed again, relative


class FeatureDataset(TensorDataset):
    """Features and targets in memory or mapped from a file, which `fit` batches by indexing.

    Attributes:
        tensors: features (N, ...), float32, and targets (N, ...).
        targets: the targets again.
        examples: int64 tensor (N,): the item of the dataset that a row was made from.
        classes: names, where the dataset has names.
    """

    def __init__(self, features: Tensor, targets: Tensor, dataset: Dataset) -> None:
        super().__init__(features, targets)
        self.targets = targets
        self.examples = torch.arange(len(features)) % len(dataset)
        if hasattr(dataset, "classes"):
            self.classes = list(dataset.classes)


def extract_features(
    model: nn.Module,
    dataset: Dataset,
    *,
    node: str | None = None,
    cache: str | Path | None = None,
    views: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    num_workers: int = 0,
    device: str | torch.device | None = None,
    precision: str = "auto",
    progress: bool | None = None,
) -> FeatureDataset:
    """Run a network over a dataset once, in evaluation mode, and return its outputs.

    With `cache` they stay on disk and are mapped from there the next time, also when larger than
    the memory. An interrupted call goes on where it stopped. A changed weight, image, label or
    transform is noticed by its content: files and tensors are hashed, of a dataset of another
    kind (or with a lambda in its transform) all items, which takes reading them.

    Args:
        model: gives one tensor for a batch; modes, weights and statistics stay as they are.
        dataset: pairs (input, target).
        node: compute the output of this node (`feature_extractor`); None is the model's output.
        cache: folder to keep results in, which may be deleted at any time; None keeps nothing.
        views: how often to draw each example from a dataset with a random transform. Row
            `v * len(dataset) + i` is view v of example i.
        seed: of the views; view v of example i is the same in every call.
        batch_size: examples per batch.
        num_workers: processes that load; 0 loads in this one.
        device: None stays where the model is.
        precision: "auto" (`best_precision`), "float32" or "bfloat16".
        progress: a progress bar; None shows one where somebody watches.

    Returns:
        Features (N, ...) in float32 and targets in the dataset's order. Divide into training and
        validation data before you draw views, or both will hold views of one example.

    Raises:
        ValueError: if a dataset that draws at random is to be seen once, or one that does not
            several times; if the model's output is not a tensor; if there is no such node.

    Example:
        >>> data = TensorDataset(torch.rand(5, 1, 4, 4), torch.arange(5))
        >>> features, targets = extract_features(nn.Flatten(), data).tensors
        >>> features.shape, targets.tolist()
        (torch.Size([5, 16]), [0, 1, 2, 3, 4])
    """
    part = model if node is None else feature_extractor(model, node)
    device = device_of(model) if device is None else torch.device(device)
    number_format = runtime.precision(precision, device).name
    with _unchanged_random_state():
        rows = _rows(dataset, views, seed)
        bar = tqdm(total=len(rows), unit=" examples", disable=not runtime.is_watched(progress))
        with bar:
            run = _Run(part, rows, batch_size, num_workers, device, number_format, bar)
            if cache is None:
                return FeatureDataset(*_joined(map(run.compute, run.spans())), dataset)
            drawn = (views, seed) if views > 1 else ()
            origin = model_digest(part), data_digest(dataset, rows)
            key = digest(FORMAT, *origin, drawn, number_format)
            return FeatureDataset(*_Store(Path(cache).expanduser() / key, run).fill(), dataset)


class _Views(Dataset):
    """A dataset several times over, each item with a seed of its own whoever reads it when."""

    def __init__(self, dataset: Dataset, views: int, seed: int) -> None:
        self.dataset, self.views, self.seed = dataset, views, seed

    def __len__(self) -> int:
        return self.views * len(self.dataset)

    def __getitem__(self, row: int) -> Any:
        view, index = divmod(row, len(self.dataset))
        entropy = np.random.SeedSequence((self.seed, view, index))
        runtime.seed_everything(int(entropy.generate_state(1)[0]))
        return self.dataset[index]


def _rows(dataset: Dataset, views: int, seed: int) -> Dataset:
    """Return the items to run the network on, one for each row of features."""
    if len(dataset) == 0 or views < 1:
        raise ValueError(f"{len(dataset)} examples, {views} views: expected at least one of each")
    is_random = draws_at_random(dataset)
    if is_random and views == 1:
        raise ValueError(
            "the dataset draws at random, and features kept of one draw would be that draw for "
            "ever: pass views= (2 or more) for several fixed draws, or take a fixed transform"
        )
    if views > 1 and not is_random:
        raise ValueError(
            f"the dataset gives the same item every time, so {views} views would be alike: give "
            "it a random transform, or leave views out"
        )
    return _Views(dataset, views, seed) if is_random else dataset


@dataclass
class _Run:
    """All that it takes to compute the features of some rows."""

    model: nn.Module
    rows: Dataset
    batch_size: int
    num_workers: int
    device: torch.device
    precision: str
    bar: tqdm

    def spans(self) -> list[range]:
        total = len(self.rows)
        return [range(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK)]

    def compute(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return features and targets on the CPU."""
        data = Subset(self.rows, indices)
        if self.num_workers:
            data = DataLoader(data, self.batch_size, num_workers=self.num_workers)
        how = self.batch_size, self.device, self.precision
        pairs = []
        # Closed at once if something is raised, or inference mode would stay on with it.
        with contextlib.closing(forward_batches(self.model, data, *how)) as batches:
            for features, targets in batches:
                if not isinstance(features, Tensor):
                    kind = type(features).__name__
                    raise ValueError(f"the model gives a {kind}, expected a tensor: name a node=")
                pairs.append((features.cpu(), targets.cpu()))
                self.bar.update(len(features))
        # Joined outside inference mode, which makes tensors that autograd can use.
        return _joined(pairs)


class _Store:
    """One folder of results: chunks while they are computed, then one file to map.

    Every file takes its name when it is whole, so that a kill at any moment and a second process
    at the same work do no harm: both would write the same.
    """

    def __init__(self, folder: Path, run: _Run) -> None:
        self.folder, self.run = folder, run
        self.files = folder / "targets.npy", folder / "features.npy"

    def fill(self) -> tuple[Tensor, Tensor]:
        """Return features and targets, computing what is not there."""
        self._drop_if_stale()
        for span in self.run.spans():
            if self._finished() is not None:
                break
            if self._read(span) is None:
                tensors = dict(zip(("features", "targets"), self.run.compute(span), strict=True))
                save_weights(tensors, self._chunk(span))
            else:
                self.run.bar.update(len(span))
        if self._finished() is None:
            self._assemble()
        for span in self.run.spans():
            self._chunk(span).unlink(missing_ok=True)
        self.run.bar.update(len(self.run.rows) - self.run.bar.n)
        return self._finished()

    def _finished(self) -> tuple[Tensor, Tensor] | None:
        if not self.files[1].is_file():
            return None
        try:
            # Copy on write: what somebody changes in memory never reaches the file.
            arrays = [np.load(file, mmap_mode="c") for file in self.files]
        except (OSError, ValueError, EOFError) as error:
            warnings.warn(f"{self.folder} is damaged and computed again: {error}", stacklevel=4)
            self.files[1].unlink(missing_ok=True)
            return None
        targets, features = map(torch.from_numpy, arrays)
        return features, targets

    def _chunk(self, span: range) -> Path:
        return self.folder / f"rows-{span.start:08}-{span.stop:08}.safetensors"

    def _read(self, span: range) -> tuple[Tensor, Tensor] | None:
        if not self._chunk(span).is_file():
            return None
        try:
            tensors = read_weights(self._chunk(span))
        except WeightsError as error:
            warnings.warn(f"computed again: {error}", stacklevel=4)
            return None
        return tensors["features"], tensors["targets"]

    def _assemble(self) -> None:
        """Join the chunks one by one, since all of them may be more than the memory holds."""
        joined: list[np.memmap] = []
        # The features take their name last: where they are, everything is there.
        with whole_file(self.files[1]) as features, whole_file(self.files[0]) as targets:
            for span in self.run.spans():
                pair = [piece.numpy() for piece in self._read(span) or self.run.compute(span)]
                joined = joined or [
                    _new_file(path, piece, len(self.run.rows))
                    for path, piece in zip((features, targets), pair, strict=True)
                ]
                for whole, piece in zip(joined, pair, strict=True):
                    whole[span.start : span.stop] = piece
            for whole in joined:
                whole.flush()

    def _drop_if_stale(self) -> None:
        """Compute one example again: code that no hash sees may have changed."""
        known = self._finished() or self._read(self.run.spans()[0])
        if known is None:
            return
        fresh = self.run.compute([0])
        self.run.bar.reset()
        off = (fresh[0] - known[0][:1]).norm() / known[0][:1].norm().clamp(min=1e-12)
        if off > TOLERANCE[self.run.precision] or not torch.equal(fresh[1], known[1][:1]):
            warnings.warn(
                f"{self.folder} holds features that this network does not compute from these data "
                f"(relative difference {off:.2g}): all are computed again",
                stacklevel=4,
            )
            shutil.rmtree(self.folder)


def _new_file(path: Path, piece: np.ndarray, rows: int) -> np.memmap:
    return np.lib.format.open_memmap(path, "w+", piece.dtype, (rows, *piece.shape[1:]))


def _joined(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    features, targets = zip(*pairs, strict=True)
    return torch.cat(features), torch.cat(targets)


@contextlib.contextmanager
def _unchanged_random_state() -> Iterator[None]:
    state = get_random_state(None)
    try:
        yield
    finally:
        set_random_state(state, None)
