"""Tries an installed wheel: every rule on its kernel, the seed's surface, the command. Run outside the checkout."""

import os
import subprocess
from pathlib import Path

import numpy as np

import optgen
from optgen import ADAM, Params, gradient, param, train
from optgen.ir.storages import STORAGES
from optgen.optimiser.base import engine_of
from optgen.runtime.compiled_storages import store_compiled

assert "site-packages" in optgen.__file__, optgen.__file__
for stub in ("__init__.pyi", "torch/__init__.pyi", "torch/lr_scheduler.pyi", "py.typed"):
    assert Path(optgen.__file__).with_name(stub.split("/")[0]).parent.joinpath(stub).is_file(), stub
rules = [name for name in dir(optgen) if isinstance(getattr(optgen, name), type) and name[0].isupper()]
rules = [name for name in rules if issubclass(getattr(optgen, name), optgen.Optimiser) and name != "Optimiser"]
assert len(rules) >= 120, rules
rng = np.random.default_rng(0)
for name in rules:
    rule = getattr(optgen, name)().rule
    if rule.part == "parameter":  # a part that is no rule by itself
        continue
    sizes = {each.hyper: 2 for each in rule.dimensions}
    given = {each.name: 1.0 if each.name in rule.given_numbers else [np.ones((50, 20))] for each in rule.inputs}
    for dtype in (np.float32, np.float64):
        p = rng.standard_normal((50, 20)).astype(dtype)
        q, g = p.copy(), rng.standard_normal((50, 20)).astype(dtype)
        kernel, oracle = getattr(optgen, name)(**sizes), getattr(optgen, name)(**sizes, backend="interpreter")
        for _ in range(3):
            now = {key: x if isinstance(x, float) else [x[0].astype(dtype)] for key, x in given.items()}
            kernel.step([p], [g], **now)
            oracle.step([q], [g], **now)
        if rule.multiplies:  # libraries differ in how they add up the sums of products
            assert np.allclose(p, q, rtol=2e-3, atol=2e-3), name
            assert engine_of(kernel).engine.ways.by_programs, f"{name}: the interpreter steps it"
        else:
            assert np.array_equal(p, q), name
store_compiled(STORAGES["log8"], p.astype(np.float32))  # needs the library, and quantise does not
assert np.allclose(optgen.dequantise(optgen.quantise(p.astype(np.float32), "log8")), p, rtol=1 / 16, atol=1e-4)
assert not list(Path(os.environ["HOME"], ".cache", "optgen").rglob("*.so")), "something was compiled"

W = param(rng.random((2, 5)))
x, y = rng.random(5), rng.random(2)


def loss():
    return np.sum((W @ x - y) ** 2)


before = loss()
train(lambda: loss(), Params([W]), [()] * 10, ADAM(0.01))
assert loss() < before
assert set(gradient(loss, [W])[W].shape) == {2, 5}

Path("signum.toml").write_text("""
name = "Signum"
[hyperparameters]
eta = { default = 0.01, range = "[0, inf)" }
[update]
formulas = "delta = eta*sign(g)"
""")
Signum = optgen.load("signum.toml")
refused = "nothing"
try:
    Signum().step([np.ones(3)], [np.ones(3)])
except optgen.OptgenError as error:
    refused = str(error)
assert "compiler" in refused, refused
Signum(backend="interpreter").step([np.ones(3)], [np.ones(3)])
optgen.chain(optgen.ClipNorm(), ADAM(), optgen.EMA(), backend="interpreter").step([np.ones(3)], [np.ones(3)])

for arguments in (
    ["list"],
    ["show", "adam"],
    ["show", "adam", "--as", "c"],
    ["check", "signum.toml"],
    ["bench", "ADAM", "--shape", "100x64", "--threads", "1", "--rounds", "1", "--peers", "numpy,torch"],
    ["--version"],
):
    subprocess.run(["optgen", *arguments], check=True, stdout=subprocess.DEVNULL)
print(f"the wheel works: {len(rules)} rules, no compiler")
