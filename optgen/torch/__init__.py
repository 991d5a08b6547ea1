"""The rules of optgen as PyTorch optimisers: write `import optgen.torch as optim` instead of `torch.optim`.

    optim.AdamW(model.parameters(), lr=1e-3)       torch's rules, with torch's signatures, flags and states
    optim.LAMB(model.parameters(), lr=1e-3)        every other rule that ships
    optim.load("my.toml")                          the class of a rule of one's own
    optim.chain(model.parameters(), optgen.ClipGlobalNorm(1.0), optgen.AdamW())
    optim.split(model, matrices=optim.Lion.options(), rest=optim.AdamW.options())       several rules as one optimiser

All are subclasses of `torch.optim.Optimizer`. The rules that torch has too derive from torch's own classes. Anything
else in torch.optim, such as LBFGS, is torch's own. PyTorch 2.5 or newer is required. A class is made when it is first
used.

In: compiled rules, and parameters, gradients and states that are tensors. Out: optimiser classes. A change here touches
no kernel and no other wing.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.optim import Optimizer as Optimizer
from torch.optim import lr_scheduler, swa_utils

from ..compiler import catalogue
from ..errors import UnknownRule
from ..once import once
from ..optimiser.base import compilation_of
from ..optimiser.classes import shipped_class
from .classes import adapted
from .classes import chain as chain
from .classes import load as load
from .named import groups as groups
from .optimizer import Adapter
from .options import Options as Options
from .split import Split as Split
from .split import split as split

_OWN = (
    "Adapter", "Optimizer", "Options", "Split", "chain", "groups", "load", "lr_scheduler", "split", "swa_utils"
)  # fmt: skip

# As modules too: `from optgen.torch.lr_scheduler import StepLR`.
sys.modules |= {f"{__name__}.lr_scheduler": lr_scheduler, f"{__name__}.swa_utils": swa_utils}


@once
def _made(name: str) -> type[Adapter]:
    core = shipped_class(name)
    rule = compilation_of(core).rules[0]
    if rule.part:
        usage = f"optgen.torch.chain(params, optgen.{name}(), optgen.AdamW())"
        raise AttributeError(f"{name} is a part of chains, and no rule by itself (hint: {usage})")
    if rule.origin != "torch.optim":
        return adapted(core)
    theirs: type[Optimizer] = getattr(torch.optim, name)
    above = theirs.__bases__[0].__name__  # of AdamW, Adam
    parent = _made(above) if above in catalogue.shipped_rules() else Adapter
    return adapted(core, theirs, parent)


def __getattr__(name: str) -> Any:
    if name == "__all__":  # `from optgen.torch import *` takes every rule too
        return sorted({*_OWN, *catalogue.shipped_rules(), *torch.optim.__all__})
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: Any
    try:
        value = _made(name)
    except UnknownRule as error:
        value = vars(torch.optim).get(name)  # an optimiser that optgen has no rule for, or a module
        if value is None:
            raise AttributeError(str(error)) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    theirs = [name for name in vars(torch.optim) if not name.startswith("_")]
    return sorted({*_OWN, *catalogue.shipped_rules(), *theirs})
