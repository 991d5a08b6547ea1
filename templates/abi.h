/* What a kernel library and the runtime agree on. Plain declarations: cffi reads this text too. */
#define OPTGEN_ABI 1

/* Updates n elements. at: the first element of each array, in the rule's order: p, g, the states. by: the stride of
 * each array in bytes, or NULL if every array is dense and aligned. scalars: of the compute type, in the rule's order. */
typedef void optgen_row(char *const *at, const int64_t *by, int64_t n, const void *scalars);

/* One variant of a rule, for one compute type and one instruction set. */
typedef struct {
    const char *variant;
    const char *dtype;
    const char *isa;
    optgen_row *row;
} optgen_kernel;

/* One parameter with its gradient and states; in a table these follow each other, each with `arrays` pointers.
 * first: how many elements the tensors before it have. layout: dense (1 or 0), rank, shape[rank], by[rank][arrays]. */
typedef struct {
    int64_t first;
    const int64_t *layout;
    const void *scalars;
    char *at[];
} optgen_tensor;
