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
        n_jobs: how many run at the same time, as joblib takes it.

    Example:
        >>> sorted(finished([joblib.delayed(abs)(number) for number in (-1, -2)], n_jobs=1))
        [1, 2]
    """
    if get_active_backend()[0].supports_return_generator:
        yield from Parallel(n_jobs, batch_size=1, return_as="generator_unordered")(tasks)
        return
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
    client = getattr(get_active_backend()[0], "client", None)
    if client is None:
        return array
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # it is sent once
        return client.submit(np.asarray, array, pure=False)


def received(thing: Any) -> Any:
    """Return an array that was handed over, inside the task that needs it.

    A worker has it already. But where a cluster has one worker alone, joblib runs the tasks in the
    caller's process, and there it has to be fetched.
    """
    return thing.result() if hasattr(thing, "result") else thing
