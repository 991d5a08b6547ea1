/* The runtime: one in a process, for the kernels of all rules. */
int32_t optgen_runtime_abi(void);

/* The best instruction set that this processor has, of those that kernels are compiled for. */
const char *optgen_isa(void);

/* How many units of work a tensor of this layout is for a kernel. */
int64_t optgen_units(const optgen_kernel *kernel, const int64_t *layout);

/* The work of a kernel from `from` to before `to`, over `count` tensors, which are `total` units; cut into chunks of at
 * least `grain` units for at most `threads` threads. group: the values of all tensors together. */
void optgen_step(const optgen_kernel *kernel, const void *tensors, int64_t count, int64_t total, const void *group,
                 int32_t from, int32_t to, int32_t threads, int64_t grain);

/* How many threads the pool has started so far in this process, the callers' own not counted. */
int32_t optgen_workers(void);
