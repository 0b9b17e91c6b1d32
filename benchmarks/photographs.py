"""Ways to judge photographs of two classes with one backbone, on kept features wherever possible.

Each says "class 1 rather than class 0" as log-odds: a linear head on features of one size and
framing, the old ImageNet head, or a network that trains on from a fitted head. All are compared on
the same five folds of the training photographs. What a fold gave is kept in the cache folder, so
that an interrupted search goes on; `benchmarks.case_study` searches, chooses and reports.
"""

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset, Subset
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from tlbook import (
    best_precision,
    extract_features,
    few_shot_subset,
    fit,
    freeze,
    linear_probe,
    load_dataset,
    load_pretrained,
    predict,
    seed_everything,
    split_at,
    to_linear,
    trainable_parameters,
)
from tlbook.features import FeatureDataset
from tlbook.fingerprints import data_digest
from tlbook.runtime import cache_dir

FOLDS = 5
RECIPE = 1  # of what a fold does; another number makes the folds that are kept count for nothing
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
BICUBIC = v2.InterpolationMode.BICUBIC
KEPT_SHARE = 0.875  # of the shorter side, by the crop that the weights come with
DECAY = 0.95  # of the moving average of the weights, per step
BATCH = 16


class Sight(NamedTuple):
    """How a photograph reaches the network.

    "crop" keeps the middle, "whole" squeezes all of it into a square.
    """

    side: int
    framing: str
    mirrored: bool = True  # the mean of the photograph's and its mirror image's numbers


class Probe(NamedTuple):
    """A linear head on fixed features, fitted to each photograph once or to several views."""

    sight: Sight
    views: int = 0


class OldHead(NamedTuple):
    """The head that the backbone came with: its classes of one kind against those of the other."""

    sight: Sight


class Tuned(NamedTuple):
    """A head is fitted to fixed features first; then it trains on with what is behind `cut`."""

    sight: Sight
    cut: str | None  # None: the whole network; a node: from kept maps, `epochs` views of each
    epochs: int
    rate: float


Member = Probe | OldHead | Tuned


class Task(NamedTuple):
    """A dataset of two classes, and the ImageNet classes that mean each of them."""

    name: str
    old: tuple[Callable[[int, str], bool], Callable[[int, str], bool]]
    limit: int | None = None  # training photographs of each class, to try it out


class Mirror:
    """Mirror a PIL image, always: a random flip of probability 1 would draw a number for it."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image with left and right exchanged."""
        return ImageOps.mirror(image)


class Study:
    """One task with a backbone: computes what is asked for once, and keeps it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.folder = cache_dir() / "photographs"
        self.layout = best_precision("cpu").memory_format  # for predicting; training is plain
        self.whole, transform, _ = load_pretrained("efficientnet_lite0")
        to_tensor, normalise = transform.transforms[-2:]
        # Its mean as numbers: the cache would know a tensor again by its place in memory only.
        self.form = [to_tensor, v2.Normalize(normalise.mean.tolist(), normalise.std.tolist())]
        self.backbone = copy.deepcopy(self.whole).to(memory_format=self.layout)
        self.backbone.reset_classifier(0)
        freeze(self.backbone)
        self._features: dict[tuple[str, Sight], Tensor] = {}
        self._random: dict[int, Dataset] = {}

    def photographs(self, split: str, steps: Sequence[Callable] | None = None) -> Dataset:
        """Return a split, behind some steps and the form that the weights expect, if any."""
        transform = None if steps is None else v2.Compose([*steps, *self.form])
        if self.task.limit is None:
            return load_dataset(self.task.name, split, transform=transform)
        # Whoever tries it out looks at no validation photograph.
        train = load_dataset(self.task.name, "train", transform=transform)
        return few_shot_subset(train, self.task.limit, seed=0)

    @cached_property
    def targets(self) -> np.ndarray:
        """Classes of the training photographs `(N,)`."""
        return self.photographs("train").targets.numpy()

    @cached_property
    def content(self) -> str:
        """Hash of the training photographs."""
        data = self.photographs("train")
        return data_digest(data, data)

    def seen(self, split: str, sight: Sight) -> list[Dataset]:
        """Return the photographs as a sight shows them, and their mirror images if it does."""
        side, framing, mirrored = sight
        shown = [v2.Resize((side, side), interpolation=BICUBIC)]
        if framing == "crop":
            resize = v2.Resize(round(side / KEPT_SHARE), interpolation=BICUBIC)
            shown = [resize, v2.CenterCrop(side)]
        ways = [shown, [Mirror(), *shown]] if mirrored else [shown]
        return [self.photographs(split, steps) for steps in ways]

    def at_random(self, side: int) -> Dataset:
        """Return training photographs of which each reading gives another part and tint.

        The same dataset each time, because what is kept of its views goes by the object: its
        transform holds a tensor.
        """
        steps = [
            v2.RandomResizedCrop(side, scale=(0.35, 1), interpolation=BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.2, 0.2, 0.2),
        ]
        if side not in self._random:
            self._random[side] = self.photographs("train", steps)
        return self._random[side]

    def kept(self, data: Dataset, **settings: Any) -> FeatureDataset:
        """Return what the backbone, or another `model`, makes of a dataset."""
        settings = {"model": self.backbone, "batch_size": 32, "progress": False, **settings}
        return extract_features(dataset=data, cache=self.folder / "features", **settings)

    def features(self, split: str, sight: Sight) -> Tensor:
        """Return features `(N, 1280)`, the mean over a photograph and its mirror image."""
        if (split, sight) not in self._features:
            parts = [self.kept(data).tensors[0] for data in self.seen(split, sight)]
            self._features[split, sight] = torch.stack(parts).mean(0)
        return self._features[split, sight]

    def log_odds(
        self, member: Member, rows: np.ndarray, split: str, shown: np.ndarray, seed: int
    ) -> np.ndarray:
        """Fit to some training photographs; return log-odds of class 1 for others `(M,)`."""
        if isinstance(member, OldHead):
            return self._old_head(member, split)[shown]
        if isinstance(member, Probe):
            head = self._probe(member, rows, seed)
            return head.decision_function(self.features(split, member.sight)[shown].numpy())
        return self._tuned(member, rows, split, shown, seed)

    def _old_head(self, member: OldHead, split: str) -> np.ndarray:
        named = list(enumerate(ResNet18_Weights.DEFAULT.meta["categories"]))  # loads no weights
        kinds = [[i for i, name in named if belongs(i, name)] for belongs in self.task.old]
        with torch.inference_mode():
            logits = self.whole.classifier(self.features(split, member.sight))
        zero, one = (logits[:, kind].logsumexp(1) for kind in kinds)
        return (one - zero).numpy()

    def _probe(self, member: Probe, rows: np.ndarray, seed: int) -> Any:
        settings = {"strengths": STRENGTHS, "seed": seed}
        if not member.views:
            x = self.features("train", member.sight)[rows]
            return linear_probe(x, torch.from_numpy(self.targets[rows]), **settings)
        data = self.at_random(member.sight.side)
        kept = self.kept(data, views=member.views, seed=seed)
        return linear_probe(Subset(kept, view_rows(rows, len(data), member.views)), **settings)

    def _tuned(
        self, member: Tuned, rows: np.ndarray, split: str, shown: np.ndarray, seed: int
    ) -> np.ndarray:
        network = copy.deepcopy(self.whole)
        network.classifier = to_linear(self._probe(Probe(member.sight), rows, seed))
        freeze(network, *(n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)))
        data, epochs = self.at_random(member.sight.side), member.epochs
        train, tested = Subset(data, rows.tolist()), self.seen(split, member.sight)
        if member.cut is not None:
            prefix, network = split_at(network, member.cut)
            prefix.to(memory_format=self.layout)
            maps = self.kept(data, model=prefix, views=epochs, seed=seed)
            train, epochs = Subset(maps, view_rows(rows, len(data), epochs)), 1
            tested = [self.kept(data, model=prefix) for data in tested]
        seed_everything(seed)
        network = trained_on(network, train, epochs, member.rate, seed)
        network.to(memory_format=self.layout)
        settings = {"precision": "auto", "batch_size": 32}
        logits = [predict(network, Subset(data, shown.tolist()), **settings) for data in tested]
        return torch.stack([x[:, 1] - x[:, 0] for x in logits]).mean(0).numpy()

    def out_of_fold(self, member: Member) -> tuple[np.ndarray, float]:
        """Return log-odds `(N,)` of each training photograph by the fold that did not see it.

        Returns:
            The log-odds, and the processor seconds of all folds.
        """
        result, seconds = np.empty(len(self.targets)), 0.0
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        for number, (rows, shown) in enumerate(folds.split(self.targets, self.targets)):
            key = repr((RECIPE, self.content, member, number))
            path = self.folder / "folds" / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"
            if not path.exists():
                start = time.process_time()
                values = self.log_odds(member, rows, "train", shown, seed=0)
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(".part.npz")
                np.savez(part, values=values, seconds=time.process_time() - start)
                part.rename(path)
            with np.load(path) as kept:
                result[shown], seconds = kept["values"], seconds + float(kept["seconds"])
        return result, seconds


def view_rows(rows: np.ndarray, count: int, views: int) -> list[int]:
    """Return where the views of some photographs stand: view v of i is row `v * count + i`."""
    return [int(view * count + row) for view in range(views) for row in rows]


def trained_on(
    network: nn.Module, train: Dataset, epochs: int, rate: float, seed: int
) -> nn.Module:
    """Train what is not frozen, and return the network of averaged weights."""
    optimizer = torch.optim.AdamW(trainable_parameters(network), lr=rate, weight_decay=0.01)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    optimizer.register_step_post_hook(lambda *_: averaged.update_parameters(network))
    steps = epochs * -(-len(train) // BATCH)
    fit(
        network,
        train,
        epochs=epochs,
        batch_size=BATCH,
        optimizer=optimizer,
        scheduler=partial(OneCycleLR, max_lr=rate, total_steps=steps),
        scheduler_step="batch",
        precision="float32",
        progress=False,
        seed=seed,
    )
    return averaged.module.eval()
