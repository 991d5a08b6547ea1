/* What a kernel library and the runtime agree on. Plain declarations: cffi reads this text too. */
#define OPTGEN_ABI 2

/* The one order of reductions. A tensor is one run of elements, or where rows matter a run for each row. Runs are cut
 * into blocks, which are folded by themselves; down the columns, so many rows are folded at a time. */
#define OPTGEN_BLOCK 1024
#define OPTGEN_PANEL 64

/* What a tensor keeps between the passes of a step, all of it numbers of 8 bytes: its values; of each block what it was
 * folded to, and of each panel its columns; the values of its matrices, rows and columns. */
typedef struct {
    void *cells, *partials, *panels, *matrices, *rows, *columns;
} optgen_space;

/* One parameter with its gradient and states; in a table these follow each other, each with as many pointers: `arrays`
 * with a value for each element, then the states with fewer. first: how many units of work the tensors before it have.
 * layout: kind, rank, shape[rank], by[rank][arrays]; kind is 1 if the innermost dimension is dense, else 0; or 2 if the
 * rows are slices of the first dimension, in pieces of the innermost one. */
typedef struct {
    int64_t first;
    const int64_t *layout;
    const void *scalars;
    const optgen_space *space;
    char *at[];
} optgen_tensor;

/* What elements are updated with: the values of the step, of the group, and of their tensor; which matrix, row and column
 * of it the first one stands in, and how many columns the tensor has; and where to leave what is to be reduced. */
typedef struct {
    const void *step, *group;
    const optgen_tensor *tensor;
    int64_t matrix, row, column, columns;
    void *reduced;
} optgen_values;

/* Updates n elements. at: the first element of each array, in the rule's order: p, g, the states. by: the stride of
 * each array in bytes, or NULL if every array is dense and aligned. */
typedef void optgen_row(char *const *at, const int64_t *by, int64_t n, const optgen_values *values);

/* Folds n values of each reduction into those of the block, and into the columns of its panel, of which each reduction
 * has `stride`; `first` if these are to be begun. */
typedef void optgen_fold(const void *reduced, int64_t n, void *partials, void *panels, int64_t stride, int32_t first);

/* Both at once, for a block that is one row of elements. */
typedef void optgen_block(char *const *at, const int64_t *by, int64_t n, const optgen_values *values, void *partials,
                          void *panels, int64_t stride, int32_t first);

/* What is computed for one tensor between two passes. */
typedef void optgen_between(const optgen_tensor *tensor, const void *step, const void *group);

/* A pass over memory, which may fold what it reduces; or what stands between two passes. */
typedef struct {
    optgen_row *row;
    optgen_fold *fold;
    optgen_block *block;
    optgen_between *between;
} optgen_work;

/* One variant of a rule, for one compute type and one instruction set: its work in order. units: the elements of one
 * unit of work, 1 or OPTGEN_BLOCK; or 0 if it is a tile, a block of columns of a panel of rows. partials: how many values
 * a block is folded to, panels: how many a column, reduced: how many reductions a pass has, at most. */
typedef struct {
    const char *variant;
    const char *dtype;
    const char *isa;
    int32_t arrays, states, units, partials, panels, reduced, count;
    const optgen_work *work;
} optgen_kernel;
