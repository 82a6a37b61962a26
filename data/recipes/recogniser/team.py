"""Several processes that train one model, each on batches of its own.

`torchrun` starts them and tells each its place in the environment. Without it there is one.
"""

import datetime
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = datetime.timedelta(hours=1)


class Team:
    """The processes that train together; one alone is a team, too."""

    def __init__(self) -> None:
        """Join the team that `torchrun` has started, if it has."""
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1:
            dist.init_process_group("gloo", timeout=_PATIENCE)

    def wait(self) -> None:
        """Wait until all have come here."""
        if self.size > 1:
            dist.barrier()

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Set each tensor, of one type, to its mean over the team."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def mean(self, value: float) -> float:
        """The mean of a number that each member has; all get exactly the same."""
        tensor = torch.tensor([value], dtype=torch.float64)
        self.average([tensor])
        return float(tensor)

    def leave(self) -> None:
        """Part, when the training is over."""
        if self.size > 1:
            dist.destroy_process_group()
