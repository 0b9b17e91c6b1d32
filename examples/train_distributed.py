"""Train one network with several processes, on one machine or on many.

    torchrun --nproc-per-node 2 examples/train_distributed.py
    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        examples/train_distributed.py

Without torchrun it is the same run with one process. `batch-size` is that of all processes
together, so that the number of processes changes the speed and not the result.
"""

import argparse
import functools
import os

import torch

from tlbook import SlimVGG, fit, load_dataset, seed_everything


def main() -> None:
    """Train SlimVGG on the bundled Fashion-MNIST; rank 0 prints each epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128, help="of all processes together")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--checkpoint", default=None, help="file to write, and to go on from")
    options = parser.parse_args()

    seed_everything(0)
    history = fit(
        SlimVGG(),
        load_dataset("fashion_mnist", "train"),
        load_dataset("fashion_mnist", "test"),
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=functools.partial(torch.optim.SGD, lr=options.learning_rate, momentum=0.9),
        checkpoint=options.checkpoint,
    )
    if os.environ.get("RANK", "0") == "0":
        for row in history.epochs:
            print(
                f"epoch {row.epoch}: loss {row.train_loss:.4f}, accuracy {row.val_accuracy:.4f}, "
                f"{row.examples_per_second:.0f} examples/s"
            )


if __name__ == "__main__":
    main()
