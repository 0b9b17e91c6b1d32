"""Several processes that train one model together, as `torchrun` starts them.

Each process, a *rank*, holds the whole model and takes its share of every batch. Gradients are
averaged, measurements are added up, and rank 0 alone writes and prints. One process alone is the
ordinary case, in which nothing here does anything.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from tlbook.batches import Batches, TensorBatches, example_count
from tlbook.loop import Metrics, TrainingError


class Ranks:
    """The processes of a run: which one this is, how many there are, and what they share.

    Example:
        >>> ranks = Ranks(torch.device("cpu"))
        >>> ranks.index, ranks.count, ranks.is_first
        (0, 1, True)
    """

    def __init__(self, device: torch.device) -> None:
        self.index, self.count, self.device = 0, 1, device
        self._accelerator = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator

            self._accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
            self.index = self._accelerator.process_index
            self.count = self._accelerator.num_processes
            self.device = self._accelerator.device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.index == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model to train: the same weights on every rank, gradients averaged.

        From here on ranks draw different random numbers, so that no two drop the same units.
        """
        if self._accelerator is None:
            return model
        wrapped = self._accelerator.prepare_model(model)
        torch.manual_seed(torch.initial_seed() + self.index)
        return wrapped

    def share(self, batches: Batches) -> Batches:
        """Return batches that hold this rank's part of each; together they hold all examples.

        Raises:
            TrainingError: if there are fewer than two examples for each rank.
        """
        if self.count == 1:
            return batches
        if example_count(batches) < 2 * self.count:
            raise TrainingError(
                f"{example_count(batches)} examples for {self.count} processes: expected at "
                "least two for each; start fewer processes"
            )
        if isinstance(batches, TensorBatches):
            batches.share = lambda steps: split_steps(steps, self.index, self.count)
            return batches
        return self._share_loader(batches)

    def _share_loader(self, loader: DataLoader) -> DataLoader:
        if isinstance(loader.sampler, RandomSampler) and loader.sampler.generator is None:
            # All ranks must draw the same order: rank 0 says which.
            seed = torch.randint(2**31, (1,), device=self.device)
            torch.distributed.broadcast(seed, src=0)
            loader.sampler.generator = torch.Generator().manual_seed(int(seed))
        return DataLoader(
            loader.dataset,
            batch_sampler=_SharedSteps(loader.batch_sampler, self),
            generator=loader.generator,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            persistent_workers=loader.persistent_workers,
        )

    def backward(self, loss: Tensor, examples: int) -> None:
        """Compute gradients of the mean loss over the examples of all ranks.

        The average that DistributedDataParallel takes counts every rank alike, whatever the size
        of its share.
        """
        if self._accelerator is None:
            loss.backward()
            return
        total = torch.tensor(float(examples), device=loss.device)
        torch.distributed.all_reduce(total)
        (loss * (examples * self.count / total)).backward()

    def combine(self, measured: Metrics) -> Metrics:
        """Add up what the ranks have measured on their shares."""
        if self._accelerator is None:
            return measured
        loss, accuracy, examples = measured
        sums = torch.tensor([loss * examples, (accuracy or 0.0) * examples, examples])
        sums = sums.double().to(self.device)
        torch.distributed.all_reduce(sums)
        loss, correct, examples = sums.tolist()
        shared = None if accuracy is None else correct / examples
        return Metrics(loss / examples, shared, int(examples))

    def agree_on_buffers(self, model: nn.Module) -> None:
        """Give every rank the running statistics of rank 0."""
        for buffer in model.buffers() if self.count > 1 else ():
            torch.distributed.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait until every rank has come to this point."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def loss_of_others(self, error: RuntimeError) -> TrainingError | None:
        """Say in plain words that another rank is gone, where that is what an error means."""
        lost = any(word in str(error) for word in ("gloo", "NCCL", "Connection closed"))
        if self.count == 1 or not lost:
            return None
        return TrainingError(
            f"process {self.index} of {self.count} lost another one, whose own message says why it "
            "ended. With checkpoint= the same command goes on from the last finished epoch"
        )


def split_steps(
    steps: Iterable[Sequence[int] | Tensor], index: int, count: int
) -> Iterator[Tensor]:
    """Yield every count-th example of each step, from the index-th on.

    A last step with fewer than two examples for each rank joins the step before it.

    Example:
        >>> steps = torch.arange(9).split(4)
        >>> [[step.tolist() for step in split_steps(steps, rank, 2)] for rank in (0, 1)]
        [[[0, 2], [4, 6, 8]], [[1, 3], [5, 7]]]
    """
    merged = False
    for step, following in pairwise(chain(steps, [None])):
        if merged:
            return
        if following is not None and len(following) < 2 * count:
            step, merged = torch.cat([torch.as_tensor(s) for s in (step, following)]), True
        yield torch.as_tensor(step)[index::count]


class _SharedSteps:
    """A batch sampler that yields one rank's share of another one's batches."""

    def __init__(self, steps: Sequence, ranks: Ranks) -> None:
        self.steps, self.ranks = steps, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for step in split_steps(self.steps, self.ranks.index, self.ranks.count):
            yield step.tolist()

    def __len__(self) -> int:
        return len(self.steps)
