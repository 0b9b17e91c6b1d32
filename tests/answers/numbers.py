"""Right and typically wrong answers to the exercises of *numbers that are not what they seem*."""

import torch
from torch import nn

OTHER = nn.Linear(3, 3)
CASES = {"a": "K8", "b": "K7", "c": "K24", "d": "K22", "e": "K6", "f": "K25"}
HALVES = [
    "mixer_b16_224.goog_in21k_ft_in1k",
    "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_clip_224.openai",
]
FITTING = [
    "convnext_tiny.fb_in1k",
    "densenet121.ra_in1k",
    "mobilenetv3_large_100.ra_in1k",
    "swin_tiny_patch4_window7_224.ms_in1k",
]


def predict_proba(network, images):
    modes = {layer: layer.training for layer in network.modules()}
    network.eval()
    with torch.inference_mode():
        probabilities = torch.softmax(network(images), dim=1)
    for layer, training in modes.items():
        layer.training = training
    return probabilities


def proba_with_one_mode(network, images):
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        probabilities = torch.softmax(network(images), dim=1)
    network.train(was_training)
    return probabilities


def proba_of_another(network, images):
    return predict_proba(OTHER, images)


def proba_by_exp(network, images):
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        probabilities = torch.exp(network(images))
    network.train(was_training)
    return probabilities


def proba_in_training_mode(network, images):
    with torch.inference_mode():
        return torch.softmax(network(images), dim=1)


def proba_and_stay(network, images):
    network.eval()
    return predict_proba(network, images)


def proba_with_gradients(network, images):
    was_training = network.training
    network.eval()
    probabilities = torch.softmax(network(images), dim=1)
    network.train(was_training)
    return probabilities


def proba_twice(network, images):
    return torch.softmax(predict_proba(network, images), dim=1)


def proba_over_images(network, images):
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        probabilities = torch.softmax(network(images), dim=0)
    network.train(was_training)
    return probabilities


def labels_only(network, images):
    return predict_proba(network, images).argmax(dim=1)


def folder_names(class_to_idx, predictions):
    from_label = {label: name for name, label in class_to_idx.items()}
    return [from_label[label] for label in predictions.tolist()]


def label_plus_one(class_to_idx, predictions):
    return [str(label + 1) for label in predictions.tolist()]


def by_order_of_entries(class_to_idx, predictions):
    return [list(class_to_idx)[label] for label in predictions.tolist()]


def by_number(class_to_idx, predictions):
    return [sorted(class_to_idx, key=int)[label] for label in predictions.tolist()]


def by_text(class_to_idx, predictions):
    return [sorted(class_to_idx)[label] for label in predictions.tolist()]


def by_tensors(class_to_idx, predictions):
    from_label = {label: name for name, label in class_to_idx.items()}
    return [from_label[label] for label in predictions]


def looked_up_as_text(class_to_idx, predictions):
    return [class_to_idx[str(label)] for label in predictions.tolist()]


def not_inverted(class_to_idx, predictions):
    return [class_to_idx.get(str(label), -1) for label in predictions.tolist()]


def set_of_names(class_to_idx, predictions):
    return set(folder_names(class_to_idx, predictions))


def inverted_in_place(class_to_idx, predictions):
    names = folder_names(class_to_idx, predictions)
    class_to_idx.clear()
    return names


RIGHT = {
    "numbers_1": {"loss": 0.34, "least": 0.0693},
    "numbers_2": CASES,
    "numbers_3": predict_proba,
    "numbers_4": folder_names,
    "numbers_5": HALVES,
}
WRONG = {
    "numbers_1": [
        0.34,
        {"loss": 0.34},
        {"loss": 0.0017, "least": 0.0693},
        {"loss": 0.0085, "least": 0.0693},
        {"loss": 1.7, "least": 0.0693},
        {"loss": 0.34, "least": 0.1},
        {"loss": 0.34, "least": 0.0301},
        {"loss": 0.34, "least": 0.6238},
        {"loss": 0.34, "least": 0},
        {"loss": 0.34, "least": "ln 2"},
        {"loss": float("nan"), "least": 0.0693},
    ],
    "numbers_2": [
        ["K8", "K7", "K24", "K22", "K6", "K25"],
        {"a": "K8"},
        CASES | {"a": "K7"},
        CASES | {"b": "K24", "c": "K7"},
        CASES | {"d": "K24"},
        CASES | {"f": 25},
        CASES | {"f": "k8"},
    ],
    "numbers_3": [
        proba_of_another,
        proba_by_exp,
        proba_in_training_mode,
        proba_with_one_mode,
        proba_and_stay,
        proba_with_gradients,
        proba_twice,
        proba_over_images,
        labels_only,
    ],
    "numbers_4": [
        label_plus_one,
        by_order_of_entries,
        by_number,
        by_text,
        by_tensors,
        looked_up_as_text,
        not_inverted,
        set_of_names,
        inverted_in_place,
    ],
    "numbers_5": [
        HALVES[0],
        HALVES[:2],
        [*HALVES, "convnext_tiny.fb_in1k"],
        ["mixer", "vit", "clip"],
        FITTING,
        [1, 2, 3],
    ],
}
