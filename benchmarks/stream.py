"""The memory limit: a loop in C that reads and writes one array in place, on as many threads as optgen uses.

In: a number of elements. Out: a `Stream`, whose `run` is timed. It is the limit for arrays that lie in memory. In the
caches a step may be faster, since the loop starts its threads each time.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import cffi
import numpy as np

from optgen.compiler import toolchain
from optgen.runtime.arrays import LINE
from optgen.runtime.machine import threads

# Chunks are handed out one by one, so that a delayed thread does not delay the sweep. Threads are started anew for each
# sweep, so that nothing is shared with optgen's runtime. That takes microseconds of the sweep's milliseconds.
SOURCE = """
#include <pthread.h>
#include <stdatomic.h>

enum { CHUNK = 1 << 18, MOST = 256 };

static float *array;
static long count;
static atomic_long next;

static void *run(void *unused)
{
    (void)unused;
    for (long begin; (begin = atomic_fetch_add(&next, CHUNK)) < count;) {
        float *restrict x = array + begin;
        const long n = count - begin < CHUNK ? count - begin : CHUNK;
        for (long i = 0; i < n; ++i)
            x[i] = x[i] * 1.0000001f;
    }
    return NULL;
}

__attribute__((visibility("default"))) void stream(float *x, long n, int threads)
{
    pthread_t others[MOST];
    int started = 0;
    array = x, count = n, next = 0;
    while (started < threads - 1 && started < (n - 1) / CHUNK && pthread_create(&others[started], NULL, run, NULL) == 0)
        ++started;
    run(NULL);
    while (started > 0)
        pthread_join(others[--started], NULL);
}
"""


@cache
def _library() -> tuple[cffi.FFI, Any]:
    """The loop, compiled once a process. CompilerNotFound where there is no compiler."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder, "stream.so")
    toolchain.compile_library(SOURCE, path)
    ffi = cffi.FFI()
    ffi.cdef("void stream(float *x, long n, int threads);")
    return ffi, ffi.dlopen(str(path))


class Stream:
    """An array of `elements` float32 values. A run moves 8 bytes for each."""

    def __init__(self, elements: int) -> None:
        ffi, self.library = _library()
        room = np.ones(elements + LINE // 4, np.float32)
        self.array = room[-room.ctypes.data % LINE // 4 :][:elements]  # no vector lies across two lines of the cache
        self.address = ffi.from_buffer("float[]", self.array)

    def run(self) -> None:
        """One sweep over the array."""
        self.library.stream(self.address, len(self.array), threads())
