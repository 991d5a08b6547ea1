/* The runtime: one in a process, for the kernels of all rules. */
int32_t optgen_runtime_abi(void);

/* The best instruction set that this processor has, of those that kernels are compiled for. */
const char *optgen_isa(void);

/* One step: `row` over all elements of `count` tensors, cut into chunks of at least `grain` elements for at most
 * `threads` threads. Each tensor has `arrays` pointers; `total` is the number of elements of all. */
void optgen_step(optgen_row *row, const void *tensors, int64_t count, int32_t arrays, int64_t total, int32_t threads,
                 int64_t grain);

/* How many threads the pool has started so far in this process, the callers' own not counted. */
int32_t optgen_workers(void);
