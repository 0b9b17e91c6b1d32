"""Right and typically wrong answers to the exercises of *caching features*."""

import hashlib

import torch

from tlbook import split_at


def key_of_all(network, images):
    found = hashlib.sha256(str(tuple(images.shape)).encode() + images.numpy().tobytes())
    for name, tensor in network.state_dict().items():
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def key_of_the_name(network, images):
    return f"{type(network).__name__}-{tuple(images.shape)}"


def key_of_parameters(network, images):
    tensors = [*network.parameters(), images]
    content = b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()


def key_of_weights_alone(network, images):
    content = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    return hashlib.sha256(content).hexdigest()


def key_of_sums(network, images):
    sums = [tensor.double().sum().item() for tensor in network.state_dict().values()]
    return str([*sums, images.double().sum().item()])


def key_of_what_is_printed(network, images):
    shown = f"{network.state_dict()} {images}"
    return hashlib.sha256(shown.encode()).hexdigest()


def key_of_the_first_images(network, images):
    return key_of_all(network, images[:2]) + str(len(images))


def key_of_one_process(network, images):
    return str(hash(key_of_all(network, images)))


def key_with_the_mode(network, images):
    return key_of_all(network, images) + str(network.training)


def key_of_the_address(network, images):
    return key_of_all(network, images) + str(id(network))


def key_as_bytes(network, images):
    return key_of_all(network, images).encode()


def deepest(network, nodes, size, budget):
    found = None
    for node in nodes:
        try:
            prefix, _ = split_at(network, node)
        except ValueError:
            continue
        with torch.no_grad():
            maps = prefix(torch.zeros(1, *size))
        if maps.nbytes <= budget:
            found = node
    return found


def first_that_fits(network, nodes, size, budget):
    for node in nodes:
        try:
            prefix, _ = split_at(network, node)
        except ValueError:
            continue
        if prefix(torch.zeros(1, *size)).nbytes <= budget:
            return node
    return None


def until_one_is_too_large(network, nodes, size, budget):
    found = None
    for node in nodes:
        try:
            prefix, _ = split_at(network, node)
        except ValueError:
            continue
        if prefix(torch.zeros(1, *size)).nbytes > budget:
            break
        found = node
    return found


def until_a_cut_is_refused(network, nodes, size, budget):
    found = None
    for node in nodes:
        try:
            prefix, _ = split_at(network, node)
        except ValueError:
            break
        if prefix(torch.zeros(1, *size)).nbytes <= budget:
            found = node
    return found


def numbers_for_bytes(network, nodes, size, budget):
    return deepest(network, nodes, size, 4 * budget)


def always_the_last(network, nodes, size, budget):
    return nodes[-1]


def dirty_cuts_too(network, nodes, size, budget):
    from tlbook import feature_extractor

    found = None
    for node in nodes:
        if feature_extractor(network, node)(torch.zeros(1, *size)).nbytes <= budget:
            found = node
    return found


RIGHT = {
    "caching_1": ["a", "e", "f"],
    "caching_2": 802_816_000,
    "caching_3": key_of_all,
    "caching_4": deepest,
}

WRONG = {
    "caching_1": [["a"], "all", ["a", "b", "e", "f"], ["a", "c", "e", "f"], {"e", "f"}, 3],
    "caching_2": [1_605_632_000, 401_408_000, 802_816, "802816000", 1_024_000, 803, 803e6],
    "caching_3": [
        key_of_the_name,
        key_of_parameters,
        key_of_weights_alone,
        key_of_sums,
        key_of_what_is_printed,
        key_of_the_first_images,
        key_of_one_process,
        key_with_the_mode,
        key_of_the_address,
        key_as_bytes,
        lambda network, images: None,
    ],
    "caching_4": [
        first_that_fits,
        until_one_is_too_large,
        until_a_cut_is_refused,
        numbers_for_bytes,
        always_the_last,
        dirty_cuts_too,
        lambda network, nodes, size, budget: None,
        lambda network, nodes, size, budget: split_at(network, nodes[0]),
    ],
}
