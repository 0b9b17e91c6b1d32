"""Train the bundled first half of a ResNet-18: on five classes of Fashion-MNIST, never the others.

The whole network learns to tell T-shirts, trousers, dresses, sandals and bags apart; `conv1` to
`layer2` are kept, in half precision. Pullovers, coats, shirts, sneakers and ankle boots stay unseen
for the chapters that transfer to them. Takes about ten minutes on two cores; another machine gives
other last digits. Run from the repository's root:

    python -m tools.make_resnet18_fashion
"""

import functools
from pathlib import Path

import torch
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset
from torchvision.models import resnet18

from tlbook import evaluate, fit, load_dataset, save_weights, seed_everything, stratified_split
from tlbook.sources import ASSETS
from tlbook.weights import FASHION_MEAN, FASHION_SD, FASHION_SOURCE

EPOCHS, BATCH, RATE = 10, 250, 0.1
KEPT = ("conv1.", "bn1.", "layer1.", "layer2.")


def source_images(split: str) -> TensorDataset:
    """Return the images `(N, 3, 28, 28)` of the source classes, which count from 0 anew."""
    images, targets = load_dataset("fashion_mnist_full", split).tensors
    chosen = torch.isin(targets, torch.tensor(FASHION_SOURCE))
    labels = torch.searchsorted(torch.tensor(FASHION_SOURCE), targets[chosen])
    normalised = (images[chosen] - FASHION_MEAN) / FASHION_SD
    return TensorDataset(normalised.expand(-1, 3, -1, -1), labels)


def trained() -> torch.nn.Module:
    """Return a ResNet-18 that was trained on nine tenths of the source images."""
    train, val = stratified_split(source_images("train"), [0.9, 0.1], seed=0)
    seed_everything(0)
    model = resnet18(weights=None, num_classes=len(FASHION_SOURCE))
    fit(
        model,
        train,
        val,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=functools.partial(
            torch.optim.SGD, lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
        ),
        scheduler=functools.partial(
            OneCycleLR, max_lr=RATE, total_steps=EPOCHS * len(train) // BATCH
        ),
        scheduler_step="batch",
    )
    return model


def main() -> None:
    """Train, say how well it does on test images, and store the first half."""
    model = trained()
    tested = evaluate(model, source_images("test"))
    print(f"test accuracy on the source classes: {tested.accuracy:.4f}")
    kept = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(KEPT)
    }
    path: Path = save_weights(kept, ASSETS / "resnet18_fashion.safetensors")
    print(f"{path.name}: {path.stat().st_size:,} bytes; put its SHA-256 into tlbook.weights")


if __name__ == "__main__":
    main()
