"""Greek and ASCII spellings of one name. In: what an author or a caller wrote; out: the one ASCII name behind it.

Python normalises identifiers by NFKC (`ϵ` becomes `ε`, `µ` becomes `μ`), but not the keys of a dictionary or of a
TOML file; here both end in the same name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["GREEK", "canonical", "close_matches", "greek", "is_name", "numbered"]

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eps": "ε", "zeta": "ζ", "eta": "η", "theta": "θ",
    "iota": "ι", "kappa": "κ", "lam": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "upsilon": "υ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
_ASCII = {letter: name for name, letter in GREEK.items()} | {"Δ": "delta"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def canonical(name: str) -> str:
    """The ASCII spelling of `name`: `β` and `beta` are both `beta`, `β1` is `beta1`, `ϵ` is `eps`."""
    return "".join(_ASCII.get(letter, letter) for letter in unicodedata.normalize("NFKC", name))


def is_name(name: str) -> bool:
    """Whether a canonical name is one that rules may use: an ASCII letter, then letters, digits and underscores."""
    return _NAME.fullmatch(name) is not None


def greek(name: str) -> str:
    """How `name` is written in mathematics: `beta` as `β`; a name that is no Greek letter stays as it is."""
    return GREEK.get(name, name)


def close_matches(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Those of the `known` names that `name` may have been meant to be, the closest first."""
    from difflib import get_close_matches  # for messages only: no step needs it

    return get_close_matches(name, list(known), most)


def numbered(stem: str, taken: set[str]) -> str:
    """`stem` with the first number from 1 that makes it a name which is not `taken`; it is taken then."""
    number = 1
    while (name := f"{stem}{number}") in taken:
        number += 1
    taken.add(name)
    return name
