"""The processes that train one model together: rank, world size, and collective operations (no-ops for one process)."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch import Tensor


@dataclass(frozen=True)
class DistributedContext:
    """The processes of one training, as torchrun or `accelerate launch` started them."""

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls, *, cuda: bool) -> DistributedContext:
        """Join the others, if there are any; each takes the GPU of its number where `cuda`."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=not cuda)
        return cls(state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this one writes, logs and decides."""
        return self.rank == 0

    def device(self, *, cuda: bool) -> torch.device:
        """Return the device of this process."""
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")

    def add(self, values: Tensor) -> Tensor:
        """Sum values over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def agree(self, values: Tensor) -> Tensor:
        """Return the first one's values, in place."""
        if self.count > 1:
            distributed.broadcast(values, src=0)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Return the values of all processes in order of rank, shape (count, ...)."""
        if self.count == 1:
            return values[None]
        parts = [torch.empty_like(values) for _ in range(self.count)]
        distributed.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()
