"""nconv behind SciPy's names, for a whole program.

Patching rebinds names: in every loaded module an attribute that is SciPy's function becomes a wrapper, and unpatching
turns every attribute that is a wrapper, also in modules imported meanwhile, back into SciPy's function. A wrapper that
somebody kept in another place (a closure, a dictionary) runs SciPy's function while no patch is active.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from .. import ndimage, signal
from ..errors import DeviceError

_FAMILIES = {                                           # SciPy's package: (its private module, nconv's room, names)
    "scipy.signal": ("_signaltools", signal, ("convolve", "correlate", "fftconvolve", "oaconvolve", "convolve2d",
                                              "correlate2d", "choose_conv_method")),
    "scipy.ndimage": ("_filters", ndimage, ("convolve", "correlate", "convolve1d", "correlate1d")),
}
_ARRAYS = ("in1", "in2", "input", "weights", "output")  # parameters that take arrays
_METHODS = ("auto", "direct", "fft")
_PLAIN = frozenset((np.ndarray, np.memmap, list, tuple, bool, int, float, complex, str, type(None)))
_SPOILED = ("Use of fft convolution on input with NAN or inf results in NAN or inf output. Consider using "
            "method='direct' instead.")
_MAX_REASONS = 64                                       # different ones that are counted apart for a patch

_lock = threading.RLock()
_here = threading.local()                               # .inside: this thread is inside a wrapper
_wrappers: dict[int, tuple[Callable, Callable]] = {}    # id of SciPy's function: (the function, its wrapper)
_active: tuple[ScipyPatch, ...] = ()


# ------------------------------------------------------------------------------------------------ One call


def _is_foreign(value: Any) -> bool:
    """Whether a value belongs to another array library, or is a NumPy array with rules of its own (masked, matrix)."""
    kind = type(value)
    if kind in _PLAIN or isinstance(value, np.generic):
        return False
    return isinstance(value, np.ndarray) or any(
        hasattr(kind, name) for name in ("__array_namespace__", "__dlpack__", "__array_function__"))


def _why_not(family: str, given: dict[str, Any]) -> str:
    """Why a call belongs to SciPy before nconv is asked: '' if nconv shall run it.

    Beside other libraries' arrays these are calls that nconv takes and SciPy refuses: its users expect the refusal.
    """
    for name in _ARRAYS:
        if _is_foreign(given.get(name)):
            return f"{name} is a {type(given[name]).__module__}.{type(given[name]).__qualname__}"
    for name in ("mode", "boundary"):
        word = given.get(name, "")
        if not isinstance(word, str):
            return f"{name} is no single word"
        if word != word.lower():
            return f"unknown {name}"
    if given.get("method", "auto") not in _METHODS:
        return "unknown method"
    if family == "scipy.ndimage":
        for name in ("input", "output"):
            value = given.get(name)
            if value is np.float16 or getattr(value, "dtype", value) in (np.dtype("f2"), "float16", "f2", "e"):
                return f"{name} is float16"
    return ""


def _wrap(original: Callable, family: str, name: str, own: Callable) -> Callable:
    """The function that stands in SciPy's place."""
    parameters = inspect.signature(original).parameters.values()
    allowed = frozenset(p.name for p in parameters)
    positional = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    public = f"{family}.{name}"

    def attempt(args: tuple, kwargs: dict[str, Any]) -> tuple[Any, str]:
        """(nconv's result, ''), or (None, the reason why SciPy has to run this call)."""
        given = dict(zip(positional, args, strict=False))
        if len(args) > len(positional) or not kwargs.keys() <= allowed or kwargs.keys() & given.keys():
            return None, "the arguments do not fit SciPy's"
        given |= kwargs
        reason = _why_not(family, given)
        if reason:
            return None, reason
        try:
            result = own(**{k: np.asarray(v) if type(v) is np.memmap else v for k, v in given.items()})
        except (TypeError, ValueError, NotImplementedError, DeviceError) as error:
            return None, f"{type(error).__name__}: {error}"
        if given.get("method") == "fft" and not all(np.all(np.isfinite(given[name])) for name in ("in1", "in2")):
            # nconv spoils only the outputs that meet such a value; SciPy's callers may still count on its warning.
            warnings.warn(_SPOILED, RuntimeWarning, stacklevel=3)
        return result, ""

    @functools.wraps(original)
    def wrapper(*args, **kwargs):
        patches = _active
        if not patches or getattr(_here, "inside", False):
            return original(*args, **kwargs)
        _here.inside = True                             # SciPy's own calls of these names stay with SciPy
        try:
            result, reason = attempt(args, kwargs)
            for patch in patches:
                patch._count(public, reason)
            return original(*args, **kwargs) if reason else result
        finally:
            _here.inside = False

    return wrapper


# ------------------------------------------------------------------------------------------------ The program


def _make_wrappers() -> None:
    """One wrapper for each of SciPy's function objects, made once.

    The public and the private name may lead to different objects (under SCIPY_ARRAY_API the public one dispatches).
    """
    for family, (private, own, names) in _FAMILIES.items():
        modules = [importlib.import_module(family), importlib.import_module(f"{family}.{private}")]
        for module in modules:
            for name in names:
                original = getattr(module, name)
                known = any(original is w for _, w in _wrappers.values())
                if not known and id(original) not in _wrappers:
                    _wrappers[id(original)] = original, _wrap(original, family, name, getattr(own, name))


def _rebind(replacements: dict[int, Callable]) -> Iterator[tuple[str, str, Callable]]:
    """Rebind the attributes of all loaded modules; yields (module, attribute, new value)."""
    for module_name, module in list(sys.modules.items()):
        if not issubclass(type(module), ModuleType):    # isinstance asks the object, and libraries of cffi say they are
            continue
        namespace = object.__getattribute__(module, "__dict__")           # wakes no lazy module
        for attribute, value in list(namespace.items()):
            if id(value) in replacements:
                namespace[attribute] = replacements[id(value)]
                yield module_name, attribute, replacements[id(value)]


class ScipyPatch:
    """What `patch_scipy` did, and the way back; a context manager.

    Attributes
    ----------
    active : bool
        Whether this patch is in force.
    places : dict of str to list of str
        For every SciPy function the names, module and attribute, that led to nconv when the patch was made.
    ran : dict of str to int
        Calls that nconv ran, by function.
    handed_back : dict of (str, str) to int
        Calls that SciPy ran, by function and reason.

    Examples
    --------
    >>> import nconv, scipy.ndimage
    >>> with nconv.patch_scipy() as patch:
    ...     scipy.ndimage.correlate1d([1, 2, 3], [0, 1, 10])
    array([21, 32, 33])
    >>> patch.ran
    {'scipy.ndimage.correlate1d': 1}
    """

    def __init__(self) -> None:
        global _active
        self._counting = threading.Lock()
        self._ran: Counter[str] = Counter()
        self._handed_back: Counter[tuple[str, str]] = Counter()
        self.places: dict[str, list[str]] = {}
        with _lock:
            if not _active:
                _make_wrappers()
            forward = {id(original): wrapper for original, wrapper in _wrappers.values()}
            forward |= {id(wrapper): wrapper for _, wrapper in _wrappers.values()}       # of a patch already in force
            for module, attribute, wrapper in _rebind(forward):
                family = "scipy.ndimage" if ".ndimage" in wrapper.__module__ else "scipy.signal"
                self.places.setdefault(f"{family}.{wrapper.__name__}", []).append(f"{module}.{attribute}")
            _active = (*_active, self)

    def unpatch(self) -> None:
        """Put SciPy's functions back, unless another patch is still in force; may be called again."""
        global _active
        with _lock:
            if not self.active:
                return
            _active = tuple(patch for patch in _active if patch is not self)
            if not _active:
                for _ in _rebind({id(wrapper): original for original, wrapper in _wrappers.values()}):
                    pass

    def __enter__(self) -> ScipyPatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unpatch()

    def _count(self, function: str, reason: str) -> None:
        with self._counting:
            if not reason:
                self._ran[function] += 1
                return
            key = function, reason
            if key not in self._handed_back and len(self._handed_back) >= _MAX_REASONS:
                key = function, "other reasons"
            self._handed_back[key] += 1

    @property
    def active(self) -> bool:
        return any(patch is self for patch in _active)

    @property
    def ran(self) -> dict[str, int]:
        with self._counting:
            return dict(self._ran)

    @property
    def handed_back(self) -> dict[tuple[str, str], int]:
        with self._counting:
            return dict(self._handed_back)

    def __repr__(self) -> str:
        state = "in force" if self.active else "undone"
        return (f"<nconv behind SciPy, {state}: {len(self.places)} functions under "
                f"{sum(map(len, self.places.values()))} names; calls: {sum(self.ran.values())} run by nconv, "
                f"{sum(self.handed_back.values())} handed back to SciPy>")

    def report(self) -> str:
        """What was rebound where, and who ran how many calls for which reasons."""
        ran, back = self.ran, self.handed_back
        lines = [repr(self)]
        for function, places in self.places.items():
            lines.append(f"{function}: {ran.get(function, 0)} calls run by nconv; found as {', '.join(places)}")
            lines += [f"    {n} handed back: {reason}" for (name, reason), n in back.items() if name == function]
        return "\n".join(lines)


def patch_scipy() -> ScipyPatch:
    """Put nconv behind SciPy's convolutions for the whole program.

    The functions are `scipy.signal.convolve`, `correlate`, `fftconvolve`, `oaconvolve`, `convolve2d`, `correlate2d`,
    `choose_conv_method`, and `scipy.ndimage.convolve`, `correlate`, `convolve1d`, `correlate1d`. Modules that imported
    them earlier are served too, SciPy's own among them, so that `gaussian_filter` and `savgol_filter` gain as well; a
    function kept elsewhere, in a closure or a dictionary, stays SciPy's. A call that nconv does not take (objects,
    masked arrays, other array libraries, wrong arguments) is handed back to SciPy, with SciPy's result or error.

    Returns
    -------
    ScipyPatch
        In force at once. ``unpatch()`` or the end of a ``with`` block undo it, ``report()`` tells what was done.
        Patches nest: SciPy's functions return when the last is undone.

    Examples
    --------
    >>> import nconv, scipy.signal
    >>> with nconv.patch_scipy() as patch:
    ...     scipy.signal.convolve([1, 2, 3], [0, 1, 10])
    array([ 0,  1, 12, 23, 30])
    >>> patch.ran
    {'scipy.signal.convolve': 1}
    >>> patch = nconv.patch_scipy()
    >>> patch.unpatch()
    >>> patch.active
    False
    """
    return ScipyPatch()
