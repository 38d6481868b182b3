"""LLVM IR text to callable functions, for the machine at hand.

llvmlite (which numba brings) holds the compiler; it is imported on first use. ``target()`` says which byte-shuffle
instruction the machine has; None means that the table kernels cannot run here and the general path is taken.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shuffle:
    """A byte-shuffle instruction: LLVM's name for it and how many bytes it handles."""

    intrinsic: str
    width: int


SHUFFLES = (
    ("avx512bw", Shuffle("llvm.x86.avx512.pshuf.b.512", 64)),
    ("avx2", Shuffle("llvm.x86.avx2.pshuf.b", 32)),
    ("ssse3", Shuffle("llvm.x86.ssse3.pshuf.b.128", 16)),
    ("neon", Shuffle("llvm.aarch64.neon.tbl1.v16i8", 16)),
)


@dataclass(frozen=True, eq=False)
class Target:
    """The compiler for this machine, its byte shuffles, widest first, and whether it has any function of three bits as
    one instruction (AVX-512 in every width)."""

    machine: Any
    shuffles: tuple[Shuffle, ...]
    ternary: bool


@cache
def target() -> Target | None:
    """The machine's compiler, or None if llvmlite or a byte shuffle is missing."""
    try:
        binding: Any = importlib.import_module("llvmlite.binding")
    except ImportError:
        return None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features()
    found = tuple(shuffle for name, shuffle in SHUFFLES if features.get(name))
    triple = binding.Target.from_default_triple()
    if not found and triple.name == "aarch64":
        found = (SHUFFLES[-1][1],)
    if not found:
        return None
    machine = triple.create_target_machine(cpu=binding.get_host_cpu_name(), features=features.flatten(), opt=3)
    return Target(machine, found, bool(features.get("avx512f") and features.get("avx512vl")))


def compile_ir(source: str, name: str, pointers: int, integers: int) -> Callable[..., None]:
    """Compile one void function taking ``pointers`` addresses and then ``integers`` 64-bit numbers."""
    binding: Any = importlib.import_module("llvmlite.binding")
    here = target()
    assert here is not None
    module = binding.parse_assembly(source)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_unrolling = False
    builder = binding.create_pass_builder(here.machine, options)
    builder.getModulePassManager().run(module, builder)
    engine = binding.create_mcjit_compiler(module, here.machine)
    engine.finalize_object()
    address = engine.get_function_address(name)
    prototype = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * pointers), *([ctypes.c_int64] * integers))
    function = prototype(address)
    _ENGINES.append(engine)
    return function


_ENGINES: list[Any] = []


def address(array: NDArray[Any]) -> int:
    """Where a contiguous array starts."""
    flags = array.flags
    assert flags.c_contiguous
    if flags.writeable and array.size:
        # A fifth of the time of the other way, which matters for a single vector.
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    return array.__array_interface__["data"][0]


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """A zeroed array whose start is a multiple of 64 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
