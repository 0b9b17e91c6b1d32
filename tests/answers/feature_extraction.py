"""Right and typically wrong answers to the exercises of *feature extraction*."""

import copy

import torch
from torch import nn

from tlbook import get_head


def in_front_of_head(model, images):
    copied = copy.deepcopy(model).eval()
    copied.set_submodule(get_head(copied).path, nn.Identity())
    with torch.inference_mode():
        return copied(images)


def in_front_of_head_with_a_graph(model, images):
    copied = copy.deepcopy(model).eval()
    copied.set_submodule(get_head(copied).path, nn.Identity())
    return copied(images)


def in_front_of_head_in_training_mode(model, images):
    copied = copy.deepcopy(model)
    copied.set_submodule(get_head(copied).path, nn.Identity())
    with torch.no_grad():
        return copied(images)


def outputs_of_the_head(model, images):
    with torch.inference_mode():
        return copy.deepcopy(model).eval()(images)


def head_lost(model, images):
    model.eval().set_submodule(get_head(model).path, nn.Identity())
    with torch.inference_mode():
        return model(images)


def left_in_evaluation_mode(model, images):
    result = in_front_of_head(model, images)
    model.eval()
    return result


def statistics_moved(model, images):
    result = in_front_of_head(model, images)
    with torch.no_grad():
        model(images)
    return result


def hook_left(model, images):
    kept = []
    get_head(model).layer.register_forward_pre_hook(lambda head, args: kept.append(args[0]))
    with torch.inference_mode():
        model.eval()(images)
    model.train()
    return kept[0]


def map_in_front_of_the_pool(model, images):
    children = list(copy.deepcopy(model).eval().children())[:-2]
    with torch.inference_mode():
        return nn.Sequential(*children)(images)


def as_an_array(model, images):
    return in_front_of_head(model, images).numpy()


def both_sides(backbone, images):
    with torch.inference_mode():
        return (backbone(images) + backbone(images.flip(-1))) / 2


RIGHT = {
    "feature_extraction_1": 1_024,
    "feature_extraction_2": {"without": 97_200, "with": 1_200},
    "feature_extraction_3": in_front_of_head,
    "feature_extraction_4": both_sides,
}

WRONG = {
    "feature_extraction_1": [1_000, 576, 3, 1_280, "1024"],
    "feature_extraction_2": [
        97_200,
        {"without": 97_200},
        {"without": 120_000, "with": 1_200},
        {"without": 96_000, "with": 1_200},
        {"without": 19_440, "with": 1_200},
        {"without": 24_000, "with": 1_200},
        {"without": 97_200, "with": 6_000},
        {"without": 97_200, "with": 0},
        {"without": 1, "with": 1},
    ],
    "feature_extraction_3": [
        in_front_of_head_with_a_graph,
        in_front_of_head_in_training_mode,
        outputs_of_the_head,
        head_lost,
        left_in_evaluation_mode,
        statistics_moved,
        hook_left,
        map_in_front_of_the_pool,
        as_an_array,
        lambda model, images: in_front_of_head(model, images) * 2,
    ],
    "feature_extraction_4": [
        lambda backbone, images: backbone(images),
        lambda backbone, images: backbone(images.flip(-1)),
        lambda backbone, images: backbone(images) + backbone(images.flip(-1)),
        lambda backbone, images: backbone((images + images.flip(-1)) / 2),
        lambda backbone, images: (backbone(images) + backbone(images.flip(-2))) / 2,
        lambda backbone, images: torch.cat([backbone(images), backbone(images.flip(-1))], dim=1),
        lambda backbone, images: (backbone(images) + backbone(images.flip(1))) / 2,
    ],
}
