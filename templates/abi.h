/* What a kernel library and the runtime agree on. Plain declarations: cffi reads this text too. */
#define OPTGEN_ABI 4

/* The one order of reductions. A tensor is one run of elements, or where rows matter a run for each row. Runs are cut
 * into blocks, which are folded by themselves; down the columns, so many rows are folded at a time. */
#define OPTGEN_BLOCK 1024
#define OPTGEN_PANEL 64

/* Matrices of no more elements, one behind the other, are gone through several at a time: as a slab of so many elements
 * at most. It is no more than a block. */
#define OPTGEN_SLAB 512

/* What a tensor keeps between the passes of a step, all of it numbers of 8 bytes: its values; of each reduction what the
 * blocks were folded to, and of each down the columns of the panels; of each value those of its matrices, rows and
 * columns, one behind the other. */
typedef struct {
    void *cells, *partials, *panels, *matrices, *rows, *columns;
} optgen_space;

/* One parameter with its gradient and states; in a table these follow each other, each with as many pointers: `arrays`
 * with a value for each element, then the states with fewer. first, slab: how many units of work, and how many slabs,
 * the tensors before it have; it has either. layout: kind, rank, shape[rank], by[rank][arrays]; kind is 1 if the
 * innermost dimension is dense, else 0; 2 if the rows are slices of the first dimension, in pieces of the innermost one;
 * or 3 if it goes in slabs. */
typedef struct {
    int64_t first;
    const int64_t *layout;
    const void *scalars;
    const optgen_space *space;
    int64_t slab;
    char *at[];
} optgen_tensor;

/* What elements are updated with: the values of the step, of the group, and of their tensor; which matrix, row and column
 * of it the first one stands in, and how many of these the tensor has; and where to leave what is to be reduced. */
typedef struct {
    const void *step, *group;
    const optgen_tensor *tensor;
    int64_t matrix, row, column, matrices, rows, columns;
    void *reduced;
} optgen_values;

/* Updates n elements. at: the first element of each array, in the rule's order: p, g, the states. by: the stride of
 * each array in bytes, or NULL if every array is dense and aligned. */
typedef void optgen_row(char *const *at, const int64_t *by, int64_t n, const optgen_values *values);

/* Folds n values of each reduction into that of the block, each `apart` from the next, and into the columns of its panel,
 * which are `wide` apart; `first` if these are to be begun. */
typedef void optgen_fold(const void *reduced, int64_t n, void *partials, int64_t apart, void *panels, int64_t wide,
                         int32_t first);

/* Both at once, for a block that is one row of elements. */
typedef void optgen_block(char *const *at, const int64_t *by, int64_t n, const optgen_values *values, void *partials,
                          int64_t apart, void *panels, int64_t wide, int32_t first);

/* What is computed between two passes: share `part` of `parts` of what one tensor has of it. */
typedef void optgen_between(const optgen_tensor *tensor, const void *step, const void *group, int64_t part, int64_t parts);

/* Takes `count` matrices of a tensor, from `first` on, through a whole stage: a slab. */
typedef void optgen_slab(const optgen_tensor *tensor, const void *step, const void *group, int64_t first, int64_t count);

/* A pass over memory, which may fold what it reduces; or what stands between two passes, for the tensors themselves if
 * `whole`. slab: what a tensor in slabs does here, in place of this and all that is not for whole tensors. */
typedef struct {
    optgen_row *row;
    optgen_fold *fold;
    optgen_block *block;
    optgen_between *between;
    int32_t whole;
    optgen_slab *slab;
} optgen_work;

/* One variant of a rule, for one compute type and one instruction set: its work in order. units: the elements of one
 * unit of work, 1 or OPTGEN_BLOCK; or 0 if it is a tile, a block of columns of a panel of rows. partials: how many
 * reductions there are of blocks, panels: how many down the columns, reduced: how many a pass has, at most. */
typedef struct {
    const char *variant;
    const char *dtype;
    const char *isa;
    int32_t arrays, states, units, partials, panels, reduced, count;
    const optgen_work *work;
} optgen_kernel;
