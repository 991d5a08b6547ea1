"""Checks of matrices in shards, each of which one process steps whole: `python matrix_ranks.py FOLDER 3:CHECK,CHECK`.

As in `ranks.py`, each check runs in the given number of processes, which draw the same random numbers.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import close, expect_same, expect_same_models, follow, main, whole
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import optgen.torch as optim
from optgen.errors import ArrayError, HyperparameterError, StateError
from optgen.torch import matrix_library
from optgen.torch.owners import balanced

#: Matrices with rows that do not divide, with fewer rows than processes, and several of one shape; and the dimension
#: along which each is cut.
MATRICES = (((5, 3), 0), ((2, 7), 0), ((3, 4), 1), ((1, 4), 0), ((8, 6), 0), ((8, 6), 0), ((8, 6), 0), ((8, 6), 1))
RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Muon", {}), ("NorMuon", {"half": False}), ("SOAP", {}), ("Kron", {}), ("APOLLO", {"rank": 1}),
)  # fmt: skip
#: The others are stepped by two processes.
OTHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("AdaMuon", {}), ("AdaGO", {}), ("Scion", {}), ("Shampoo", {}), ("SPlus", {}), ("GaLore", {"rank": 1}),
    ("Fira", {"rank": 1}), ("Conda", {}), ("Dion", {"rank": 1}),
)  # fmt: skip


def line() -> Any:
    return init_device_mesh("cpu", (dist.get_world_size(),))


class Pair:
    """An optimiser of whole matrices, and one of the same in shards."""

    def __init__(self, name: str, arguments: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
        mesh = line()
        self.laid = [(mesh, [Shard(dim)]) for _, dim in MATRICES]
        start = [torch.randn(shape).to(dtype) for shape, _ in MATRICES]
        self.ours = [nn.Parameter(p.clone()) for p in start]
        self.theirs = [nn.Parameter(distribute_tensor(p, *laid)) for p, laid in zip(start, self.laid, strict=True)]
        make = getattr(optim, name)
        self.a, self.b = make(self.ours, **arguments), make(self.theirs, **arguments)

    def gradients(self) -> None:
        for p, q, laid in zip(self.ours, self.theirs, self.laid, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = distribute_tensor(p.grad.clone(), *laid)

    def step(self) -> None:
        self.gradients()
        self.a.step()
        self.b.step()

    def expect_same(self) -> None:
        expect_same(self.a, self.b, self.ours, self.theirs, 0.0)


def every_rule_has_the_bits_of_one_process() -> None:
    for name, arguments in (*RULES, *OTHERS) if dist.get_world_size() == 2 else RULES:
        pair = Pair(name, arguments)
        for _ in range(2):
            pair.step()
        pair.expect_same()


def sixteen_bits_are_stepped_whole() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        pair = Pair("Muon", {"lr": 0.1}, dtype)
        pair.step()
        pair.step()
        pair.expect_same()


def replicas_of_shards_are_stepped() -> None:
    mesh = init_device_mesh("cpu", (2, 2))
    start = torch.randn(5, 3)
    p, q = nn.Parameter(start.clone()), nn.Parameter(distribute_tensor(start, mesh, [Replicate(), Shard(0)]))
    a, b = optim.SOAP([p], lr=0.1), optim.SOAP([q], lr=0.1)
    for _ in range(3):
        p.grad = torch.randn(5, 3)
        q.grad = distribute_tensor(p.grad.clone(), mesh, [Replicate(), Shard(0)])
        a.step()
        b.step()
    expect_same(a, b, [p], [q], 0.0)
    q = nn.Parameter(distribute_tensor(start, mesh, [Shard(0), Shard(1)]))
    q.grad = torch.ones_like(q)
    expect_refused(optim.SOAP([q]), [q], "SOAP needs whole matrices, and puts them together along one dimension")


# ---- A model ----


def model() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 1))


def sharded() -> nn.Module:
    made = model()
    for layer in made:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    return fully_shard(made)


def split_of(net: nn.Module) -> Any:
    lines = {"rest": optim.AdamW.options(lr=0.01), "rest_names": "4"}
    return optim.split(net, matrices=optim.SOAP.options(lr=0.01, every=2), **lines)


def a_model_is_stepped_by_two_rules() -> None:
    a, b = sharded(), model()
    opt, other = split_of(a), split_of(b)
    follow(a, opt, 0, 4)
    follow(b, other, 0, 4)
    expect_same_models(a, b)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        for key, value in other.state[q].items():
            close(whole(opt.state[p][key]), value, 0.0)


# ---- What is refused ----


def here(x: Any) -> torch.Tensor:
    """What this process has of a tensor."""
    return (x.to_local() if isinstance(x, DTensor) else x).detach().clone()


def expect_refused(opt: Any, params: list[Any], match: str, error: type[Exception] = ArrayError) -> None:
    """Assert that a step is refused on this process, and that nothing has changed."""
    before = [here(p) for p in params]
    states = [{key: here(x) for key, x in opt.state.get(p, {}).items()} for p in params]
    with pytest.raises(error, match=match):
        opt.step()
    for p, kept, own in zip(params, before, states, strict=True):
        assert torch.equal(here(p), kept)
        assert opt.state.get(p, {}).keys() == own.keys()
        assert all(torch.equal(here(opt.state[p][key]), x) for key, x in own.items())


def a_refused_step_changes_nothing_anywhere() -> None:
    first = dist.get_rank() == 0
    theirs = "process 0 refused the step: "
    pair = Pair("SOAP", {})
    for _ in range(2):  # before the first step, and later
        pair.gradients()
        if first:
            pair.b.param_groups[0]["lr"] = -1.0
        message = "got -1" if first else theirs + "HyperparameterError"
        expect_refused(pair.b, pair.theirs, message, HyperparameterError if first else ArrayError)
        pair.b.param_groups[0]["lr"] = pair.a.param_groups[0]["lr"]
        pair.a.step()
        pair.b.step()
        pair.expect_same()
    net = sharded()
    opt = split_of(net)
    *params, last = net.parameters()
    for p in (*params, last):
        p.grad = torch.ones_like(p)
    if first:  # in the other line
        opt.state[last] = {"step": torch.ones(()), "exp_avg": torch.ones(9), "exp_avg_sq": torch.ones(9)}
    message = "exp_avg: expected shape" if first else theirs + "StateError"
    expect_refused(opt, [*params, last], message, StateError if first else ArrayError)


def processes_must_step_the_same() -> None:
    pair = Pair("Muon", {})
    pair.gradients()
    kept = pair.theirs[4].grad
    if dist.get_rank() == 1:
        pair.theirs[4].grad = None
    expect_refused(pair.b, pair.theirs, "expected all processes to step the same parameters")
    pair.theirs[4].grad = kept
    pair.b.param_groups[0]["lr"] = 0.1 * (dist.get_rank() + 1)
    expect_refused(pair.b, pair.theirs, "with the same hyperparameters")
    if dist.get_rank() == 0:  # which says that a GradScaler has found infinities
        pair.b.found_inf = torch.ones(())
    pair.b.param_groups[0]["lr"] = 0.1
    if dist.get_rank() == 0:
        with pytest.raises(ArrayError, match="the same parameters"):
            pair.b.step()
    else:
        expect_refused(pair.b, pair.theirs, "the same parameters")


def an_owner_that_fails_stops_all() -> None:
    pair = Pair("SOAP", {})
    pair.gradients()
    compute, first = matrix_library.TorchMatrices.compute, dist.get_rank() == 0

    def fail(*args: Any) -> None:
        raise MemoryError("no room for a product")

    if first:
        matrix_library.TorchMatrices.compute = fail  # type: ignore[method-assign]
    before = [whole(p.detach()).clone() for p in pair.theirs]
    try:
        with pytest.raises(MemoryError if first else ArrayError, match="no room for a product"):
            pair.b.step()
    finally:
        matrix_library.TorchMatrices.compute = compute  # type: ignore[method-assign]
    assert all(torch.equal(whole(p.detach()), x) for p, x in zip(pair.theirs, before, strict=True))
    assert not any(float(pair.b.state[p]["step"]) for p in pair.theirs)
    pair.a.step()
    pair.b.step()
    pair.expect_same()


def what_cannot_be_put_together_is_refused() -> None:
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()))
    whole_line = [Replicate(), Shard(0)]
    p = nn.Parameter(distribute_tensor(torch.ones(4, 2), mesh, whole_line))
    p.grad = torch.ones_like(p)
    optim.Muon([p]).step()  # a mesh of one process cuts nothing
    assert balanced([1, 1, 5, 2, 2], 3) == [1, 2, 0, 1, 2]
    assert balanced([], 2) == []
    rule = Path(sys.argv[1], f"grouped{dist.get_rank()}.toml")
    rule.write_text('name = "Grouped"\n[update]\nformulas = "p = p - 0.1*(g @ g.T) @ p/norm(g, group)"\n')
    opt = optim.load(rule)([p := nn.Parameter(distribute_tensor(torch.ones(4, 2), line(), [Shard(0)]))])
    p.grad = torch.ones_like(p)
    expect_refused(opt, [p], "Grouped reduces over its matrices, which are cut")


# ---- Checkpoints ----


def folder() -> Path:
    return Path(sys.argv[1], "matrices")


def a_matrix_checkpoint_is_saved() -> None:
    net = sharded()
    opt = split_of(net)
    follow(net, opt, 0, 3)
    weights, states = get_state_dict(net, opt)
    kept = states["state"]["2.weight"]
    assert kept["L"].shape == (7, 7)
    assert kept["L"].placements == (Shard(0),)
    dcp.save({"model": weights, "optim": states}, checkpoint_id=folder())


def expect_as_alone(net: nn.Module, opt: Any) -> None:
    """Go on, and assert that it ends where one process ends that was not interrupted."""
    follow(net, opt, 3, 6)
    other = model()
    alone = split_of(other)
    follow(other, alone, 0, 6)
    expect_same_models(net, other)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        for key, value in alone.state[q].items():
            close(whole(opt.state[p][key]), value, 0.0)


def a_matrix_checkpoint_is_loaded() -> None:
    net = sharded() if dist.is_initialized() else model()
    opt = split_of(net)
    weights, states = get_state_dict(net, opt)
    dcp.load({"model": weights, "optim": states}, checkpoint_id=folder())
    set_state_dict(net, opt, model_state_dict=weights, optim_state_dict=states)
    expect_as_alone(net, opt)


def a_whole_state_is_loaded() -> None:
    net = sharded()
    opt = split_of(net)
    follow(net, opt, 0, 3)
    full = StateDictOptions(full_state_dict=True)
    weights, states = get_state_dict(net, opt, options=full)
    assert states["state"]["2.weight"]["L"].shape == (7, 7)
    assert not hasattr(states["state"]["2.weight"]["L"], "placements")
    saved = copy.deepcopy((weights, states))
    again = sharded()
    resumed = split_of(again)
    set_state_dict(again, resumed, model_state_dict=saved[0], optim_state_dict=saved[1], options=full)
    expect_as_alone(again, resumed)


if __name__ == "__main__":
    main(globals())
