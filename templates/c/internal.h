/* What the files of the runtime share with each other; no part of its interface.
 *
 * The files are joined into one source, in which OPTGEN_PRIVATE makes their functions static. By
 * itself, each file compiles too. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "abi.h"
#include "runtime.h"

#ifndef OPTGEN_PRIVATE
#define OPTGEN_PRIVATE
#endif
#define OPTGEN_EXPORT __attribute__((visibility("default")))

#define MOST_RANK 64      /* what NumPy allows */
#define LINE 64           /* bytes of a cache line and of the widest vector */
#define CELL ((int64_t)8) /* bytes of a number kept between sweeps */

/* ---- fpu.c ---- */

/* The floating-point control state of a thread. */
#if defined(__x86_64__)
typedef unsigned int control;
#elif defined(__aarch64__)
typedef uint64_t control;
#else
typedef int control;
#endif

OPTGEN_PRIVATE control control_enter(void);
OPTGEN_PRIVATE void control_leave(control before);

/* ---- scratch.c ---- */

/* The bytes that a thread needs for a kernel: a block of each reduction of one sweep. */
static inline size_t scratch_size(const optgen_kernel *kernel)
{
    return (size_t)kernel->reduced * OPTGEN_BLOCK * (size_t)CELL;
}

OPTGEN_PRIVATE char *scratch_of(size_t size);

/* ---- traverse.c ---- */

/* The chunks of one thread: which work, times TURN, plus how many chunks of the lane are taken. */
typedef struct {
    _Alignas(64) atomic_llong next;
} lane;

#define TURN ((int64_t)1 << 40)

/* A step, shared by all threads that are in it. */
typedef struct {
    const optgen_kernel *kernel;
    const void *group;
    const char *tensors;
    int64_t count, total, slabs, grain;
    int32_t to, threads;
    lane *lanes;         /* one per thread */
    atomic_llong turn;   /* the work at hand */
    atomic_llong done;   /* how many of its chunks are done */
    atomic_int sleeping; /* how many threads sleep until the next work begins */
    const optgen_team *team;
} job;

OPTGEN_PRIVATE int64_t most_chunks(const job *step, int32_t from);
OPTGEN_PRIVATE void go_on(job *step, int32_t k);
OPTGEN_PRIVATE void run_step(job *step, int32_t own);

/* ---- pool.c ---- */

OPTGEN_PRIVATE void wait_for(job *step, int32_t k);
OPTGEN_PRIVATE void wake_sleepers(void);

/* ---- guard.c and small_states.c ---- */

/* How to look at a tensor of PyTorch, through its stable C interface. `at`: where a Python object
 * holds its tensor. `layout`, `device`: what these must be; else nothing more is asked. Each
 * function tells one thing and returns 0. */
typedef int32_t telling(const void *tensor, void *told);
typedef struct {
    int64_t at, layout, device;
    telling *of_layout, *of_device, *of_dtype, *of_rank, *of_shape, *of_strides, *of_data;
} looking;

/* An array as it was seen. `extents`: its shape, then its strides. `more`: whatever else must not
 * change. `object`: the array itself, or NULL if another one with the same memory would do. */
typedef struct {
    const void *object, *type;
    const char *data;
    const void *base;
    int64_t dtype, more, rank;
    const int64_t *extents;
} seen;

OPTGEN_PRIVATE int same_array(const void *x, const looking *look, const seen *was);
OPTGEN_EXPORT void optgen_small_write(const void *known, int32_t counts);
