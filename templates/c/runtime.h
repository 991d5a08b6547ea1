/* What the runtime exports: one library per process, for the kernels of all rules. */
#pragma once
#include "abi.h"
#include "functions.h"

int32_t optgen_runtime_abi(void);

/* The best instruction set of this processor, out of those that kernels are compiled for. */
const char *optgen_isa(void);

/* Puts this thread into the floating-point state of kernels, for what the host computes for them:
 * gives the state of before, for optgen_leave. */
uint64_t optgen_enter(void);
void optgen_leave(uint64_t before);

/* The number of units of work, or of slabs, of a tensor with this layout; one of them is 0. */
int64_t optgen_units(const optgen_kernel *kernel, const int64_t *layout);
int64_t optgen_slabs(const int64_t *layout);

/* Threads of another library that run a step instead of the pool. `parallel` runs `run(data)` in
 * `threads` threads, the caller's among them, and returns when all have; `number` says which of
 * them the caller is, from 0 on. OpenMP calls them GOMP_parallel and omp_get_thread_num. */
typedef struct {
    void (*parallel)(void (*run)(void *data), void *data, unsigned threads, unsigned flags);
    int (*number)(void);
} optgen_team;

/* Takes memory for the values that the kernel reduces, so that steps of this thread cannot fail for
 * want of it; 0 if there is none. */
int32_t optgen_reserve(const optgen_kernel *kernel);

/* Runs the work of a kernel from `from` to before `to` over `count` tensors with `total` units and
 * `slabs` slabs altogether. It is cut into chunks of at least `grain` units for at most `threads`
 * threads: those of `team`, or of the pool if `team` is NULL. `group`: the values of the group.
 * Gives 0, and has done nothing, if there is no memory for the values to be reduced. */
int32_t optgen_step(const optgen_kernel *kernel, const void *tensors, int64_t count, int64_t total,
                    int64_t slabs, const void *group, int32_t from, int32_t to, int32_t threads,
                    int64_t grain, const optgen_team *team);

/* What optgen_step is called with. */
typedef struct {
    const optgen_kernel *kernel;
    const void *tensors;
    int64_t count, total, slabs;
    const void *group;
    int64_t begin, end, threads, grain;
    const optgen_team *team;
} optgen_call;

/* Runs `number` calls one after the other, then counts: adds 1 to `count`, and writes the small
 * states `small`, unless these are NULL. Without a `count`, those of the small states that count
 * stay too. Nothing of Python comes between, so what has moved has been counted. Gives 0, and has
 * done nothing, if there is no memory for values to be reduced. */
int32_t optgen_run(const optgen_call *calls, int64_t number, int64_t *count, const void *small);

/* The number of threads that the pool has started in this process. */
int32_t optgen_workers(void);
