"""What `fit` checks before its first step, so that a mistake costs seconds and not a night."""

import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from tlbook.batches import BatchError, Batches, Data, example_count, in_memory
from tlbook.loop import TrainingError, evaluating


def check_classes(model: nn.Module, train: Data, val: Data | None, device: torch.device) -> None:
    """Compare the classes of both splits with each other and with the model's outputs.

    Raises:
        TrainingError: if the splits name different classes, or the model has another number of
            outputs than the data has classes.
    """
    names, val_names = _class_names(train), _class_names(val)
    if names and val_names and names != val_names:
        raise TrainingError(
            f"the training data has the classes {names}, the validation data {val_names}: "
            "expected the same names in the same order; check the folders"
        )
    outputs = _output_count(model, train, device)
    if outputs is None:
        return
    highest = max(_highest_target(train), _highest_target(val))
    if (names and len(names) != outputs) or highest >= outputs:
        found = f"{len(names)} classes {names}" if names else f"targets up to {highest}"
        raise TrainingError(
            f"the model has {outputs} outputs, the data {found}: "
            "expected one output per class; give the model a head of that size"
        )


def avoid_batch_of_one(batches: Batches, model: nn.Module) -> Batches:
    """Keep BatchNorm from meeting a training batch of one example, which it cannot normalise.

    Batches from memory drop that example, a different one each epoch, with a warning; a
    DataLoader belongs to the caller and is refused.

    Raises:
        BatchError: if a DataLoader's last batch would hold one example.
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    has_batch_norm = any(isinstance(module, norms) for module in model.modules())
    size = batches.batch_size
    if not has_batch_norm or not size or example_count(batches) % size != 1:
        return batches
    last = f"the last of {len(batches)} training batches would hold one example"
    if isinstance(batches, DataLoader) or size == 1 or len(batches) == 1:
        raise BatchError(
            f"{last}, and BatchNorm cannot normalise one example: "
            "use drop_last=True or another batch size"
        )
    warnings.warn(f"{last}: BatchNorm cannot use it, so it is left out", stacklevel=3)
    batches.drop_last = True
    return batches


def _class_names(data: Data | None) -> list[str] | None:
    if isinstance(data, DataLoader):
        return _class_names(data.dataset)
    names = getattr(data, "classes", None)
    if names is None and isinstance(data, Subset):
        return _class_names(data.dataset)
    return None if names is None else list(names)


def _output_count(model: nn.Module, data: Data, device: torch.device) -> int | None:
    """Return K where the model turns one example into logits `(1, K)` for a class index."""
    dataset = data.dataset if isinstance(data, DataLoader) else data
    if not hasattr(dataset, "__getitem__"):
        return None
    image, target = dataset[0]
    if not torch.is_tensor(image) or torch.as_tensor(target).is_floating_point():
        return None
    with evaluating(model):
        outputs = model(image.unsqueeze(0).to(device))
    is_logits = torch.is_tensor(outputs) and outputs.ndim == 2
    return outputs.shape[1] if is_logits and torch.as_tensor(target).ndim == 0 else None


def _highest_target(data: Data | None) -> int:
    dataset = data.dataset if isinstance(data, DataLoader) else data
    tensors = None if dataset is None else in_memory(dataset)
    return -1 if tensors is None or len(tensors[1]) == 0 else int(tensors[1].max())
