"""Whatever a state dict holds, loading it works or says what is wrong with it, changes nothing, and runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hostile
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import optgen.torch as optim
from optgen.errors import OptgenError, StateError
from optgen.torch.optimizer import naming_of

SUBJECTS: dict[str, Callable[[Any], Any]] = {
    "Adam": lambda ps: optim.Adam(ps, amsgrad=True),
    "SGD": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9),
    "Adafactor": lambda ps: optim.Adafactor(ps),
    "Prodigy": lambda ps: optim.Prodigy(ps),
    "SM3": lambda ps: optim.SM3(ps),
}
TENSORS: list[Callable[[], Any]] = [
    lambda: torch.ones(3), lambda: torch.ones(()), lambda: torch.tensor(3j), lambda: torch.ones(2, 3, device="meta"),
    lambda: torch.ones(2, 3).to_sparse(), lambda: torch.ones(2, 3, dtype=torch.int8),
    lambda: torch.tensor(float("nan")), lambda: torch.ones(2, 3).requires_grad_() * 2, lambda: {0: torch.ones(2, 3)},
]  # fmt: skip


def plain(node: Any) -> Any:
    """A state dict with tensors as their bytes, to be compared."""
    if isinstance(node, dict):
        return {key: plain(inner) for key, inner in node.items()}
    if isinstance(node, list | tuple):
        return [plain(inner) for inner in node]
    return (str(node.dtype), node.shape, node.numpy().tobytes()) if isinstance(node, torch.Tensor) else node


def by_torch(error: BaseException) -> bool:
    """Whether PyTorch's own code raised an error, or what it has called."""
    trace, files = error.__traceback__, []
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return not any(part in files[-1] for part in ("/optgen/", "\\optgen\\"))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_spoilt_state_dict_is_loaded_or_refused_in_words_and_runs_nothing(subject: str) -> None:
    ps = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.full((2,), 0.5))]
    for p in ps:
        p.grad = torch.ones_like(p)
    opt = SUBJECTS[subject]([{"params": ps[:1]}, {"params": ps[1:]}])
    opt.step()
    saved, messages = opt.state_dict(), list[str]()
    saved = {**saved, "state": {i: dict(kept) for i, kept in saved["state"].items()}}
    before = plain(saved)
    for bad in hostile.spoilt(saved, 200, TENSORS):
        try:
            opt.load_state_dict(bad)
        except OptgenError as error:
            messages.append(str(error))
        except Exception as error:
            if not by_torch(error):
                raise
        else:
            opt.load_state_dict(saved)
        assert plain(opt.state_dict()) == before
    assert len(messages) > 60
    assert max(map(len, messages)) < 2500
    assert not hostile.CALLED


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize(
    "value",
    [hostile.Code(), np.zeros(3), "0.1", [hostile.Code()] * 2],
    ids=["a function", "an array", "text", "a list of functions"],
)
def test_what_is_no_number_is_no_hyperparameter(value: Any, subject: str) -> None:
    opt = SUBJECTS[subject]([torch.nn.Parameter(torch.ones(2, 3))])
    for key in naming_of(opt).hypers.values():
        saved = opt.state_dict()
        saved["param_groups"][0][key] = value
        with pytest.raises(StateError, match=f"expected .* as '{key}', got"):
            opt.load_state_dict(saved)
    assert not hostile.CALLED
