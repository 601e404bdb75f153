"""Arrays and named tuples that belong to a kernel's caller, lent to the inner kernels that it is made of.

A named tuple of arrays is some sixty numbers to Numba, taken apart and put together again around every call: a
quarter of the code that LLVM was given for im2col. Lent, it is one pointer.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_getattr_generic, models, register_model


class Borrowed(types.Type):
    """A named tuple in its owner's memory, which stays as it is while it is lent."""

    def __init__(self, fields: types.BaseTuple):
        self.fields = fields
        super().__init__(f"Borrowed({fields})")

    @property
    def mangling_args(self):
        return "Borrowed", (self.fields,)


@register_model(Borrowed)
class _Pointer(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, manager.lookup(kind.fields).get_value_type().as_pointer())


def _lent(kind: types.Type) -> types.Type:
    """What a value becomes when it is lent."""
    return Borrowed(kind) if isinstance(kind, types.BaseNamedTuple) else kind


@infer_getattr
class _Fields(AttributeTemplate):
    key = Borrowed

    def generic_resolve(self, kind, name):
        if name in kind.fields.fields:
            return _lent(kind.fields[kind.fields.fields.index(name)])


@lower_getattr_generic(Borrowed)
def _field(context, builder, kind, pointer, name):
    number = kind.fields.fields.index(name)
    place = cgutils.gep_inbounds(builder, pointer, 0, number)
    inner = kind.fields[number]
    return place if isinstance(_lent(inner), Borrowed) else _uncounted(context, builder, inner, builder.load(place))


def _uncounted(context, builder, kind, value):
    """The value, whose arrays have no counter of references."""
    if isinstance(kind, types.Array):
        counter = context.get_value_type(types.MemInfoPointer(types.voidptr))
        return builder.insert_value(value, ir.Constant(counter, None), 0)
    return value


@intrinsic
def borrow(typingctx, value):
    """An array, or a named tuple of arrays and numbers, whose references are not counted.

    For kernels whose caller keeps the arrays alive. Numba counts a reference, atomically, each time an array is taken
    out of a tuple: for small tiles that took a third of the time.
    """

    def codegen(context, builder, sig, args):
        if isinstance(sig.return_type, Borrowed):
            return cgutils.alloca_once_value(builder, args[0])
        return _uncounted(context, builder, value, args[0])

    return _lent(value)(value), codegen
