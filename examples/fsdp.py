"""LAMB in shards: FSDP2 lays the parameters over the processes, and LAMB needs the norm of each whole tensor.

    pip install ".[torch]"
    torchrun --standalone --nproc-per-node 2 examples/fsdp.py

In: nothing. Out: the losses of a classifier. Half-way the run is saved, and goes on from there in a new model with the
same losses. Any number of processes will do, and no accelerator is needed.
"""

from __future__ import annotations

import gc
import os
import tempfile
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

import optgen.torch as optim

CLASSES, FEATURES, BATCH, STEPS = 10, 20, 32, 60


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around ten centres, of which each process draws its own."""
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
    own = torch.Generator().manual_seed(1 + step * dist.get_world_size() + dist.get_rank())
    labels = torch.randint(CLASSES, (BATCH,), generator=own)
    return centres[labels] + torch.randn(BATCH, FEATURES, generator=own), labels


def build() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)  # the same start everywhere
    model = nn.Sequential(nn.Linear(FEATURES, 33), nn.ReLU(), nn.Linear(33, CLASSES))  # 33 rows: unequal shards
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(model)
    return model, optim.LAMB(model.parameters(), lr=0.02, weight_decay=0.01)


def train(model: nn.Module, opt: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    """The loss of each step, the mean over all processes."""
    curve = []
    for step in range(first, last):
        x, labels = batch(step)
        loss = nn.functional.cross_entropy(model(x), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        curve.append(float(mean))
    return curve


def shared_folder() -> str:
    """A new folder that all processes of this machine know."""
    made: list[Any] = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(made)
    return str(made[0])


def run() -> tuple[list[float], list[float], list[float]]:
    """The losses of the first half, and those of the second one, without and with a checkpoint in between."""
    model, opt = build()
    curve = train(model, opt, 0, STEPS // 2)

    folder = shared_folder()
    weights, states = get_state_dict(model, opt)
    dcp.save({"model": weights, "optim": states}, checkpoint_id=os.path.join(folder, "half-way"))
    expected = train(model, opt, STEPS // 2, STEPS)

    # As another run would, with as many processes as it has.
    model, opt = build()
    weights, states = get_state_dict(model, opt)
    dcp.load({"model": weights, "optim": states}, checkpoint_id=os.path.join(folder, "half-way"))
    set_state_dict(model, opt, model_state_dict=weights, optim_state_dict=states)
    return curve, expected, train(model, opt, STEPS // 2, STEPS)


def main() -> None:
    dist.init_process_group("gloo")
    curve, expected, resumed = run()
    if dist.get_rank() == 0:
        for step in range(0, STEPS, 10):
            print(f"step {step:3}: loss {(curve + resumed)[step]:.3f}")
        print(f"step {STEPS - 1:3}: loss {resumed[-1]:.3f}, on {dist.get_world_size()} processes", flush=True)
    if resumed != expected:
        raise SystemExit("the resumed run went another way")
    if not resumed[-1] < 0.5 * curve[0]:
        raise SystemExit("the loss did not fall")
    # Nobody leaves while another one still talks. Threads of gloo that are left when Python ends now and then abort the
    # process: what refers to them goes first, and the rest with the process.
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main()
