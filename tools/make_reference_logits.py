"""Write the logits that tests hold `load_pretrained("efficientnet_lite0")` against.

They come from the network that the weights' authors published, not from timm's, so this needs
one more package: pip install efficientnet-lite-pytorch==0.1.0. Run from the repository's root:

    python tools/make_reference_logits.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from tlbook.weights import fetch_weights, load_pretrained

REFERENCE = Path("tests/reference/efficientnet_lite0_logits.safetensors")


def reference_input() -> torch.Tensor:
    """Return two images (2, 3, 224, 224) in [-1, 1] that every machine computes alike.

    Whole numbers only: random generators and sines may differ from one processor to the next.
    """
    count = torch.arange(2 * 3 * 224 * 224)
    stripes = count % 224 * 3 + count // 224 * 5
    speckle = count * 7919 % 97
    return ((stripes + speckle) % 256).div(127.5).sub(1).reshape(2, 3, 224, 224)


def main() -> None:
    """Compare both networks and store the logits of the authors' one."""
    from efficientnet_lite_pytorch import EfficientNet

    path = str(fetch_weights("efficientnet_lite0"))
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = load_pretrained("efficientnet_lite0").model
    with torch.inference_mode():
        logits = theirs(reference_input())
        if not torch.equal(ours(reference_input()), logits):
            raise SystemExit("tlbook's network and the authors' differ: nothing was written")
    REFERENCE.parent.mkdir(exist_ok=True)
    versions = {"torch": torch.__version__, "efficientnet-lite-pytorch": "0.1.0"}
    save_file({"logits": logits.clone()}, REFERENCE, metadata=versions)
    print(f"equal to the last bit; {REFERENCE}: {REFERENCE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
