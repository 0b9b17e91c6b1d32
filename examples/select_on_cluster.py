"""Select between networks on a Dask cluster, and keep every finished fold.

    python examples/select_on_cluster.py
    python examples/select_on_cluster.py --scheduler tcp://HOST:8786

Without the address of a scheduler it starts two workers on this machine. A run that was stopped
goes on where it was, on this cluster or another, if it finds its folder again. For a cluster run
`dask scheduler` on one machine and `dask worker tcp://HOST:8786 --nworkers -1 --nthreads 1` on
each; all need the same versions of Python, PyTorch and tlbook.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator

import joblib
from distributed import Client, LocalCluster
from torch import nn

from tlbook import HybridNet, SlimVGG, cross_validate, few_shot_subset, load_dataset

CANDIDATES = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
    "SlimVGG": SlimVGG,
    "HybridNet": HybridNet,
}


@contextlib.contextmanager
def connected(address: str | None, *, workers: int, timeout: float) -> Iterator[Client]:
    """Connect to the scheduler at an address, or to one that is started here with workers.

    Raises:
        SystemExit: if there is no scheduler, or it has no worker, after `timeout` seconds.
    """
    with contextlib.ExitStack() as stack:
        if address is None:
            how = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
            cluster = LocalCluster(n_workers=workers, silence_logs=logging.ERROR, **how)
            address = stack.enter_context(cluster).scheduler_address
        try:
            client = stack.enter_context(Client(address, timeout=timeout))
        except (OSError, ValueError) as error:
            sys.exit(
                f"no scheduler at {address}: {error}. Start one there with `dask scheduler`, or "
                "leave --scheduler out to work on this machine"
            )
        try:
            client.wait_for_workers(1, timeout=timeout)
        except TimeoutError:
            sys.exit(
                f"the scheduler at {address} has no worker after {timeout:g} s: start some with "
                f"`dask worker {address} --nworkers -1 --nthreads 1`"
            )
        yield client


def main() -> None:
    """Cross-validate the candidates on the bundled Fashion-MNIST; print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scheduler", metavar="ADDRESS", help="such as tcp://HOST:8786")
    parser.add_argument("--workers", type=int, default=2, help="to start without a scheduler")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for a cluster")
    parser.add_argument("--store", default="folds", help="folder that keeps finished folds")
    parser.add_argument("--per-class", type=int, default=400, help="images of each class")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()

    dataset = few_shot_subset(load_dataset("fashion_mnist", "train"), options.per_class, seed=0)
    there = {"workers": options.workers, "timeout": options.timeout}
    with connected(options.scheduler, **there) as client, joblib.parallel_config("dask"):
        print(f"{sum(client.nthreads().values())} workers at {client.scheduler.address}")
        report = cross_validate(
            CANDIDATES,
            dataset,
            folds=options.folds,
            repeats=options.repeats,
            epochs=options.epochs,
            store=options.store,
        )
    print(report)
    print(f"take {report.best()}")


if __name__ == "__main__":
    main()
