"""Where there is more to a tensor, or to an operation, than memory: modes that trace, fake tensors, tensors without
memory, and classes with operations of their own. Kernels would change memory unseen there."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode
from torch_pairs import NAMES, ULPS, Scales, give, optim, ours, parameters, same_bits, tensors_of, theirs, twins

import optgen
from optgen.errors import ArrayError, StateError

SHAPES = ((3, 4), (5,))
SOME_OWN = ["LAMB", "Lion", "Prodigy", "chain"]


def made(name: str, params: Any) -> Any:
    if name == "chain":
        return optim.chain(params, optgen.ClipGlobalNorm(0.5), optgen.AdamW())
    return ours(name, params)


class Recording(TorchDispatchMode):
    """The operations that change a tensor in place."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.endswith("_"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class Wrapped(torch.Tensor):
    """A tensor with operations of its own, as those of torchao: it has no memory, and hands all to another one."""

    inner: Any

    @staticmethod
    def __new__(cls, inner: Any) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inner = tree_map_only(cls, lambda x: x.inner, (args, kwargs or {}))
        found = func(*inner[0], **inner[1])
        return args[0] if found is inner[0][0] else tree_map_only(torch.Tensor, cls, found)


# ---- Modes ----


@pytest.mark.parametrize("name", NAMES)
def test_a_mode_sees_every_operation_of_a_step(name: str) -> None:
    params = parameters(shapes=SHAPES)
    copies = twins(params)
    there, here = theirs(name, params), ours(name, copies)
    scales = Scales(ULPS)
    for t in range(6):
        give([params, copies], t)
        if t in (2, 4):
            with Recording() as expected:
                there.step()
            with Recording() as seen:
                here.step()
            assert seen.seen == expected.seen != []
        else:
            there.step()
            here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


@pytest.mark.parametrize("name", SOME_OWN)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_rule_that_pytorch_lacks_is_refused_under_a_mode(name: str, steps: int) -> None:
    params = parameters(shapes=SHAPES)
    optimiser = made(name, params)
    for t in range(steps):
        give([params], t)
        optimiser.step()
    give([params], steps)
    before, states = tensors_of(optimiser, params), copy.deepcopy(optimiser.state_dict())
    for mode in (Recording(), FlopCounterMode(display=False), FakeTensorMode(allow_non_fake_inputs=True)):
        with mode, pytest.raises(ArrayError, match=rf"{type(mode).__name__} is active(.|\n)*hint: step outside of it"):
            optimiser.step()
        assert same_bits(tensors_of(optimiser, params), before)
        assert optimiser.state_dict()["param_groups"] == states["param_groups"]
    optimiser.step()
    assert not torch.equal(params[0], before[0]["p"])


def stepped(name: str) -> Any:
    def step(p: Any, g: Any) -> Any:
        optimiser = ours(name, [p], lr=0.1)
        p.grad = g
        optimiser.step()
        return p.clone()

    return step


@pytest.mark.parametrize("how", [{}, {"pre_dispatch": True}, {"tracing_mode": "fake"}], ids=str)
@pytest.mark.parametrize("name", ["SGD", "Rprop"])
def test_a_graph_that_was_traced_trains(name: str, how: Any) -> None:
    graph = make_fx(stepped(name), **how)(torch.ones(3), torch.ones(3))
    for start in (2.0, 3.0):
        p = torch.full((3,), start)
        expected = stepped(name)(p.clone(), torch.ones(3))
        assert torch.equal(graph(p, torch.ones(3)), expected)
        assert (expected < start).all()


@pytest.mark.parametrize("how", [{}, {"pre_dispatch": True}, {"tracing_mode": "fake"}], ids=str)
def test_a_rule_that_pytorch_lacks_is_not_traced(how: Any) -> None:
    with pytest.raises(ArrayError, match=r"Lion: \w+ is active"):
        make_fx(stepped("Lion"), **how)(torch.ones(3), torch.ones(3))


def test_a_trace_of_torchscript_sees_a_step() -> None:
    def trace(name: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.trace(stepped(name), (torch.ones(3), torch.ones(3)), check_trace=False)

    assert torch.equal(trace("SGD")(torch.full((3,), 2.0), torch.ones(3)), torch.full((3,), 1.9))
    with pytest.raises(ArrayError, match=r"Lion: torch.jit.trace is active"):
        trace("Lion")


# ---- Tensors ----


def fake(x: Any) -> Any:
    return _FAKES.from_tensor(x)


_FAKES = FakeTensorMode()
KINDS = {"fake": fake, "meta": lambda x: x.to("meta"), "wrapped": Wrapped}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_whose_memory_says_nothing_is_stepped_by_pytorch(name: str, kind: str) -> None:
    found = []
    for make in (theirs, ours):
        params = [torch.nn.Parameter(KINDS[kind](torch.ones(3, 4))), torch.nn.Parameter(torch.ones(3))]
        optimiser, error = make(name, params), ""
        for t in range(3):
            params[0].grad = KINDS[kind](torch.full((3, 4), t + 1.0))
            params[1].grad = torch.full((3,), t + 1.0)
            try:
                optimiser.step()
            except Exception as raised:
                error = f"{type(raised)}: {raised}"
        found.append((optimiser, params, error))
    (there, (p, q), expected), (here, (r, s), error) = found
    assert error == expected
    if error:  # the rule looks at numbers, and there are none
        assert torch.equal(s, torch.ones(3))
        return
    assert {key: type(x) for key, x in here.state[r].items()} == {key: type(x) for key, x in there.state[p].items()}
    assert not torch.equal(s, torch.ones(3))
    Scales(ULPS).compare(tensors_of(here, [s]), tensors_of(there, [q]))
    if kind == "wrapped":
        assert torch.equal(r.inner, p.inner)
        assert not torch.equal(r.inner, torch.ones(3, 4))


@pytest.mark.parametrize("name", SOME_OWN)
@pytest.mark.parametrize(("kind", "reason"), [
    ("fake", "a FakeTensor has operations of its own"), ("wrapped", "a Wrapped has operations of its own"),
    ("gradient", "a Wrapped has operations of its own"),
])  # fmt: skip
def test_a_rule_that_pytorch_lacks_steps_memory_alone(name: str, kind: str, reason: str) -> None:
    params = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(KINDS.get(kind, torch.clone)(torch.ones(3)))]
    optimiser = made(name, params)
    params[0].grad, params[1].grad = torch.ones(3), KINDS.get(kind, Wrapped)(torch.ones(3))
    with pytest.raises(ArrayError, match=rf"parameter 1(.|\n)*{reason}(.|\n)*a rule that PyTorch has too"):
        optimiser.step()
    assert torch.equal(params[0], torch.ones(3))
    assert not optimiser.state


@pytest.mark.parametrize(("kind", "name"), [("meta", "AdamW"), ("wrapped", "AdamW"), ("wrapped", "NAdam")])
def test_states_are_loaded_for_what_pytorch_steps(kind: str, name: str) -> None:
    first, *others = (torch.nn.Parameter(KINDS[kind](torch.ones(3))) for _ in range(3))
    saved = ours(name, [first])
    first.grad = KINDS[kind](torch.ones(3))
    saved.step()
    found = []
    for make, p in zip((ours, theirs), others, strict=True):
        optimiser = make(name, [p])
        optimiser.load_state_dict(saved.state_dict())
        found.append({key: (type(x), x.device, x.dtype) for key, x in optimiser.state[p].items()})
        p.grad = KINDS[kind](torch.ones(3))
        optimiser.step()
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["AdamW", "LAMB"])
def test_a_state_without_memory_is_refused(name: str) -> None:
    params = parameters(shapes=SHAPES)
    optimiser = ours(name, params)
    give([params], 0)
    optimiser.step()
    key = next(key for key in optimiser.state[params[1]] if key != "step")
    optimiser.state[params[1]][key] = Wrapped(optimiser.state[params[1]][key])
    before = [p.detach().clone() for p in params]
    with pytest.raises(StateError, match=rf"parameter 1: its state {key}(.|\n)*in memory of the CPU(.|\n)*Wrapped"):
        optimiser.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))


def test_zeros_that_are_not_in_memory() -> None:
    """Such as autograd gives where nothing depends on a parameter."""
    for name in ("SGD", "AdamW"):
        params = parameters(shapes=SHAPES)
        copies = twins(params)
        there, here = theirs(name, params), ours(name, copies)
        for t in range(3):
            give([params, copies], t)
            if t == 1:
                params[0].grad, copies[0].grad = (torch._efficientzerotensor(SHAPES[0]) for _ in range(2))
            there.step()
            here.step()
        Scales(ULPS).compare(tensors_of(here, copies), tensors_of(there, params))
    give([params], 0)
    params[0].grad = torch._efficientzerotensor(SHAPES[0])
    with pytest.raises(ArrayError, match=r"parameter 0: Lion(.|\n)*these zeros are not(.|\n)*torch.zeros_like"):
        optim.Lion(params).step()


def test_a_transform_of_torch_func() -> None:
    p = torch.nn.Parameter(torch.ones(2))

    def stepped_by(name: str) -> Any:
        def step(g: Any) -> Any:
            p.grad = g
            ours(name, [p], lr=0.1).step()
            return g

        return step

    with pytest.raises(ArrayError, match=r"parameter 0: Lion(.|\n)*a transform of torch.func(.|\n)*step outside of it"):
        torch.func.vmap(stepped_by("Lion"))(torch.ones(3, 2))
    with pytest.raises(RuntimeError, match=r"vmap|broadcast"):  # as PyTorch's own
        torch.func.vmap(stepped_by("SGD"))(torch.ones(3, 2))
    p.grad = None
    assert torch.equal(p, torch.ones(2))
