"""Whatever a state dict holds, loading it works or says what is wrong with it, changes nothing, and runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hostile
import numpy as np
import pytest

import optgen
from optgen.errors import OptgenError, StateError

SUBJECTS: dict[str, Callable[[], Any]] = {
    "ADAM": lambda: optgen.ADAM(eta=optgen.warmup(3, optgen.cosine(0.1, steps=9)), backend="interpreter"),
    "ADAMW": lambda: optgen.ADAMW(coupled=True, backend="interpreter"),
    "Prodigy": lambda: optgen.Prodigy(backend="interpreter"),
    "SM3": lambda: optgen.SM3(backend="interpreter"),
    "chain": lambda: optgen.chain(optgen.ClipNorm(1.0), optgen.ADAMW(), optgen.EMA(), backend="interpreter"),
}


def plain(node: Any) -> Any:
    """A state dict with arrays as their bytes, to be compared."""
    if isinstance(node, dict):
        return {key: plain(inner) for key, inner in node.items()}
    if isinstance(node, list | tuple):
        return [plain(inner) for inner in node]
    return (node.dtype.str, node.shape, node.tobytes()) if isinstance(node, np.ndarray) else node


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_spoilt_state_dict_is_loaded_or_refused_in_words_and_runs_nothing(subject: str) -> None:
    opt, ps = SUBJECTS[subject](), [np.ones((2, 3)), np.full(2, 0.5)]
    opt.step(ps, [p + 1 for p in ps])
    saved, messages = opt.state_dict(), list[str]()
    before = plain(saved)
    for i, bad in enumerate(hostile.spoilt(saved, 200)):
        try:
            opt.load_state_dict(bad, ps if i % 2 else None)
        except OptgenError as error:
            messages.append(str(error))
        else:
            opt.load_state_dict(saved, ps)
        assert plain(opt.state_dict()) == before
    assert len(messages) > 120
    assert max(map(len, messages)) < 2500
    assert not hostile.CALLED


@pytest.mark.parametrize(
    "code",
    [
        hostile.Code(),
        optgen.cosine(0.1, steps=9),
        {"schedule": "warmup", "steps": 5, "then": hostile.Code(), "start": 0.0},
        {"schedule": "join", "schedules": [0.1, hostile.Code()], "boundaries": [3]},
    ],
    ids=["a function", "a schedule as an object", "a function in a schedule", "a function in a list"],
)
def test_a_state_dict_cannot_bring_code(code: Any) -> None:
    opt = optgen.ADAM(backend="interpreter")
    for name, value in {"eta": code, "beta": (0.9, code)}.items():
        saved = opt.state_dict()
        saved["hyperparameters"][name] = value
        with pytest.raises(StateError, match=r"expected .*, got"):
            opt.load_state_dict(saved)
    arrays = opt.state_dict()
    arrays["hyperparameters"]["beta"] = np.array([0.9, hostile.Code()])
    with pytest.raises(StateError, match="a state brings no code"):
        opt.load_state_dict(arrays)
    assert repr(opt) == repr(optgen.ADAM(backend="interpreter"))
    assert not hostile.CALLED
