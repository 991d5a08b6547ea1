"""What version 0.1.0 wrote still loads: pickles, and modules that it generated."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import optgen
from optgen.former import FORMER

FILES = Path(__file__).parent / "pickles_0_1_0"


@pytest.mark.parametrize("name", ["optimiser", "decided", "chain", "scheduled", "loaded"])
def test_an_optimiser_pickled_by_0_1_0_goes_on(name):
    opt = pickle.loads((FILES / f"{name}.pickle").read_bytes())
    assert isinstance(opt, optgen.Optimiser)
    p = np.ones(3)
    assert opt.state_dict()["parameters"]
    assert opt.step([p], [np.full(3, 0.5)])
    assert opt.state(p)["t"] == 2
    assert repr(pickle.loads(pickle.dumps(opt))) == repr(opt)


def test_parameters_and_schedules_pickled_by_0_1_0_load():
    parameter = pickle.loads((FILES / "param.pickle").read_bytes())
    assert isinstance(parameter, optgen.Param)
    assert parameter.data.tolist() == [1, 1, 1]
    constant, cosine = pickle.loads((FILES / "schedules.pickle").read_bytes())
    assert (constant, cosine) == (optgen.constant(2.0), optgen.cosine(0.5, steps=100))


def test_params_pickled_by_0_1_0_are_found_by_identity():
    params = pickle.loads((FILES / "params.pickle").read_bytes())
    assert [p.data.tolist() for p in params] == [[1, 1, 1], [0, 0]]
    assert all(p in params for p in params)


@pytest.mark.parametrize("name", ["torch_rule", "own_rule", "torch_loaded", "torch_chain"])
def test_an_optimiser_of_torch_pickled_by_0_1_0_goes_on(name):
    torch = pytest.importorskip("torch")
    opt = pickle.loads((FILES / f"{name}.pickle").read_bytes())
    (p,) = opt.param_groups[0]["params"]
    before = p.clone()
    p.grad = torch.full_like(p, 0.5)
    opt.step()
    assert opt.param_groups[0]["lr"] == 0.1
    assert int(opt.state[p]["step"]) == 2
    assert not torch.equal(p, before)


def test_a_module_generated_by_0_1_0_is_imported(tmp_path):
    module = ModuleType("slow")
    module.__file__ = str(tmp_path / "slow.py")
    exec(compile((FILES / "slow_module.txt").read_text("utf-8"), module.__file__, "exec"), module.__dict__)
    p = np.ones(3)
    assert module.Slow(0.25, backend="interpreter").step([p], [np.ones(3)])
    assert p.tolist() == [0.75] * 3


@pytest.mark.parametrize("stem", FORMER)
def test_every_former_name_leads_to_modules_that_are_there(stem):
    for home in FORMER[stem]:
        assert import_module(f"optgen.{home}")
    module = import_module(f"optgen.{stem}")
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_the_kind'"):
        module.nothing_of_the_kind  # noqa: B018


def test_former_names_cost_nothing_at_import():
    code = "import sys, optgen; print([m for m in sys.modules if m.startswith('optgen.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert done.stdout == "[]\n"
