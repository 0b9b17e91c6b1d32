"""Ants and bees: what earns the last points, chosen without the photographs that are reported.

All choices are made by five-fold cross-validation on the 244 training photographs; the candidates
are the list below, the lowest log loss is taken, and the choice is stored before any validation
photograph is opened. Then each method is fitted to all training photographs from each of five
seeds, and looks at the 153 validation photographs once per seed.

The search chose the old head, which is of no use to somebody whose classes it does not know. So the
best candidate without it is reported too; that was decided before a validation photograph was seen.

"trained head" and "fine-tuned" are the exceptions that show what picking does: their validation
accuracy is noted after every epoch, the last one counts, and the best one stands beside it as what
a picked epoch would have claimed. No choice depends on it.

    python -m benchmarks.ants_and_bees [--seeds 0 1 2 3 4] [--only search] [--limit N] [--write]

What a fold gave, and what the result file holds already, is not computed again.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from benchmarks.case_study import WITHOUT_OLD_HEAD, Candidates, measure
from benchmarks.photographs import BATCH, OldHead, Probe, Sight, Study, Task, Tuned
from tlbook import fit, load_pretrained, param_groups, seed_everything

PLAIN = Probe(Sight(224, "crop", mirrored=False))
OLD = OldHead(Sight(288, "whole"))
CROPS = tuple(Probe(Sight(side, "crop")) for side in (224, 288))
WHOLES = tuple(Probe(Sight(side, "whole")) for side in (224, 288, 352))
VIEWS = Probe(Sight(288, "whole"), views=4)
LAST_BLOCKS = Tuned(Sight(288, "whole"), "blocks.4", 3, 1e-4)
WHOLE_NETWORK = Tuned(Sight(224, "whole"), None, 2, 1e-4)
HEAD_EPOCHS, EPOCHS = 25, 4


def candidates() -> Candidates:
    """Return every candidate by name, fixed before the first of them was tried."""
    sizes = (*CROPS, *WHOLES)
    return {
        "probe": (PLAIN,),
        "old head": (OLD,),
        **{f"probe, {probe.sight.framing} {probe.sight.side}": (probe,) for probe in sizes},
        "4 views, whole 288": (VIEWS,),
        "all crops": CROPS,
        "all wholes": WHOLES,
        "all sizes": sizes,
        "all sizes and old head": (*sizes, OLD),
        "then last blocks": (LAST_BLOCKS,),
        "then whole network": (WHOLE_NETWORK,),
        "last blocks and all sizes": (LAST_BLOCKS, *sizes),
        "last blocks, all sizes, old head": (LAST_BLOCKS, *sizes, OLD),
    }


def trained_head(study: Study, seed: int) -> dict[str, Any]:
    """Train a head on fixed features by gradient descent."""
    train, val = (study.kept(*study.seen(split, PLAIN.sight)) for split in ("train", "val"))
    seed_everything(seed)
    head = nn.Linear(train.tensors[0].shape[1], 2)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
    return epoch_by_epoch(head, train, val, optimizer, HEAD_EPOCHS, seed)


def fine_tuned(study: Study, seed: int) -> dict[str, Any]:
    """Fine-tune plainly, from a fresh head, at two learning rates."""
    seed_everything(seed)
    model = load_pretrained("efficientnet_lite0", num_classes=2).model
    groups = param_groups(model, {"classifier": 0.01}, lr=0.001)
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    val = study.seen("val", PLAIN.sight)[0]
    return epoch_by_epoch(model, study.at_random(224), val, optimizer, EPOCHS, seed)


def epoch_by_epoch(
    model: nn.Module,
    train: Dataset,
    val: Dataset,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    """Train, and note the validation accuracy after each epoch."""
    history = fit(
        model,
        train,
        val,
        epochs=epochs,
        batch_size=BATCH,
        optimizer=optimizer,
        precision="float32",
        progress=False,
        seed=seed,
    )
    noted = [round(row.val_accuracy, 4) for row in history.epochs]
    return {
        "seed": seed,
        "photographs": len(val),
        "accuracy": noted[-1],
        "picked epoch": max(noted),
        "by epoch": noted,
    }


def main() -> None:
    """Search, choose, and report."""
    kinds = (lambda _, name: name == "ant"), (lambda _, name: name == "bee")
    methods = ["old head", "probe", "chosen", WITHOUT_OLD_HEAD, "trained head", "fine-tuned"]
    extra = {"trained head": trained_head, "fine-tuned": fine_tuned}
    measure("ants_and_bees", Task("hymenoptera", kinds), candidates(), methods, extra)


if __name__ == "__main__":
    main()
