"""Eight bytes of a byte array as one number: one machine load or store, which numba cannot spell otherwise."""

# Part of every @kernel that imports it: the mention puts this file into the name of the kernels' cache.
from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic


@intrinsic
def eight_bytes(typing_context: Any, buf: Any, place: Any) -> Any:
    """`eight_bytes(buf, i)`: bytes i to i + 7 of a uint8 array as a uint64, the first lowest; they must exist.

    Little-endian machines only (x86-64, AArch64): what numba supports.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        loaded = builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()))
        loaded.align = 1
        return loaded

    return types.uint64(buf, types.int64), generate


@intrinsic
def store_eight(typing_context: Any, buf: Any, place: Any, word: Any) -> Any:
    """`store_eight(buf, i, word)`: writes a uint64 to the bytes i to i + 7, the lowest first; they must exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(pointer, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(buf, types.int64, types.uint64), generate
