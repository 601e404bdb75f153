"""How Numba compiles kernels: its own steps, as classes that it provides for, made shorter for what kernels are.

A first call waits for the compiler, which is Python code for two thirds of its time. Here is what it need not do.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from llvmlite.binding import Linkage
from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering
from numba.core.types.misc import MemInfoPointer, unliteral

__all__ = ["KernelCompiler", "PartCompiler", "libraries"]

# Passes for what no kernel holds: closures, objects, unrolled tuples, array expressions, and notes for people.
_UNUSED_PASSES = ["WithLifting", "InlineClosureLikes", "MakeFunctionToJitFunction", "InlineInlinables",
                  "FindLiterallyCalls", "LiteralUnroll", "LiteralPropagationSubPipelinePass", "InlineOverloads",
                  "NopythonRewrites", "AnnotateTypes", "DumpParforDiagnostics"]
_COUNTER = MemInfoPointer(numba_types.voidptr)


@contextmanager
def libraries(codegen: Any, kind: type):
    """What is compiled or loaded meanwhile becomes libraries of this kind."""
    with global_compiler_lock:
        outer, codegen._library_class = codegen._library_class, kind
        try:
            yield
        finally:
            codegen._library_class = outer


@contextmanager
def _remembered_rules():
    """What an operator gives for numbers is found once for a kernel.

    Numba asks all rules that any type has for it, at each place of the code, and again as often as types spread.
    """
    asked, found = numba_types.Function.get_call_type, {}

    def get_call_type(self, context, args, kws):
        if kws or not all(isinstance(unliteral(kind), (numba_types.Number, numba_types.Boolean)) for kind in args):
            return asked(self, context, args, kws)
        key = self, tuple(args)
        if key not in found:
            found[key] = asked(self, context, args, kws)
        return found[key]

    numba_types.Function.get_call_type = get_call_type
    try:
        yield
    finally:
        numba_types.Function.get_call_type = asked


@contextmanager
def _no_collection():
    """Python does not look for cycles among the many objects that a compiler keeps, a sixth of its time."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


class _NoEnvironment:
    """A code generator for functions that no Python code calls and that therefore have no environment to set."""

    def __init__(self, codegen):
        self._codegen = codegen

    def __getattr__(self, name):
        return getattr(self._codegen, name)

    def set_env(self, name, environment):
        """Nothing is looked up there."""


class _Library(JITCodeLibrary):
    """Code whose functions are optimised together, in the kernel."""

    def _optimize_functions(self, module):
        """Not one by one: only what is needed to link."""
        module.data_layout = self._codegen._data_layout


class _PartLibrary(_Library):
    """The code of a part on its way into a kernel: neither linked, nor optimised on its own, nor made machine code.

    Numba does all that for every function, and again for all that is linked into each of its callers, the body of a
    `prange` included. Here it happens once, for the whole kernel, which halves a first call.
    """

    @property
    def codegen(self):
        return _NoEnvironment(self._codegen)

    def finalize(self):
        """Left to the kernel."""
        self._finalized = True

    def _get_module_for_linking(self):
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                function.linkage = "linkonce_odr"       # may be inlined, and left out where no call remains
        return self._final_module

    def get_pointer_to_function(self, name):
        return 0


class _KernelLibrary(_Library):
    """The code of a kernel, into which each of its parts goes once, however many others call it."""

    def _optimize_final_module(self):
        """Once: Numba's first round brings counters of references together, of which kernels have few."""
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)

    def finalize(self):
        self._linking_libraries = list(self._needed(self, {}))
        super().finalize()

    def _needed(self, library: JITCodeLibrary, found: dict[JITCodeLibrary, None]) -> dict[JITCodeLibrary, None]:
        """What a library calls, the parts' own parts included, in a lasting order."""
        for callee in library._linking_libraries:
            if callee not in found:
                found[callee] = None
                if isinstance(callee, _PartLibrary):
                    self._needed(callee, found)
        return found


class _Lowering(Lower):
    """Numba's way from typed code to LLVM's, in fewer words."""

    def setup_function(self, fndesc):
        """What is borrowed stays as it is: LLVM may keep its fields in registers while arrays are written."""
        super().setup_function(fndesc)
        for argument in self.call_conv.get_arguments(self.function):
            if isinstance(getattr(argument.type, "pointee", None), ir.LiteralStructType):
                argument.add_attribute("noalias")

    def lower_getitem(self, resty, expr, value, index, signature):
        place = self._place(value, index, signature)
        if place is None:
            return super().lower_getitem(resty, expr, value, index, signature)
        return self.context.cast(self.builder, self.builder.load(place), signature.return_type, resty)

    def lower_setitem(self, target_var, index_var, value_var, signature):
        place = self._place(target_var, index_var, signature)
        if place is None:
            return super().lower_setitem(target_var, index_var, value_var, signature)
        value = self.loadvar(value_var.name)
        value = self.context.cast(self.builder, value, self.typeof(value_var.name), signature.args[2])
        self.builder.store(self.context.cast(self.builder, value, signature.args[2], signature.args[0].dtype), place)

    def _place(self, array, index, signature):
        """Where an element lies; None leaves all but numbers side by side to Numba, which takes 26 lines for it."""
        kind, number = signature.args[:2]
        if (not isinstance(kind, numba_types.Array) or kind.ndim != 1 or kind.layout != "C" or not kind.aligned
                or not isinstance(kind.dtype, numba_types.Integer | numba_types.Float)
                or number not in (numba_types.intp, numba_types.uintp)):
            return None
        builder, model = self.builder, self.context.data_model_manager[kind]
        memory = self.loadvar(array.name)
        at = self.context.cast(builder, self.loadvar(index.name), self.typeof(index.name), number)
        if number.signed:
            size = model.get(builder, memory, "nitems")
            at = builder.select(builder.icmp_signed("<", at, at.type(0)), builder.add(at, size), at)
        return builder.gep(model.get(builder, memory, "data"), [at])

    def incref(self, typ, val):
        self._count(self.context.nrt.incref, typ, val)

    def decref(self, typ, val):
        self._count(self.context.nrt.decref, typ, val)

    def _count(self, change, kind, value):
        """Change the counters of references of a value's arrays; Numba takes each array apart for it."""
        if not self.context.enable_nrt:
            return
        if isinstance(kind, numba_types.BaseTuple):
            for i, inner in enumerate(kind):
                if self.context.data_model_manager[inner].contains_nrt_meminfo():
                    self._count(change, inner, self.builder.extract_value(value, i))
        elif isinstance(kind, numba_types.Array):
            counter = self.context.data_model_manager[kind].get(self.builder, value, "meminfo")
            change(self.builder, _COUNTER, counter)
        else:
            change(self.builder, kind, value)

    def alloca_lltype(self, name, lltype, datamodel=None):
        """Memory for a variable, without a word about it for a debugger."""
        return cgutils.alloca_once(self.builder, lltype, name=name)


@register_pass(mutates_CFG=True, analysis_only=False)
class _NativeLowering(NativeLowering):
    _name = "nconv_native_lowering"

    @property
    def lowering_class(self):
        return _Lowering


class PartCompiler(Compiler):
    """Numba's compiler, without the passes that no kernel needs."""

    def define_pipelines(self):
        (pipeline,) = super().define_pipelines()
        pipeline.passes = [(_NativeLowering if step is NativeLowering else step, words)
                           for step, words in pipeline.passes if step.__name__ not in _UNUSED_PASSES]
        pipeline.finalize()
        return [pipeline]


class KernelCompiler(PartCompiler):
    """The same for a kernel: all that it calls is a part of it."""

    def compile_extra(self, func):
        codegen = self.state.targetctx.codegen()
        with libraries(codegen, _KernelLibrary):
            self.state.library = codegen.create_library(func.__qualname__)
            self.state.library.enable_object_caching()
        with libraries(codegen, _PartLibrary), _remembered_rules(), _no_collection():
            return super().compile_extra(func)
