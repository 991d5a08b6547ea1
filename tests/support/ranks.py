"""Checks that `test_torch_distributed` runs in several processes: `python ranks.py FOLDER 2:CHECK,CHECK 4:CHECK`.

Each check is a function of this file, run in the given number of processes. Every process writes a JSON file with its
results into FOLDER: by check, an empty text or the traceback. All processes draw the same random numbers.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

import optgen
import optgen.torch as optim
from optgen.errors import ArrayError
from optgen.torch.optimizer import engine_of
from optgen.torch.sharding import aligned

#: Two or four processes get shards of unequal sizes of these, and some get none of (1,).
SHAPES = ((5, 3), (1,), (7,), (4, 2, 3), (6, 2))
ELEMENTWISE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1, "momentum": 0.9}), ("AdamW", {"lr": 0.01}), ("Lion", {"lr": 0.01}),
)  # fmt: skip
#: A rule that needs reductions over whole tensors, before the first sweep and between sweeps.
WHOLE = """
name = "Whole"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
v = { init = "0", extent = "tensor" }
m = { init = "0" }
[update]
formulas = '''
m     = m + g/size
high  = max(g) - min(p)
v     = v + mean(m*m) + high
u     = m/(sqrt(v) + 1) + high
share = norm(p)/(norm(u) + norm(g, group)/sum(norm(p), group)) + mean(abs(g), group)
delta = eta * share * u
'''
"""

Made = Callable[[Any], Any]


def draw(dtype: torch.dtype, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def whole(x: Any) -> Any:
    return x.full_tensor() if isinstance(x, DTensor) else x


def put(x: torch.Tensor, layout: Any) -> torch.Tensor:
    return x.clone() if layout is None else distribute_tensor(x.clone(), *layout)


def layouts() -> list[list[Any]]:
    """Layouts for the tensors of SHAPES: as in FSDP2, and replicated and sharded on both dimensions of a mesh."""
    size = dist.get_world_size()
    line, square = init_device_mesh("cpu", (size,)), init_device_mesh("cpu", (2, size // 2))
    mixed = [
        (square, [Replicate(), Shard(0)]), (square, [Shard(0), Replicate()]), (line, [Shard(0)]),
        (square, [Shard(0), Shard(2)]), None,
    ]  # fmt: skip
    return [[(line, [Shard(0)])] * 4 + [(line, [Replicate()])], mixed]


def both(make: Made, laid: Sequence[Any], dtype: torch.dtype, steps: int = 4) -> tuple[Any, Any, list[Any], list[Any]]:
    """An optimiser of whole tensors and one of shards, after steps on the same gradients, and their parameters."""
    start = draw(dtype)
    ours = [nn.Parameter(p.clone()) for p in start]
    theirs = [nn.Parameter(put(p, layout)) for p, layout in zip(start, laid, strict=True)]
    a, b = make(ours), make(theirs)
    for _ in range(steps):
        for p, q, g, layout in zip(ours, theirs, draw(dtype), laid, strict=True):
            p.grad, q.grad = g, put(g, layout)
        a.step()
        b.step()
    return a, b, ours, theirs


def expect_same(a: Any, b: Any, ours: Sequence[Any], theirs: Sequence[Any], most: float) -> None:
    for p, q in zip(ours, theirs, strict=True):
        close(whole(q.detach()), p.detach(), most)
        assert a.state[p].keys() == b.state[q].keys()
        for key, value in a.state[p].items():
            close(whole(b.state[q][key]), value, most)


def close(x: torch.Tensor, y: torch.Tensor, most: float) -> None:
    torch.testing.assert_close(x, y, rtol=most, atol=most)


# ---- Elementwise rules ----


def shards_of_elementwise_rules() -> None:
    for laid in layouts():
        for name, arguments in ELEMENTWISE:
            for dtype in (torch.float32, torch.float64):
                a, b, ours, theirs = both(lambda ps: getattr(optim, name)(ps, **arguments), laid, dtype)  # noqa: B023
                expect_same(a, b, ours, theirs, 0.0)
                assert all(isinstance(b.state[q][key], DTensor) == isinstance(q, DTensor)
                           for q in theirs for key in b.state[q] if key != "step")  # fmt: skip


def plans_are_kept() -> None:
    _, b, _, theirs = both(optim.AdamW, layouts()[0], torch.float32)
    before = engine_of(b).plans.last
    for q in theirs:
        q.grad = torch.ones_like(q)
    b.step()
    assert engine_of(b).plans.last is before


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))


def sharded() -> nn.Module:
    made = model()
    for layer in made:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    return fully_shard(made)


def twin(of: nn.Module) -> nn.Module:
    made = model()
    made.load_state_dict({key: whole(value).clone() for key, value in of.state_dict().items()})
    return made


def train(of: nn.Module, opt: Any, other: nn.Module | None = None, other_opt: Any = None, steps: int = 3) -> None:
    """Step on a batch of its own in each process. `other` takes the same gradients, gathered."""
    for _ in range(steps):
        batch = torch.randn(dist.get_world_size(), 4, 5)[dist.get_rank()]
        opt.zero_grad()
        of(batch).square().mean().backward()
        for p, q in zip(of.parameters(), other.parameters() if other else (), strict=False):
            q.grad = whole(p.grad).clone()
        opt.step()
        if other_opt:
            other_opt.step()


def expect_same_models(a: nn.Module, b: nn.Module, most: float = 0.0) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        close(whole(p.detach()), whole(q.detach()), most)


def fsdp() -> None:
    for name, arguments in ELEMENTWISE:
        a = sharded()
        b = twin(a)
        make = getattr(optim, name)
        train(a, make(a.parameters(), **arguments), b, make(b.parameters(), **arguments))
        expect_same_models(a, b)


def flattened(orig: bool) -> tuple[nn.Module, nn.Module]:
    """A model by FSDP1, which keeps the parameters or not, and its twin."""
    made = model()
    other = copy.deepcopy(made)
    return FullyShardedDataParallel(made, device_id=torch.device("cpu"), use_orig_params=orig), other


def flat_parameters() -> None:
    clipped = (optgen.ClipGlobalNorm(0.1), optgen.ADAMW())
    for orig in (False, True):
        for name, arguments in ELEMENTWISE:
            a, b = flattened(orig)
            make = getattr(optim, name)
            opt, other = make(a.parameters(), **arguments), make(b.parameters(), **arguments)
            for _ in range(3):
                batch = torch.randn(4, 5)  # the same for each process
                for net, each in ((a, opt), (b, other)):
                    each.zero_grad()
                    net(batch).square().mean().backward()
                    each.step()
            with FullyShardedDataParallel.summon_full_params(a):
                expect_same_models(a, b)
        for name, make in (
            ("LAMB", optim.LAMB), ("NovoGrad", optim.NovoGrad), ("Prodigy", optim.Prodigy), ("SM3", optim.SM3),
            ("Adafactor", optim.Adafactor), ("chain", lambda ps: optim.chain(ps, *clipped)), ("SGLD", optim.SGLD),
        ):  # fmt: skip
            a, _ = flattened(orig)
            opt = make(a.parameters())
            a(torch.ones(4, 5)).square().mean().backward()
            before = [p.detach().clone() for p in a.parameters()]
            message = r"(reduces over|draws random)(.|\n)*FullyShardedDataParallel(.|\n)*use fully_shard"
            with pytest.raises(ArrayError, match=message):
                opt.step()
            assert all(torch.equal(p, q) for p, q in zip(a.parameters(), before, strict=True)), name
            assert not any(opt.state.values()), name


def ddp() -> None:
    made = model()
    a, b = DistributedDataParallel(made), twin(made)
    train(a, optim.AdamW(a.parameters(), lr=0.01), b, optim.AdamW(b.parameters(), lr=0.01))
    expect_same_models(a, b)


def zero() -> None:
    for view in (False, True):
        for name, arguments in ELEMENTWISE:
            made = model()
            a, b = DistributedDataParallel(made), twin(made)
            cls = getattr(optim, name)
            opt = ZeroRedundancyOptimizer(a.parameters(), cls, parameters_as_bucket_view=view, **arguments)
            other = cls(b.parameters(), **arguments)
            train(a, opt, b, other)
            opt.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.02
            train(a, opt, b, other)
            expect_same_models(a, b)
            # Rank 0 has gathered the state of a single process, which any optimiser can load.
            opt.consolidate_state_dict()
            kept = [opt.state_dict() if dist.get_rank() == 0 else None]
            dist.broadcast_object_list(kept)
            assert kept[0] is not None
            for i, q in enumerate(b.parameters()):
                for key, value in other.state[q].items():
                    close(kept[0]["state"][i][key], value, 0.0)
            alone = cls(b.parameters(), **arguments)
            alone.load_state_dict(copy.deepcopy(kept[0]))  # which would share its memory
            again = ZeroRedundancyOptimizer(a.parameters(), cls, parameters_as_bucket_view=view, **arguments)
            again.load_state_dict(copy.deepcopy(kept[0]))
            train(a, again, b, alone)
            expect_same_models(a, b)


# ---- Norms ----


def norm_rules() -> list[tuple[str, Made]]:
    rule = Path(sys.argv[1], f"whole{dist.get_rank()}.toml")
    rule.write_text(WHOLE)
    made = optim.load(rule)
    clipped = (optgen.Unscale(2.0), optgen.ClipGlobalNorm(0.1), optgen.ADAMW(decay=0.1))
    return [
        ("Whole", made), ("LAMB", optim.LAMB), ("NovoGrad", optim.NovoGrad), ("Prodigy", optim.Prodigy),
        ("chain", lambda ps: optim.chain(ps, *clipped)),
    ]  # fmt: skip


def norms_over_whole_tensors() -> None:
    for laid in layouts():
        for name, make in norm_rules():
            a, b, ours, theirs = both(make, laid, torch.float64)
            expect_same(a, b, ours, theirs, 1e-12)
            of_group = {key: float(value) for key, value in (engine_of(a).states.group or {}).items()}
            assert of_group.keys() == engine_of(b).states.group.keys(), name
            for key, value in of_group.items():
                assert abs(float(engine_of(b).states.group[key]) - value) <= 1e-12 * abs(value)
            reports = a.report(), b.report()
            assert reports[0].keys() == reports[1].keys(), name
            assert all(abs(reports[1][key] - value) <= 1e-12 * abs(value) for key, value in reports[0].items())
            every: list[Any] = [None] * dist.get_world_size()
            small = {key: float(value) for q in theirs for key, value in b.state[q].items() if value.dim() == 0}
            of_all = {key: float(value) for key, value in engine_of(b).states.group.items()}
            dist.all_gather_object(every, (small, of_all, reports[1]))
            assert all(each == every[0] for each in every), "the processes do not agree"


def norms_of_a_model() -> None:
    a = sharded()
    b = twin(a)
    train(a, optim.LAMB(a.parameters()), b, optim.LAMB(b.parameters()))
    expect_same_models(a, b, 1e-6)


def a_step_counts_for_all_or_for_none() -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    p = nn.Parameter(distribute_tensor(torch.ones(8), mesh, [Shard(0)]))
    opt = optim.chain([p], optgen.Unscale(2.0), optgen.ADAMW(0.1))
    for bad in (float("nan"), float("inf")):
        g = torch.ones(8)
        g[0] = bad  # on the first process alone
        p.grad = distribute_tensor(g, mesh, [Shard(0)])
        opt.step()
        assert torch.equal(whole(p), torch.ones(8))
    p.grad = torch.ones_like(p)
    opt.step()
    assert (whole(p) < 1).all()
    scaled = optim.chain([p], optgen.LossScale(8.0), optgen.ADAMW(0.1))
    g[0] = float("nan")
    p.grad = distribute_tensor(g, mesh, [Shard(0)])
    scaled.step()
    assert scaled.state_of_all() == {"scale": 4.0, "good": 0.0}


def split_of(net: nn.Module) -> Any:
    """Two rules, one of which needs norms over whole tensors and over all of its line."""
    clipped = optgen.chain(optgen.ClipGlobalNorm(0.1), optgen.ADAMW())
    return optim.split(net, matrices=optim.LAMB.options(lr=0.01), rest=clipped)


def a_split_of_shards() -> None:
    a = sharded()
    b = twin(a)
    opt, other = split_of(a), split_of(b)
    train(a, opt, b, other)
    expect_same_models(a, b, 1e-6)
    weights, states = get_state_dict(a, opt)
    saved = copy.deepcopy((weights, states))
    again = sharded()
    resumed = split_of(again)
    set_state_dict(again, resumed, model_state_dict=saved[0], optim_state_dict=saved[1])
    follow(a, opt, 3, 5)
    follow(again, resumed, 3, 5)
    expect_same_models(a, again)


# ---- What is refused ----


def message_of(
    make: Made, shape: tuple[int, ...], placement: Any, dtype: torch.dtype = torch.float32, first: Sequence[int] = (3,)
) -> str:
    """The message with which the first step is refused; empty if it is not. `first`: the shape of parameter 0."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    q = nn.Parameter(distribute_tensor(torch.ones(first, dtype=dtype), mesh, [Shard(0)]))
    p = nn.Parameter(distribute_tensor(torch.ones(shape, dtype=dtype), mesh, [placement]))
    for x in (q, p):
        x.grad = torch.ones_like(x)
    opt = make([q, p])
    try:
        opt.step()
    except ArrayError as error:
        assert all(torch.equal(whole(x), torch.ones(x.shape, dtype=dtype)) for x in (q, p))
        assert not any(opt.state.get(x) for x in (q, p)), "states were begun"
        return str(error)
    return ""


def cut_rows_and_columns_are_refused() -> None:
    text = message_of(optim.Adafactor, (8, 6), Shard(0))
    assert "parameter 1 of shape (8, 6): Adafactor reduces over its " in text, text
    assert "which are cut: it is sharded along dimension 0" in text, text
    assert "keep that parameter whole" in text, text
    assert "another rule" in text, text
    assert message_of(optim.SM3, (8, 6), Shard(1)).count("which are cut")
    assert "parameter 0 of shape (3,): SGLD draws random numbers" in message_of(optim.SGLD, (8, 6), Replicate())
    assert not message_of(optim.Adafactor, (8, 6), Replicate())
    text = message_of(optim.AdamMini, (8, 6), Replicate())
    assert "parameter 0 of shape (3,): AdamMini reduces over its blocks, which are cut" in text, text
    assert not message_of(optim.Adafactor, (9, 4, 2), Shard(0))
    assert not message_of(optim.Conda, (9, 4, 2), Shard(0), first=(4, 3, 2))


def whole_matrices_are_stepped() -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    laid = [(mesh, [Replicate()]), (mesh, [Shard(0)]), (mesh, [Shard(0)]), (mesh, [Shard(0)]), (mesh, [Replicate()])]
    a, b, ours, theirs = both(lambda ps: optim.Adafactor(ps, lr=0.1), laid, torch.float64)
    expect_same(a, b, ours, theirs, 1e-12)
    rows = b.state[theirs[3]]["row_var"]
    assert rows.shape == (4, 2, 1)
    assert rows.placements == theirs[3].placements  # where a checkpoint looks for its shards
    # A block that is a slice of the first dimension stays whole.
    sliced = [(mesh, [each]) for each in (Shard(0), Replicate(), Replicate(), Shard(0), Shard(0))]
    a, b, ours, theirs = both(lambda ps: optim.AdamMini(ps, lr=0.1), sliced, torch.float64)
    expect_same(a, b, ours, theirs, 0)
    assert b.state[theirs[4]]["v"].shape == (6,)
    assert b.state[theirs[4]]["v"].placements == theirs[4].placements
    # So does a matrix of which the parameter has several; one process may have none.
    for length in (5, 1):
        start, lay = torch.randn(length, 3, 2), (mesh, [Shard(0)])
        p, q = nn.Parameter(start), nn.Parameter(put(start, lay))
        a, b = optim.Conda([p], lr=0.1), optim.Conda([q], lr=0.1)
        for _ in range(3):
            p.grad = torch.randn_like(p)
            q.grad = put(p.grad, lay)
            a.step()
            b.step()
        expect_same(a, b, [p], [q], 1e-6)
        assert b.state[q]["U"].placements == q.placements
    # A row that is a slice of the first dimension stays whole.
    parts = (optgen.GradientCentralisation(), optgen.Momentum())
    a, b, ours, theirs = both(lambda ps: optim.chain(ps, *parts), [(mesh, [Shard(0)])] * 5, torch.float64)
    expect_same(a, b, ours, theirs, 1e-12)


def sixteen_bits() -> None:
    assert not message_of(optim.LAMB, (8, 6), Shard(0), torch.bfloat16)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    start, g = torch.randn(8, 6).bfloat16(), torch.randn(8, 6).bfloat16()
    p, q = nn.Parameter(start.clone()), nn.Parameter(distribute_tensor(start.clone(), mesh, [Shard(0)]))
    p.grad, q.grad = g, distribute_tensor(g, mesh, [Shard(0)])
    for cls in (optim.Lion, optim.LAMB):
        for x in (p, q):
            other = nn.Parameter(torch.ones(1))
            other.grad = torch.ones(1)
            opt = cls([other, x], lr=0.1)
            opt.step()
            opt.step()
        assert not torch.equal(p, start)
        assert torch.equal(whole(q), p)


def storages_of_shards() -> None:
    """To the nearest, states of shards are those of the whole; what goes by the numbers of elements is refused."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    start, g = torch.randn(8, 6), torch.randn(8, 6)

    def stepped(placed: Any, **given: Any) -> Any:
        p = nn.Parameter(distribute_tensor(start.clone(), mesh, placed))
        p.grad = distribute_tensor(g, mesh, placed)
        opt = optim.AdamW([p], lr=0.1, **given)
        opt.step()
        opt.step()
        return whole(p), whole(opt.state[p]["exp_avg"])

    nearest = {"storage": "bfloat16", "rounding": "nearest"}
    assert all(map(torch.equal, stepped([Shard(0)], **nearest), stepped([Replicate()], **nearest)))
    for given, does in (
        ({"storage": "bfloat16"}, "rounds stochastically by the numbers of elements in whole parameters"),
        ({"storage": "log8", "rounding": "nearest"}, "keeps blocks of neighbours of whole parameters"),
    ):
        with pytest.raises(ArrayError, match=does):
            stepped([Shard(0)], **given)


def gradients_are_laid_out_as_their_parameters() -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for kind in ([Replicate()], [Shard(0)]):
        p = nn.Parameter(distribute_tensor(torch.arange(6.0), mesh, kind))
        opt = optim.SGD([p], lr=1.0)
        for _ in range(2):
            p.grad = DTensor.from_local(torch.ones(6), mesh, [Partial()])
            opt.step()
        assert torch.equal(whole(p), torch.arange(6.0) - 2 * dist.get_world_size())
    # A gradient still in transfer is waited for.
    p = nn.Parameter(distribute_tensor(torch.zeros(6), mesh, [Replicate()]))
    opt = optim.SGD([p], lr=1.0)
    for _ in range(2):
        here = DTensor.from_local(torch.ones(6), mesh, [Partial()])
        p.grad = here.redistribute(placements=[Replicate()], async_op=True)
        opt.step()
    assert torch.equal(whole(p), torch.full((6,), -2.0 * dist.get_world_size()))
    # A rule that writes into gradients needs them placed like their parameters.
    p.grad = DTensor.from_local(torch.ones(6), mesh, [Partial()])
    for grad, expected in ((p.grad, "a gradient placed as"), (torch.zeros(6), "on the mesh of the parameter, got")):
        with pytest.raises(ArrayError, match=expected):
            aligned(p, grad, 0, overwrites=True)


# ---- Checkpoints ----


CHECKPOINTED: tuple[tuple[str, dict[str, Any]], ...] = (*ELEMENTWISE, ("NovoGrad", {"lr": 0.01}), ("Prodigy", {}))


def begin(name: str, arguments: dict[str, Any], made: Callable[[], nn.Module]) -> tuple[nn.Module, Any]:
    torch.manual_seed(7)
    net = made()
    return net, getattr(optim, name)(net.parameters(), **arguments)


def follow(net: nn.Module, opt: Any, first: int, last: int) -> None:
    """Take steps with gradients that do not depend on the number of processes."""
    for t in range(first, last):
        torch.manual_seed(100 + t)
        for p in net.parameters():
            g = torch.randn(p.shape)
            p.grad = distribute_tensor(g, p.device_mesh, p.placements) if isinstance(p, DTensor) else g
        opt.step()


def a_checkpoint_is_saved() -> None:
    for name, arguments in CHECKPOINTED:
        net, opt = begin(name, arguments, sharded)
        follow(net, opt, 0, 3)
        weights, states = get_state_dict(net, opt)
        dcp.save({"model": weights, "optim": states}, checkpoint_id=Path(sys.argv[1], "saved", name))


def resume(folder: Path, name: str, arguments: dict[str, Any], made: Callable[[], nn.Module], most: float) -> None:
    """Assert that a run resumed from the checkpoint ends where a run in one process ends."""
    net, opt = begin(name, arguments, made)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    weights, states = get_state_dict(net, opt)
    dcp.load({"model": weights, "optim": states}, checkpoint_id=folder / name)
    set_state_dict(net, opt, model_state_dict=weights, optim_state_dict=states)
    follow(net, opt, 3, 6)
    other, alone = begin(name, arguments, model)
    follow(other, alone, 0, 6)
    expect_same_models(net, other, most)
    for key, value in engine_of(alone).states.group.items():
        assert math.isclose(engine_of(opt).states.group[key], value, rel_tol=1e-6), key
    assert "of_all_parameters" not in opt.param_groups[0]


def a_checkpoint_is_loaded() -> None:
    made = sharded if dist.is_initialized() else model
    for name, arguments in CHECKPOINTED:
        resume(Path(sys.argv[1], "saved"), name, arguments, made, 0.0 if (name, arguments) in ELEMENTWISE else 1e-6)


# ---- The processes ----


def run(rank: int, folder: str, size: int, names: Sequence[str], checks: Mapping[str, Callable[[], None]]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        store = Path(folder, f"store{size}").absolute().as_uri()
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=20))
    found = {}
    for name in names:
        torch.manual_seed(0)
        found[name] = ""
        begun = time.monotonic()
        try:
            checks[name]()
        except Exception:
            found[name] = traceback.format_exc()
        print(f"{name}, rank {rank} of {size}: {time.monotonic() - begun:.1f} s", flush=True)
        Path(folder, f"{size}-{rank}.json").write_text(json.dumps(found))
    if size > 1:
        dist.destroy_process_group()


def main(checks: Mapping[str, Callable[[], None]]) -> None:
    """Run the checks that the command line names."""
    for group in sys.argv[2:]:
        count, _, names = group.partition(":")
        # Forked, since imports take most of the time.
        own = (sys.argv[1], int(count), names.split(","), checks)
        start_processes(run, own, int(count), start_method="fork")


if __name__ == "__main__":
    main(globals())
