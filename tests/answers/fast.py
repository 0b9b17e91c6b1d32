"""Right and typically wrong answers to the exercises of *Fast on your machine*."""

from functools import partial

import torch

STRIDES = {"contiguous": (9600, 600, 30, 1), "channels_last": (9600, 1, 480, 16)}


def stays_behind(model):
    return sorted(
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    )


def top_level_only(model):
    return sorted(n for n, value in vars(model).items() if isinstance(value, torch.Tensor))


def with_leading_dots(model):
    return sorted(
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    )


def not_in_state_dict(model):
    known = model.state_dict()
    return sorted(
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name in dir(module)
        if isinstance(getattr(module, name, None), torch.Tensor)
        and f"{path}.{name}".lstrip(".") not in known
    )


def unsorted_paths(model):
    return stays_behind(model)[::-1]


def is_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


def loses_layout(model, images, keep=False, wanted=lambda module: True, format=True):
    lost, hooks = [], []

    def look(path, module, inputs, output):
        if isinstance(output, torch.Tensor) and output.ndim == 4 and not is_last(output):
            lost.append(path)

    for path, module in model.named_modules():
        if wanted(module):
            hooks.append(module.register_forward_hook(partial(look, path)))
    model.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        model(images.to(memory_format=torch.channels_last) if format else images)
    if not keep:
        for hook in hooks:
            hook.remove()
    return lost


def loses_layout_in_training(model, images):
    model.to(memory_format=torch.channels_last)
    model.train()(images.to(memory_format=torch.channels_last))
    return []


RIGHT = {
    "fast_1": STRIDES,
    "fast_2": 0.4,
    "fast_3": stays_behind,
    "fast_4": loses_layout,
}
WRONG = {
    "fast_1": [
        {"contiguous": (8, 16, 20, 30), "channels_last": (9600, 1, 480, 16)},
        {"contiguous": (9600, 600, 30, 1), "channels_last": (9600, 480, 16, 1)},
        {"contiguous": (76800, 9600, 600, 30), "channels_last": (9600, 1, 480, 16)},
        {"contiguous": (9600, 600, 30, 1), "channels_last": (9600, 1, 600, 30)},
        {"contiguous": (9600, 600, 30, 1)},
    ],
    "fast_2": [0.2, 0.13, 40, 2.5, "0.4"],
    "fast_3": [top_level_only, with_leading_dots, not_in_state_dict, unsorted_paths],
    "fast_4": [
        partial(loses_layout, keep=True),
        partial(loses_layout, wanted=lambda module: not list(module.children())),
        partial(loses_layout, format=False),
        loses_layout_in_training,
        lambda model, images: sorted(loses_layout(model, images), reverse=True),
    ],
}
