"""Several processes: data parallelism (DDP) and sharded weights (FSDP2) under torchrun."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nlpkit.core.train.config import TrainConfig


@dataclass(frozen=True)
class Process:
    """One process among several.

    Attributes:
        rank: Its number.
        world: How many there are.
        device: Where it computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process, so that all decide alike."""
        if self.world == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()

    @contextlib.contextmanager
    def synchronised(self, module: nn.Module, *, last: bool) -> Iterator[None]:
        """Exchange gradients in the last micro-batch of a step only."""
        if self.world > 1 and isinstance(module, nn.parallel.DistributedDataParallel) and not last:
            with module.no_sync():
                yield
            return
        toggle = getattr(module, "set_requires_gradient_sync", None)
        if self.world > 1 and toggle is not None:
            toggle(last)
        yield


SINGLE = Process(0, 1, torch.device("cpu"))


def join(device: torch.device | None = None) -> Process:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: Where to compute; by default this process's GPU, or the CPU.

    Returns:
        This process.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None or device.type == "cuda":
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if world == 1:
        return Process(0, 1, device)
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Process(dist.get_rank(), dist.get_world_size(), device)


def leave() -> None:
    """Leave the processes, if there are several."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def shard(objective: nn.Module, config: TrainConfig, process: Process) -> nn.Module:
    """Wrap a module for several processes.

    Args:
        objective: The model with its loss.
        config: Says whether by DDP or FSDP2.
        process: This process.

    Returns:
        The module itself for one process or FSDP2 (which works in place), else its wrapper.
    """
    if process.world == 1:
        return objective
    if config.parallel == "ddp":
        return nn.parallel.DistributedDataParallel(objective, gradient_as_bucket_view=False)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(process.device.type, (process.world,))
    policy = MixedPrecisionPolicy()
    if config.dtype == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in objective.model.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    return objective


@contextlib.contextmanager
def gathered(objective: nn.Module) -> Iterator[None]:
    """Hold the weights outside the blocks in one piece, so that the model can run without its wrapper."""
    unshard = getattr(objective, "unshard", None)
    reshard = getattr(objective, "reshard", None)
    if unshard is None or reshard is None:
        yield
        return
    unshard()
    try:
        yield
    finally:
        reshard()


def is_sharded(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether any of the tensors is spread over processes."""
    return any(hasattr(tensor, "full_tensor") for tensor in tensors.values())


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece; all processes must ask at once."""
    gather = getattr(tensor, "full_tensor", None)
    result: Tensor = tensor if gather is None else gather()
    return result


def place(target: Tensor, value: Tensor) -> None:
    """Copy a tensor, whole or spread in the same way, into one that may be spread over processes."""
    with torch.no_grad():
        if hasattr(target, "full_tensor") and not hasattr(value, "full_tensor"):
            from torch.distributed.tensor import DTensor, distribute_tensor

            if isinstance(target, DTensor):
                target.copy_(distribute_tensor(value.to(target.device), target.device_mesh, target.placements))
                return
        target.copy_(value)
