/* The interface between a kernel library and the runtime.
 *
 * Declarations only. Python reads them too: cffi takes the types, and every `#define` with a whole
 * number is a constant that is stated nowhere else. Count OPTGEN_ABI up when anything here changes.
 *
 * Invariants: every structure that Python fills in consists of members of 8 bytes; addresses of
 * tensors, layouts, scalars and spaces stay valid until the step that uses them returns. */
#pragma once
#include <stdint.h>

#ifdef __FAST_MATH__
#error "optgen: -ffast-math breaks the numerical contract: compile without -ffast-math and -Ofast"
#endif

#define OPTGEN_ABI 12

/* The one order of reductions. A tensor is one run of elements or, where rows matter, one run per
 * row. Runs are cut into blocks; value i of a block goes to lane i modulo the number of lanes. Down
 * the columns, the rows of a panel are folded in order, then the panels. */
#define OPTGEN_BLOCK 1024
#define OPTGEN_LANES 32
#define OPTGEN_PANEL 64

/* Small dense matrices are processed several at a time: a slab has at most so many elements. No
 * more than a block. */
#define OPTGEN_SLAB 512

/* How the elements of a tensor lie, seen from the last dimension of its layout. */
enum {
    OPTGEN_LAYOUT_STRIDED = 0, /* any strides, any alignment */
    OPTGEN_LAYOUT_DENSE = 1,   /* aligned and without gaps */
    OPTGEN_LAYOUT_PIECES = 2,  /* one matrix, its rows or what is between them in several pieces */
    OPTGEN_LAYOUT_SLABS = 3    /* small matrices or blocks, dense from the first to the last */
};

/* What a tensor keeps between the sweeps of a step, as numbers of 8 bytes. `cells`: its values.
 * `partials`, `panels`: the folded blocks and panels of each reduction. `matrices`, `rows`,
 * `columns`, `indices`: one value each per matrix, row, column, or index of a dimension, one list
 * after the other. */
typedef struct {
    void *cells, *partials, *panels, *matrices, *rows, *columns, *indices;
} optgen_space;

/* One parameter with its gradient and states; a row of the table of a step. All rows of a table
 * have equally many pointers: first the arrays with a value per element, then the other states.
 * `first`, `slab`: how many units of work, and how many slabs, the rows before have; a tensor has
 * units or slabs, never both. `layout`: kind (OPTGEN_LAYOUT_*), rank, shape[rank],
 * by[rank][arrays], the strides in bytes. layout[-1] is how many dimensions the parameter itself
 * has, layout[-1 - k] the length of the k-th. Before these stands how many elements a block has: if
 * it is not 0, a row is a block of the tensor, the last of which may be short. Before that stands
 * how many dimensions of the parameter make its rows; 0 if it may be several matrices. */
typedef struct {
    int64_t first;
    const int64_t *layout;
    const void *scalars;
    const optgen_space *space;
    int64_t slab;
    char *at[];
} optgen_tensor;

/* What elements are updated with. `step`, `group`, `tensor`: where to find the values of the step,
 * the group and the tensor. `matrix`, `row`, `column`: where the first element stands, out of
 * `matrices`, `rows`, `columns`. `reduced`: memory of the thread for the values to be reduced, a
 * block for each reduction. `element`: the number of the first element in its tensor, where
 * elements are visited in order. */
typedef struct {
    const void *step, *group;
    const optgen_tensor *tensor;
    int64_t matrix, row, column, matrices, rows, columns;
    void *reduced;
    int64_t element;
} optgen_values;

/* Updates n elements. `at`: the first element of each array, in the order p, g, states. `by`: the
 * stride of each array in bytes, or NULL if all arrays are dense and aligned. */
typedef void optgen_row(char *const *at, const int64_t *by, int64_t n, const optgen_values *values);

/* Folds n values of each reduction: into the value of its block, each `apart` from the next, and
 * into the columns of its panel, `wide` apart. `first`: begin the panel anew. */
typedef void optgen_fold(const void *reduced, int64_t n, void *partials, int64_t apart,
                         void *panels, int64_t wide, int32_t first);

/* Updates and folds one row of elements that lies in one block, dense and aligned. */
typedef void optgen_block(char *const *at, int64_t n, const optgen_values *values, void *partials,
                          int64_t apart, void *panels, int64_t wide, int32_t first);

/* Small loops that run between two sweeps: share `part` of `parts` of one tensor. */
typedef void optgen_small_loop(const optgen_tensor *tensor, const void *step, const void *group,
                               int64_t part, int64_t parts);

/* Takes `count` matrices or blocks of a tensor, from `first` on, through a whole stage. */
typedef void optgen_slab(const optgen_tensor *tensor, const void *step, const void *group,
                         int64_t first, int64_t count);

/* Whether a tensor takes a piece of work, which is there for some courses of a step only. */
typedef int32_t optgen_course(const optgen_tensor *tensor, const void *step, const void *group);

/* One piece of work: a sweep (`row`, with `fold` and `block` if it reduces) or small loops
 * (`small_loop`). `whole`: the small loops run once per tensor, in one share. `slab`: the function
 * that replaces this piece, and all that follow up to the next whole one, for tensors in slabs.
 * `course`: which tensors take this piece, other than in slabs; NULL if all do. */
typedef struct {
    optgen_row *row;
    optgen_fold *fold;
    optgen_block *block;
    optgen_small_loop *small_loop;
    int32_t whole;
    optgen_slab *slab;
    optgen_course *course;
} optgen_work;

/* One variant of a rule for one compute type and one instruction set. `units`: the elements of one
 * unit of work, 1 or OPTGEN_BLOCK; 0 if a unit is a tile, one block of columns of a panel of rows.
 * `partials`, `panels`: the number of reductions over blocks and down columns. `reduced`: the most
 * reductions of one sweep. `work`: `count` pieces, in order. */
typedef struct {
    const char *variant;
    const char *dtype;
    const char *isa;
    int32_t arrays, states, units, partials, panels, reduced, count;
    const optgen_work *work;
} optgen_kernel;
