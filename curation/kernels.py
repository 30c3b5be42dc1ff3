"""The one decorator through which every numba kernel is compiled.

numba's own `cache=True` looks only at the file a kernel stands in: a helper edited in another file is served
stale from the cache. So the cache folder is named by a hash of all files that hold kernels, and of the numba version.
Kernels are single-threaded and release the GIL.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numba.extending
from llvmlite import ir
from numba.core.codegen import get_host_cpu_features

from curation.kernel_cache import cache_folder, kernels_folder

__all__ = ["cache_folder", "eight_bytes", "inline_kernel", "kernel", "prefetch"]

Function = TypeVar("Function", bound=Callable[..., Any])

_UNUSED_S = 30 * 86400


def _remove_unused(folder: Path) -> None:
    """Remove compiled kernels of other versions that nobody has used for a month."""
    for other in folder.parent.glob("kernels-*"):
        if other != folder and time.time() - other.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)


def _open_cache() -> Path:
    """This version's folder of compiled kernels, made at need."""
    folder = kernels_folder()
    if not folder.exists():
        _remove_unused(folder)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no result
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
    return folder


def _widen_vectors() -> None:
    """Compile for vectors of 512 bits where they do not slow the processor's clock down.

    LLVM holds every processor of Intel's to 256 bits, as the first ones with AVX-512 ran slower under more. From
    Sapphire Rapids on, which AVX512-FP16 tells, they do not: a train step of the 15M proxy takes 8 % less, curation's
    kernels as long as before, and all results are the same bits. What the user tells numba of the processor stands.
    """
    if numba.config.CPU_NAME is not None or numba.config.CPU_FEATURES is not None:
        return
    features = get_host_cpu_features()
    if "+avx512fp16" in features.split(","):
        numba.config.CPU_FEATURES = features + ",-prefer-256-bit"


numba.config.CACHE_DIR = str(_open_cache())
_widen_vectors()


def kernel(function: Function) -> Function:
    """Compile a function with numba, without the GIL, cached on disk. Use it as `@kernel`."""
    compiled: Function = numba.njit(nogil=True, cache=True)(function)
    return compiled


def inline_kernel(function: Function) -> Function:
    """Compile a small function that other kernels call in their inner loops; mark the file with `@kernel` too."""
    compiled: Function = numba.njit(nogil=True, cache=True, inline="always")(function)
    return compiled


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def prefetch(context: Any, array: Any, place: Any) -> Any:
    """Ask the memory for `array[place]` inside a kernel, and go on without waiting for it."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = target.make_array(signature.args[0])(target, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(builder.gep(first, [arguments[1]]), byte)
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], shape)
        builder.call(ask, [address, number(0), number(3), number(1)])  # to read, keep it near, data
        return target.get_dummy_value()

    return numba.types.void(array, place), generate


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def eight_bytes(context: Any, array: Any, place: Any) -> Any:
    """Bytes `place` to `place + 7` of a uint8 array as a little-endian uint64; the array goes on that far."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = target.make_array(signature.args[0])(target, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(first, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(address, align=1)

    return numba.types.uint64(array, place), generate
