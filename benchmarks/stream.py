"""The limit: a loop in C that reads and writes one array in place, on as many threads as optgen uses."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cffi
import numpy as np

from optgen import toolchain
from optgen.kernel import threads

SOURCE = """
__attribute__((visibility("default"))) void stream(float *restrict x, long n)
{
    for (long i = 0; i < n; ++i)
        x[i] = x[i] * 1.0000001f;
}
"""


class Stream:
    """Runs over `elements` float32 values: 8 bytes of traffic each. It shares nothing with optgen's runtime."""

    def __init__(self, elements: int) -> None:
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder, "stream.so")
        toolchain.compile_library(SOURCE, path)
        self.ffi = cffi.FFI()
        self.ffi.cdef("void stream(float *x, long n);")
        self.library = self.ffi.dlopen(str(path))
        self.array = np.ones(elements, np.float32)
        self.parts = [self.ffi.from_buffer("float[]", part) for part in np.array_split(self.array, threads())]
        self.pool = ThreadPoolExecutor(threads())

    def run(self) -> None:
        """One pass over the array; cffi lets go of the GIL, so the parts run at once."""
        list(self.pool.map(lambda part: self.library.stream(part, len(part)), self.parts))
