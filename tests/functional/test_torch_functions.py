"""Rules as functions of tensors: on devices that are not the host, compiled, and differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from function_cases import NAMES, Case

torch = pytest.importorskip("torch")

import optgen

pytestmark = pytest.mark.no_cover
READS = ("item", "cpu", "numpy", "tolist", "__bool__", "__float__", "__int__", "__index__")


@contextmanager
def nothing_is_read() -> Iterator[None]:
    """Whatever waits for a device raises."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a tensor was read")

    with pytest.MonkeyPatch.context() as patch:
        for name in READS:
            patch.setattr(torch.Tensor, name, refuse)
        yield


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_reads_nothing_and_keeps_shapes_types_and_devices(name: str, device: str) -> None:
    case = Case(name, "float32")
    rule, function = case.opt.rule, case.opt.function("torch")
    params = [torch.ones(p.shape, device=device) for p in case.params]
    state = function.init(params)
    one = torch.ones((), device=device)
    inputs = {each.name: one if each.extent.name == "STEP" else params for each in rule.inputs}
    given = {key: [one * x for x in v] if isinstance(v, list) else one * v for key, v in case.hyperparameters.items()}
    with nothing_is_read():
        phase = rule.phases[0] if rule.phases else None
        found = function.step(params, params, state, one.to(torch.int64), given, phase=phase, **inputs)
    flat = torch.utils._pytree.tree_leaves
    pairs = [*zip(params, found.params, strict=True), *zip(flat(state), flat(found.state), strict=True)]
    for old, new in pairs:
        assert old is new is None or (old.shape, old.dtype, old.device) == (new.shape, new.dtype, new.device)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_step_is_one_graph_that_is_never_compiled_again(backend: str) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend
    from torch.fx.experimental.proxy_tensor import make_fx

    lamb = optgen.LAMB().function("torch")
    graphs = CompileCounterWithBackend(backend)
    step, compiled = None, 0
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(4, 5), (7,)]]
    theirs, state = params, lamb.init(params)
    kept = state
    for t in range(1, 30):
        grads = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in params]
        count, given = torch.tensor(t), {"eta": torch.tensor(0.1 / t, dtype=torch.float64)}
        if step is None:
            graph = make_fx(lambda *given: lamb(*given))(params, grads, state, count, given)
            step = torch.compile(graph, backend=graphs, fullgraph=True)  # nothing is left outside
        params, state = step(params, grads, state, count, given)
        compiled = compiled or graphs.frame_count
        theirs, kept = lamb(theirs, grads, kept, count, given)
    assert 0 < graphs.frame_count == compiled, "it was compiled again after the first step"
    torch.testing.assert_close(params, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["ADAM", "Adan", "LAMB", "RAdam", "Lookahead", "ScheduleFreeSGD", "Descent"])
def test_gradients_flow_through_steps(name: str) -> None:
    case = Case(name)
    function, rate = case.opt.function("torch"), "eta"
    params, grads = (
        [torch.from_numpy(x[:3, :3] if x.ndim == 2 else x[:2]) for x in xs[:2]] for xs in (case.params, case.grads[0])
    )
    own = case.hyperparameters.get(rate)

    def unrolled(eta: Any, *tensors: Any) -> Any:
        mine, given = list(tensors[: len(params)]), list(tensors[len(params) :])
        state = function.init(mine)
        for t in range(1, 4):
            mine, state = function(
                mine, [g * p for g, p in zip(given, mine, strict=True)], state, t, {rate: eta} if own else {}
            )
        return tuple(mine)

    tensors = [x.clone().requires_grad_() for x in (torch.tensor(0.05, dtype=torch.float64), *params, *grads)]
    assert torch.autograd.gradcheck(unrolled, tensors, atol=1e-6, rtol=1e-4, check_undefined_grad=False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_are_computed_in_float32(dtype: str) -> None:
    p = torch.linspace(-1, 1, 50, dtype=getattr(torch, dtype))
    adam = optgen.ADAM.function("torch")
    state = adam.init([p])
    found, state = adam([p], [p], state, 1)
    wide, _ = adam([p.float()], [p.float()], adam.init([p.float()]), 1)
    assert state["m"][0].dtype == torch.float32
    assert torch.equal(found[0], wide[0].to(p.dtype))
