"""Helpers of the book *Model Surgery: transfer learning with PyTorch, hands on*."""

from tlbook import check
from tlbook.data import (
    DataError,
    class_counts,
    few_shot_subset,
    image_folder,
    load_dataset,
    make_loaders,
    stratified_split,
)
from tlbook.display import imshow, plot_confusion, plot_history, show_predictions, summary
from tlbook.runtime import best_precision, get_device, seed_everything
from tlbook.surgery import get_head, replace_head
from tlbook.training import (
    History,
    Metrics,
    TrainingError,
    evaluate,
    fit,
    predict,
    train_one_epoch,
)
from tlbook.weights import (
    LoadReport,
    Pretrained,
    WeightsError,
    fetch,
    load_pretrained,
    load_weights,
    rename_keys,
    save_weights,
)

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "History",
    "LoadReport",
    "Metrics",
    "Pretrained",
    "TrainingError",
    "WeightsError",
    "best_precision",
    "check",
    "class_counts",
    "evaluate",
    "fetch",
    "few_shot_subset",
    "fit",
    "get_device",
    "get_head",
    "image_folder",
    "imshow",
    "load_dataset",
    "load_pretrained",
    "load_weights",
    "make_loaders",
    "plot_confusion",
    "plot_history",
    "predict",
    "rename_keys",
    "replace_head",
    "save_weights",
    "seed_everything",
    "show_predictions",
    "stratified_split",
    "summary",
    "train_one_epoch",
]
