"""Right and typically wrong answers to the exercises of *foreign checkpoints*."""

import re

from torch import nn

OLD_NAMES = [(r"(denselayer\d+\.(norm|conv))\.", r"\1")]
KERAS_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def query_encoder(checkpoint):
    prefix, state = "module.encoder_q.", checkpoint["state_dict"]
    inner = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    return {key: tensor for key, tensor in inner.items() if not key.startswith("fc.")}


def query_encoder_with_head(checkpoint):
    prefix, state = "module.encoder_q.", checkpoint["state_dict"]
    return {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}


def key_encoder(checkpoint):
    state = checkpoint["state_dict"]
    swapped = {key.replace("encoder_q.", "encoder_x."): tensor for key, tensor in state.items()}
    swapped = {key.replace("encoder_k.", "encoder_q."): t for key, t in swapped.items()}
    return query_encoder({"state_dict": swapped})


def every_word_replaced(checkpoint):
    state = {k: t for k, t in checkpoint["state_dict"].items() if "encoder_q" in k}
    names = {k: k.replace("module.", "").replace("encoder_q.", "") for k in state}
    return {names[k]: t for k, t in state.items() if not names[k].startswith("fc.")}


def only_module_stripped(checkpoint):
    return {k.removeprefix("module."): t for k, t in checkpoint["state_dict"].items()}


def stripped_by_characters(checkpoint):
    state = query_encoder(checkpoint)
    return {f"module.{key}".lstrip("module."): tensor for key, tensor in state.items()}


def every_fc_left_out(checkpoint):
    state = query_encoder_with_head(checkpoint)
    return {key: tensor for key, tensor in state.items() if "fc" not in key}


def one_level_too_high(checkpoint):
    return query_encoder({"state_dict": checkpoint})


def load_what_fits(model, weights):
    own = model.state_dict()
    fits = {k: t for k, t in weights.items() if k in own and t.shape == own[k].shape}
    if len(fits) < len(own) / 2:
        raise ValueError(f"only {len(fits)} of {len(own)} tensors fit")
    model.load_state_dict(fits, strict=False)
    return [key for key in own if key not in fits]


def load_not_strictly(model, weights):
    return list(model.load_state_dict(weights, strict=False).missing_keys)


def load_without_a_look(model, weights):
    own = model.state_dict()
    fits = {k: t for k, t in weights.items() if k in own and t.shape == own[k].shape}
    model.load_state_dict(fits, strict=False)
    return [key for key in own if key not in fits]


def load_and_look_later(model, weights):
    kept = load_without_a_look(model, weights)
    if len(kept) > len(model.state_dict()) / 2:
        raise ValueError("too few tensors fit")
    return kept


def load_and_name_the_loaded(model, weights):
    kept = load_what_fits(model, weights)
    return [key for key in model.state_dict() if key not in kept]


def refuse_only_nothing(model, weights):
    if not weights.keys() & model.state_dict().keys():
        raise ValueError("nothing fits")
    return load_without_a_look(model, weights)


def from_keras(weights, conv=(3, 2, 0, 1), dense=(1, 0)):
    converted = {}
    for name, tensor in weights.items():
        path, _, last = name.rpartition("/")
        key = f"{path.replace('/', '.')}.{KERAS_NAMES.get(last, last)}"
        order = {4: conv, 2: dense, 1: (0,)}[tensor.ndim]
        converted[key] = tensor.permute(order)
    return converted


def from_keras_names_only(weights):
    return from_keras(weights, conv=(0, 1, 2, 3), dense=(0, 1))


def from_keras_reversed(weights):
    return from_keras(weights, conv=(3, 2, 1, 0))


def from_keras_dense_as_it_is(weights):
    return from_keras(weights, dense=(0, 1))


def from_keras_slashes(weights):
    return {re.sub(r"kernel$", "weight", name): t for name, t in weights.items()}


RIGHT = {
    "foreign_checkpoints_1": {"loaded": 50, "missing": 0, "unexpected": 0, "mismatched": 2},
    "foreign_checkpoints_2": OLD_NAMES,
    "foreign_checkpoints_3": query_encoder,
    "foreign_checkpoints_4": load_what_fits,
    "foreign_checkpoints_5": from_keras,
}

WRONG = {
    "foreign_checkpoints_1": [
        50,
        {"loaded": 50, "mismatched": 2},
        {"loaded": 52, "missing": 0, "unexpected": 0, "mismatched": 0},
        {"loaded": 50, "missing": 2, "unexpected": 2, "mismatched": 0},
        {"loaded": 0, "missing": 52, "unexpected": 52, "mismatched": 0},
        {"loaded": 51, "missing": 0, "unexpected": 0, "mismatched": 1},
    ],
    "foreign_checkpoints_2": [
        {"norm.1": "norm1"},
        [(r"norm\.", "norm"), (r"conv\.", "conv")],
        [(r"norm\.(\d)", r"norm\1")],
        [(r"(norm|conv)\.(\d)", r"\1_\2")],
        [("norm.1", "norm1", "conv.1")],
        [(r"no such key", "")],
        {r"norm\.(\d)": r"norm\1", r"conv\.(\d)": r"conv\1"},
        [("(norm|conv)\\.(\\d)", "\1\2")],
    ],
    "foreign_checkpoints_3": [
        nn.Linear(2, 2),
        query_encoder_with_head,
        key_encoder,
        every_word_replaced,
        only_module_stripped,
        stripped_by_characters,
        every_fc_left_out,
        one_level_too_high,
    ],
    "foreign_checkpoints_4": [
        load_not_strictly,
        load_without_a_look,
        load_and_look_later,
        load_and_name_the_loaded,
        refuse_only_nothing,
    ],
    "foreign_checkpoints_5": [
        from_keras_names_only,
        from_keras_reversed,
        from_keras_dense_as_it_is,
        from_keras_slashes,
    ],
}
