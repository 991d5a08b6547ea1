/* The thread pool: workers that join the steps of other threads.
 *
 * States of the pool: empty, after load and after a fork; idle, workers asleep on `wake`; taken by
 * one step, `step` set while workers may join it. A worker sleeps, joins a step (`active` counts
 * those), and sleeps again; for a moment in between it stays awake, so that the next stretch of a
 * step finds it awake. Within a step, a thread that waits for the next piece sleeps on `turn`.
 *
 * Invariants:
 * - Everything in `pool` is written with `lock` held. `number` and `active` are read without it
 *   only to decide whether to go on spinning.
 * - At most one step has the pool; a step that finds it taken runs in its own thread.
 * - optgen_step returns after the last worker has left: a step lives on its caller's stack.
 * - A worker joins each step at most once (`last`).
 * - The lock is free across a fork, and the child's pool is empty: threads do not survive it.
 * - Workers are never ended; the library is never unloaded. */
#include "internal.h"

#define MOST_WORKERS 255
#define WORKER_STACK ((size_t)1024 * 1024) /* many times what a kernel takes, which is bounded */
#define SPINS 2000 /* looks for new work before a thread sleeps: some tens of microseconds */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake, done, turn;
    job *step;          /* what to run; NULL when there is nothing to join */
    atomic_uint number; /* of the step */
    atomic_int active;  /* how many workers are in the step */
    int32_t workers;
    int taken;
    pthread_t threads[MOST_WORKERS];
#if defined(__linux__)
    cpu_set_t allowed; /* where all workers may run; nowhere if that is not known */
#endif
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
           .wake = PTHREAD_COND_INITIALIZER,
           .done = PTHREAD_COND_INITIALIZER,
           .turn = PTHREAD_COND_INITIALIZER };

/* Leaves the processor's means to another thread, in a loop that waits for one. */
static void pause_a_little(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until piece k is through: awake for a moment, since the others are about as far, then
 * asleep. */
OPTGEN_PRIVATE void wait_for(job *step, int32_t k)
{
    for (int i = 0; i < SPINS; ++i) {
        if (atomic_load_explicit(&step->turn, memory_order_acquire) != k)
            return;
        pause_a_little();
    }
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&step->sleeping, 1);
    while (atomic_load(&step->turn) == k)
        pthread_cond_wait(&pool.turn, &pool.lock);
    atomic_fetch_sub(&step->sleeping, 1);
    pthread_mutex_unlock(&pool.lock);
}

/* Wakes the threads that wait for the next piece of a step. */
OPTGEN_PRIVATE void wake_sleepers(void)
{
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.turn);
    pthread_mutex_unlock(&pool.lock);
}

/* A worker. `own`: its number, which is that of its lane in every step. */
static void *worker(void *own)
{
    const int32_t number = (int32_t)(intptr_t)own;
    unsigned last = 0;
    for (;;) {
        for (int i = 0;
             i < SPINS && atomic_load_explicit(&pool.number, memory_order_relaxed) == last; ++i)
            pause_a_little();
        pthread_mutex_lock(&pool.lock);
        while (pool.step == NULL || number >= pool.step->threads || last == pool.number)
            pthread_cond_wait(&pool.wake, &pool.lock);
        last = pool.number;
        ++pool.active;
        job *const step = pool.step;
        pthread_mutex_unlock(&pool.lock);
        run_step(step, number);
        pthread_mutex_lock(&pool.lock);
        if (--pool.active == 0)
            pthread_cond_signal(&pool.done);
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

static void forget_allowed(void)
{
#if defined(__linux__)
    CPU_ZERO(&pool.allowed);
#endif
}

/* After a fork only the forking thread is left: the child starts with an empty pool. The parent
 * holds the lock while it forks, so that the child never gets it locked. */
static void fork_prepare(void) { pthread_mutex_lock(&pool.lock); }
static void fork_parent(void) { pthread_mutex_unlock(&pool.lock); }
static void fork_child(void)
{
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pthread_cond_init(&pool.turn, NULL);
    pool.step = NULL;
    pool.active = pool.workers = pool.taken = 0;
    forget_allowed();
}

/* Runs when the library is loaded, not with the first worker: a fork may come between its start and
 * the handlers. */
__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* Starts workers until there are `wanted`, as far as the system lets. Called with the lock held.
 * Workers take no signals but those of their own faults: the others are for the program's threads,
 * which may have blocked them in order to wait for them. */
static void start_workers(int32_t wanted)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
    sigset_t all, before;
    pthread_attr_t how;
    if (pool.workers >= wanted || pthread_attr_init(&how) != 0)
        return;
    pthread_attr_setstacksize(&how, WORKER_STACK); /* whatever the system's own limit is */
    sigfillset(&all);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; ++i)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.workers < wanted && pool.workers < MOST_WORKERS) {
        pthread_t thread;
        if (pthread_create(&thread, &how, worker, (void *)(intptr_t)(pool.workers + 1)) != 0)
            break;
        pthread_detach(thread);
        pool.threads[pool.workers++] = thread;
        forget_allowed();
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&how);
}

/* Lets the workers run wherever the stepping thread may, except on its own processor. Called with
 * the lock held. A worker that wakes there would wait until the step is over, and some systems let
 * it wait for many steps. */
static void make_room(void)
{
#if defined(__linux__)
    const int cpu = sched_getcpu();
    cpu_set_t others;
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof others, &others) != 0)
        return;
    if (CPU_COUNT(&others) > 1)
        CPU_CLR((size_t)cpu, &others);
    if (CPU_EQUAL(&others, &pool.allowed))
        return;
    pool.allowed = others;
    for (int32_t w = 0; w < pool.workers; ++w)
        pthread_setaffinity_np(pool.threads[w], sizeof others, &others);
#endif
}

/* The share of one thread of a team. */
static void run_member(void *step)
{
    job *const all = step;
    run_step(all, all->team->number() % all->threads);
}

OPTGEN_EXPORT int32_t optgen_workers(void)
{
    pthread_mutex_lock(&pool.lock);
    const int32_t workers = pool.workers;
    pthread_mutex_unlock(&pool.lock);
    return workers;
}

/* Offers a step to the workers, as many as it has threads besides the caller's; 0 if another step
 * has the pool. */
static int offer(job *step)
{
    int taken = 0;
    pthread_mutex_lock(&pool.lock);
    if (!pool.taken) {
        start_workers(step->threads - 1);
        make_room();
        taken = pool.taken = 1;
        pool.step = step;
        ++pool.number;
        pthread_cond_broadcast(&pool.wake);
    }
    pthread_mutex_unlock(&pool.lock);
    return taken;
}

/* Lets no more worker join the step, and returns when those that have joined have left. */
static void withdraw(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.step = NULL; /* who has not joined by now has nothing left to do */
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < SPINS && atomic_load_explicit(&pool.active, memory_order_relaxed) > 0; ++i)
        pause_a_little();
    pthread_mutex_lock(&pool.lock);
    while (pool.active > 0)
        pthread_cond_wait(&pool.done, &pool.lock);
    pool.taken = 0;
    pthread_mutex_unlock(&pool.lock);
}

OPTGEN_EXPORT int32_t optgen_runtime_abi(void) { return OPTGEN_ABI; }

OPTGEN_EXPORT int32_t optgen_step(const optgen_kernel *kernel, const void *tensors, int64_t count,
                                  int64_t total, int64_t slabs, const void *group, int32_t from,
                                  int32_t to, int32_t threads, int64_t grain,
                                  const optgen_team *team)
{
    job step = {
        .kernel = kernel,
        .group = group,
        .tensors = tensors,
        .count = count,
        .total = total,
        .slabs = slabs,
        .grain = grain,
        .to = to,
        .threads = threads,
        .turn = from - 1,
        .team = team,
    };
    if (!optgen_reserve(kernel))
        return 0;
    const unsigned all = (unsigned)threads;
    const int64_t most = most_chunks(&step, from);
    if (threads > most)
        threads = (int32_t)most;
    lane lanes[threads];
    for (int32_t l = 0; l < threads; ++l)
        atomic_init(&lanes[l].next, -1);
    step.threads = threads;
    step.lanes = lanes;
    go_on(&step, from - 1);
    if (threads > 1 && team != NULL) {
        /* All of the team, though there is less to do: else some of its threads would end. */
        team->parallel(run_member, &step, all, 0);
        return 1;
    }
    const int taken = threads > 1 && offer(&step);
    run_step(&step, 0);
    if (taken)
        withdraw();
    return 1;
}

OPTGEN_EXPORT int32_t optgen_run(const optgen_call *calls, int64_t number, int64_t *count,
                                 const void *small)
{
    for (int64_t k = 0; k < number; ++k)
        if (!optgen_reserve(calls[k].kernel))
            return 0;
    for (int64_t k = 0; k < number; ++k) {
        const optgen_call *const call = &calls[k];
        optgen_step(call->kernel, call->tensors, call->count, call->total, call->slabs, call->group,
                    (int32_t)call->begin, (int32_t)call->end, (int32_t)call->threads, call->grain,
                    call->team);
    }
    if (count != NULL)
        ++*count;
    if (small != NULL)
        optgen_small_write(small, count != NULL);
    return 1;
}
