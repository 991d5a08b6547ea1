/* The runtime: one in a process, for the kernels of all rules. */
int32_t optgen_runtime_abi(void);

/* The best instruction set that this processor has, of those that kernels are compiled for. */
const char *optgen_isa(void);

/* How many units of work a tensor of this layout is for a kernel, or how many slabs: it has either. */
int64_t optgen_units(const optgen_kernel *kernel, const int64_t *layout);
int64_t optgen_slabs(const int64_t *layout);

/* Threads of another library, which do a step in the place of the runtime's own. parallel: runs `run` with `data` in as
 * many threads at once, the caller's among them, and comes back when all have; number: which of them the caller is, from 0
 * on. They are called GOMP_parallel and omp_get_thread_num where that library is OpenMP. */
typedef struct {
    void (*parallel)(void (*run)(void *data), void *data, unsigned threads, unsigned flags);
    int (*number)(void);
} optgen_team;

/* The work of a kernel from `from` to before `to`, over `count` tensors, which are `total` units and so many slabs; cut
 * into chunks of at least `grain` of these for at most `threads` threads, those of `team` if it is not NULL. group: the values of all tensors
 * together. */
void optgen_step(const optgen_kernel *kernel, const void *tensors, int64_t count, int64_t total, int64_t slabs,
                 const void *group, int32_t from, int32_t to, int32_t threads, int64_t grain,
                 const optgen_team *team);

/* How many threads the pool has started so far in this process, the callers' own not counted. */
int32_t optgen_workers(void);
