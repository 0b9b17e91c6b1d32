"""Cats and dogs: head only first, then the whole network, on photographs used for nothing else.

All choices are made by five-fold cross-validation on the 600 training photographs; the candidates
are the list below, the lowest log loss is taken, and the choice is stored before any of the 300
other photographs is opened. "head only", "then whole" and the old ImageNet head are reported
whatever is chosen, each fitted to all training photographs from five seeds, with one look at the
300 per seed. Nothing is picked by what they show.

    python -m benchmarks.cats_and_dogs [--seeds 0 1 2 3 4] [--only search] [--limit N] [--write]

What a fold gave, and what the result file holds already, is not computed again.
"""

from benchmarks.case_study import Candidates, measure
from benchmarks.photographs import OldHead, Probe, Sight, Task, Tuned

CATS, DOGS = range(281, 286), range(151, 269)  # of the 1,000 ImageNet classes: house cats, dogs
OLD = OldHead(Sight(224, "whole"))
SIGHTS = (Sight(224, "crop"), Sight(224, "whole"), Sight(288, "whole"))
WHOLE_NETWORK = Tuned(Sight(224, "whole"), None, 1, 1e-4)


def candidates() -> Candidates:
    """Return every candidate by name, fixed before the first of them was tried."""
    heads = {f"head only, {sight.framing} {sight.side}": Probe(sight) for sight in SIGHTS}
    return {
        "head only": (Probe(Sight(224, "crop", mirrored=False)),),
        "old head": (OLD,),
        **{name: (head,) for name, head in heads.items()},
        "all heads": tuple(heads.values()),
        "all heads and old head": (*heads.values(), OLD),
        "then whole": (WHOLE_NETWORK,),
        "then whole, and all heads": (WHOLE_NETWORK, *heads.values()),
        "then whole, all heads, old head": (WHOLE_NETWORK, *heads.values(), OLD),
    }


def main() -> None:
    """Search, choose, and report."""
    kinds = (lambda index, _: index in CATS), (lambda index, _: index in DOGS)
    methods = ["old head", "head only", "chosen", "then whole"]
    measure("cats_and_dogs", Task("cats_and_dogs", kinds), candidates(), methods, {})


if __name__ == "__main__":
    main()
