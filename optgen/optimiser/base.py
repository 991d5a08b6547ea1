"""The optimiser object: hyperparameters as attributes, and steps.

In: arguments of a constructor, then parameters and gradients.
Out: parameters changed in place.

Generated classes derive from `Optimiser`, and so does `chain.Chain`. An optimiser holds a `Settings`, which knows the
hyperparameters, and an `Engine`, which steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from ..compiler import driver
from ..compiler.driver import Compilation
from ..errors import ArgumentError
from ..ir.rule import Rule
from . import classes
from .array_engine import ArrayEngine, Engine, Parameters
from .checkpoint_file import FilePath
from .functions import FunctionOf
from .hyperparameters import Spellings, any_spelling, spellings
from .settings import Settings, check_settings, of_lengths

__all__ = ["Optimiser", "compilation_of", "engine_of", "hold", "loaded", "module_of", "settings_of"]


class Optimiser:
    """Base of all optimisers; its subclasses are made from specs.

    Hyperparameters are attributes, in ASCII or Greek: `opt.eta = 0.01` holds from the next step on. `opt.beta` is a
    tuple, `opt.beta1` its first value. In the place of a number there may be a schedule, a function of the step: it is
    called once a step, with the count t that this update has, and gives a number. Setting one raises
    HyperparameterError for a number out of its range, and ArgumentError for what is no number, or for another name.

    `Optimiser(a, b, c)` is the chain of these optimisers, as `chain(a, b, c)` is.

    The state of a parameter is found by the memory that the parameter is, and goes away with it. Threads that use one
    optimiser wait for one another; within a step, as in a schedule, it may be read, and not stepped or loaded.

    Examples
    --------
    >>> import numpy as np
    >>> from optgen import ADAM
    >>> opt, p = ADAM(eta=0.1, backend="interpreter"), np.zeros(3)
    >>> opt.step([p], [np.ones(3)])
    True
    """

    # Own attributes begin with an underscore and are set through `__dict__`: all others are hyperparameters.
    _compilation: ClassVar[Compilation]
    _module: ClassVar[str | None]
    _spellings: ClassVar[Spellings]
    _chain: ClassVar[type[Optimiser]]  # what `Optimiser(...)` makes; set by the module that defines it

    _settings: Settings
    _engine: Engine

    def __init_subclass__(
        cls, *, text: str | None = None, file: str = "", module: str | None = None,
        compilation: driver.Compilation | None = None,
    ) -> None:  # fmt: skip
        """A rule's class comes from a `compilation`, or, in a generated module, from the spec's text and its file."""
        if compilation is None:
            if text is None:  # a class that somebody derives from one of these
                return
            compilation = driver.compile_built(text, file, Path(module)) if module else driver.compile_text(text, file)
        cls._compilation = compilation
        cls._module = module
        cls._spellings = spellings(cls._compilation.rules[0].hypers)
        cls.__init__ = any_spelling(cls.__init__, cls._spellings)  # type: ignore[method-assign]

    def __new__(cls, /, *arguments: Any, **keywords: Any) -> Self:
        made: Self = object.__new__(getattr(cls, "_chain", cls) if cls is Optimiser else cls)
        return made

    def __init__(self, *parts: Any, backend: str = "kernel") -> None:
        name = type(self).__name__
        raise ArgumentError(f"{name} is made of no spec, and is no rule itself", hint="from optgen import ADAM")

    def _begin(self, values: Mapping[str, Any], flags: Mapping[str, Any], backend: str, *storages: Any) -> None:
        """The body of the constructors of generated classes: hyperparameters, flags, `storage` and the rest."""
        name = type(self).__name__
        hold(self, check_settings(name, self._compilation, self._spellings, values, flags, backend, *storages))

    function = FunctionOf()

    # ---- Hyperparameters and flags ----

    @property
    def rule(self) -> Rule:
        """The checked rule, in the variant of this optimiser's flags; that for matrices, if there are two."""
        return self._settings.rule

    @property
    def backend(self) -> str:
        """Either "kernel" or "interpreter"."""
        return self._settings.backend

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._settings.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        with self._engine.lock:
            self._settings.set(name, value)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._settings.names()]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._settings.arguments())})"

    # ---- Steps and states ----

    def step(
        self, params: Sequence[Any], grads: Sequence[Any], *, phase: str | None = None, **inputs: Any
    ) -> bool | str:
        """One update of every parameter in place, in one call of the kernel; or one phase of it, if a step has several.

        Parameters
        ----------
        params
            Arrays of float32, float64, bfloat16 or float16, or tracked parameters (whose `data` is such an array), of
            any shapes and strides, each once; those of 16 bits are computed in float32.
        grads
            For each parameter an array of its shape, of any strides: of float64 if the parameter is, else of another.
        phase
            The name of the phase, which must be the one that comes next. It need not be given.
        inputs
            What else the rule takes, by name: for each parameter an array like the gradient, or one number.

        Returns
        -------
        bool or str
            Whether the step counts. False if a rule like Unscale finds that these gradients are none to step with; then
            no parameter, state or count has changed, but for states that always change, such as those of LossScale.
            Otherwise True; if a step has several phases, the name of the one that comes next. Its gradient is that at
            the point where the parameters are then.

        Raises
        ------
        ArrayError
            For what cannot be stepped.
        ArgumentError
            For an input that is missing, unknown, or no finite number where one is expected; for a phase that is not
            next.
        StateError
            For a parameter that does not fit the saved state that it would take up.
        HyperparameterError
            For a hyperparameter that vanishes in a parameter's dtype.
        CompilerNotFound
            If a kernel must be compiled and cannot be.

        After an error no parameter, state or count has changed.
        """
        return self._engine.step(params, grads, inputs, phase)

    @property
    def phase(self) -> str | None:
        """The name of the phase of a step that comes next; None for a rule whose steps have but one."""
        return self._engine.phase

    def state(self, p: Any = None) -> dict[str, Any]:
        """The state of parameter `p`: an array for each name of the spec, live and read-only, and the count `t`.

        Without `p`, the states that all parameters have together. They are among those of each parameter too.

        The arrays have the shape and dtype of `p`; where there is not a value for each element, they are of float64 and
        of a shape that goes with `p` by NumPy's rules. A state in another storage is given as the numbers that it
        holds now, which are a copy. Of a parameter that was never stepped: what its state would
        start as, and t = 0; or, of a loaded state that waits for its parameters, the part that fits.
        StateError if more than one part fits, since their order will decide; ArrayError for what is no parameter.
        """
        with self._engine.lock:
            return self._engine.state(p)

    def report(self, p: Any = None) -> dict[str, Any]:
        """What the last step reports of parameter `p`, by the names of the spec: norms, ratios, and the like.

        A number, or an array where there is one for each matrix, row or column. Without `p`, what is one for all
        parameters; that is among those of each parameter too. A step that does not count reports nothing. Reports are
        no states: nothing saves them.
        StateError before the first step, and for a parameter that the last one was not given; ArrayError for what is no
        parameter.
        """
        with self._engine.lock:
            return self._engine.report(p)

    def set_state(self, p: Any, /, **values: Any) -> None:
        """Set states of parameter `p`, or its count `t`, by hand; those that are not named stay.

        Parameters
        ----------
        p
            A parameter. If it was never stepped, the rest of its state starts as usual.
        values
            For each name of the spec an array of the shape and dtype that `state` shows, or a number where that is a
            single one; copied. A state of all parameters together is set for all.

        Raises
        ------
        ArgumentError
            For what is no state of the rule.
        StateError
            For another shape or dtype, and while loaded states wait for their parameters.

        After an error no state has changed.

        Examples
        --------
        >>> opt.set_state(W, m=np.zeros_like(W), t=0)  # doctest: +SKIP
        """
        with self._engine.lock:
            self._engine.set_state(p, values)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, in plain containers and arrays.

        That is the rule, the hyperparameters, and for each parameter, in the order in which they were first stepped,
        its shape, dtype, count and states (copies).
        """
        with self._engine.lock:
            return self._engine.state_dict()

    def load_state_dict(
        self, saved: Mapping[str, Any], params: Sequence[Any] | None = None, *, convert: bool = False
    ) -> None:
        """Takes over what `state_dict` gave: hyperparameters, counts and states (copies).

        The saved parameters are, in order, `params` if given, and then no others; else the parameters that this
        optimiser has; and if it has none, those that it will be given, each checked when it is first stepped. A state
        that was saved in another storage is refused, unless `convert` is true: then it is converted.

        Raises StateError if `saved` is of another rule, flags, shapes, dtypes, storages or number, HyperparameterError
        or ArgumentError for its hyperparameters, ArrayError for `params`. Then nothing has changed.
        """
        with self._engine.lock:
            self._engine.load_state_dict(saved, params, convert=convert)

    # ---- Evaluation ----

    def eval(self) -> None:
        """Give each parameter that was stepped, in place, the values that its rule says to evaluate it with.

        Those of ScheduleFreeSGD are a running mean, those of a chain with EMA its average. `train` gives the others
        back, whatever became of the parameters in between; until then a step is refused, and so is whatever saves or
        loads parameters. A second call does nothing. Nor does the first, where a rule says nothing of evaluation.
        """
        with self._engine.lock:
            self._engine.eval()

    def train(self) -> None:
        """Give parameters back what `eval` has set aside: training goes on with the same bits. Else do nothing."""
        with self._engine.lock:
            self._engine.train()

    # ---- Files ----

    def save(self, path: FilePath, params: Parameters) -> None:
        """Write a checkpoint: `params`, their states and counts, and the hyperparameters, in the safetensors format.

        The file is written under another name beside `path`, and takes its name when it is on the disk: `path` holds
        all of the old or all of the new.

        Parameters
        ----------
        path
            The file to write, or to replace.
        params
            All parameters that were stepped, and any others: a mapping of names, or a sequence, in which they are
            called 0, 1, and so on.

        Raises
        ------
        StateError
            If a parameter that was stepped is not among `params`, or a loaded state waits for its own.
        ArrayError
            For what is no parameter.
        OptgenError
            If the library safetensors is not installed: `pip install "optgen[safetensors]"`.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import numpy as np
        >>> from optgen import ADAM
        >>> opt, W = ADAM(), np.zeros((3, 4))
        >>> opt.save("run.safetensors", {"W": W})
        >>> opt.load("run.safetensors", {"W": W})
        """
        with self._engine.lock:
            self._engine.save(path, params)

    def load(self, path: FilePath, params: Parameters, *, convert: bool = False) -> None:
        """Take over what `save` wrote, to go on with the same bits: values of `params`, states, hyperparameters.

        Parameters
        ----------
        path
            A file that an optimiser of this rule, with these flags, wrote.
        params
            The parameters under the names that they were saved with, as they were. States of others are gone then.
        convert
            Whether states that were saved in another storage are converted; else they are refused.

        Raises
        ------
        StateError
            If the file is damaged, or of another kind, rule, names, shapes, dtypes or storages.
        HyperparameterError
            If it has a hyperparameter out of its range.
        ArrayError, OptgenError
            As `save` does.
        OSError
            If the file cannot be read.

        After an error no parameter, state, count or hyperparameter has changed.
        """
        with self._engine.lock:
            self._engine.load(path, params, convert=convert)

    # ---- Copies ----

    def __copy__(self) -> Optimiser:
        """An optimiser for the same parameters, with a state of its own."""
        twin = self._twin()
        with self._engine.lock:
            self._engine.copy_to(twin._engine)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimiser:
        """As from a pickle: the parameters that the copy is given first take up the state, in order."""
        return loaded(self._twin(), self.state_dict())

    def _twin(self) -> Optimiser:
        """An optimiser like this one, which has not stepped."""
        return _revive(type(self), *self._made())

    def _made(self) -> tuple[Any, ...]:
        """What `_revive` needs besides the class."""
        own = self._settings
        storages = dict(own.chosen_storages), dict(own.chosen_rounding)
        return dict(own.values), dict(own.flags), own.backend, dict(own.decided), *storages

    def __reduce__(self) -> tuple[Any, ...]:
        cls: Any = type(self)
        if cls.__module__.startswith("optgen.loaded."):
            cls = (self._compilation.text, self._compilation.file)
        return (_unpickled, ((cls, *self._made()), self.state_dict()))


def compilation_of(optimiser: Optimiser | type[Optimiser]) -> Compilation:
    """The rules of an optimiser, or of a class of optimisers, in every variant and at every stage of compilation."""
    return optimiser._compilation


def settings_of(optimiser: Optimiser) -> Settings:
    """The hyperparameters, flags and variants of an optimiser."""
    return optimiser._settings


def engine_of(optimiser: Optimiser) -> Engine:
    """What steps the parameters of an optimiser and keeps their states."""
    return optimiser._engine


def module_of(optimiser: Optimiser | type[Optimiser]) -> str | None:
    """The file of the class of an optimiser, if that was built."""
    return optimiser._module


def hold(optimiser: Optimiser, settings: Settings, engine: Engine | None = None) -> None:
    """Make an optimiser one with these settings of its own, and with an engine of its own where none is given."""
    built = settings.compilation is optimiser._compilation  # none is built for other lengths
    module = optimiser._module if built else None
    optimiser.__dict__.update(_settings=settings, _engine=engine or ArrayEngine(settings, module))


def _revive(cls: Any, values: Any, flags: Any, backend: str, decided: Any, *storages: Any) -> Optimiser:
    """An optimiser that has not stepped, of what `_made` gives: a pickle may be older than storages."""
    if isinstance(cls, tuple):
        cls = classes.module_class(driver.compile_text(*cls))
    optimiser: Optimiser = object.__new__(cls)
    of = of_lengths(cls._compilation, cls._spellings, values)
    hold(optimiser, Settings(cls.__name__, *of, values, flags, decided, backend, *storages))
    return optimiser


def loaded(optimiser: Optimiser, saved: dict[str, Any]) -> Optimiser:
    optimiser.load_state_dict(saved)
    return optimiser


def _unpickled(made: tuple[Any, ...], saved: dict[str, Any]) -> Optimiser:
    return loaded(_revive(*made), saved)
