"""Tasks in this process, in others, or on a cluster: joblib decides, as its user has told it.

Backends differ in what they keep of a worker that dies, and in when they hand results back. Here
they are made alike, so that nothing else in the package has to know where it runs.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import joblib
import numpy as np
from joblib import Parallel
from joblib.parallel import get_active_backend


def finished(tasks: Sequence, n_jobs: int | None) -> Iterator[Any]:
    """Run tasks, made by `joblib.delayed`, and yield what each returns as soon as may be.

    Args:
        tasks: in the order in which they begin; they end in any order.
        n_jobs: how many run at the same time, as joblib takes it; a Dask cluster uses all workers.

    Raises:
        KilledWorker: a task of a Dask cluster, in which four workers have died one after another.

    Example:
        >>> sorted(finished([joblib.delayed(abs)(number) for number in (-1, -2)], n_jobs=1))
        [1, 2]
    """
    client = _dask_client()
    if client is not None:
        yield from _finished_on_dask(client, tasks)
    elif get_active_backend()[0].supports_return_generator:
        with warnings.catch_warnings():
            # A worker that has grown, as networks make it grow, is replaced; no task is lost.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            yield from Parallel(n_jobs, batch_size=1, return_as="generator_unordered")(tasks)
    else:
        # Ray, for one, returns nothing before all is done: a few tasks at a time lose less.
        with Parallel(n_jobs, batch_size=1) as parallel:
            few = joblib.effective_n_jobs(n_jobs)
            for start in range(0, len(tasks), few):
                yield from parallel(tasks[start : start + few])


def handed_over(array: np.ndarray) -> Any:
    """Leave an array that many tasks share with the scheduler, if they run on a Dask cluster.

    joblib would scatter it: one worker has it then, and if that worker dies, the array is gone and
    all tasks that need it are cancelled. What a task has returned can be made again.
    """
    client = _dask_client()
    if client is None:
        return array
    import distributed

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # it is sent once
        future = client.submit(np.asarray, array, pure=False)
    distributed.wait(future)  # while it waits, it may be moved, and the array travels again
    return future


def _dask_client() -> Any:
    """Return the client of the Dask cluster that joblib has been told to use, or None."""
    return getattr(get_active_backend()[0], "client", None)


def _finished_on_dask(client: Any, tasks: Sequence) -> Iterator[Any]:
    """Submit tasks without joblib, which waits for ever for one that Dask has given up."""
    import distributed

    waiting = distributed.as_completed(
        [client.submit(call, *given, pure=False, **named) for call, given, named in tasks]
    )
    for future in waiting:
        result = future.result()
        del future  # a result that is still asked for is made again when its worker dies
        yield result
