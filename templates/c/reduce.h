/* Reductions, in the one order that all of optgen keeps to.
 *
 * Value i of a block goes to lane i modulo OPTGEN_LANES. Lanes are folded in halves, blocks of a
 * run in order, runs in order. Down a column, the rows of a panel are folded in order, then the
 * panels.
 *
 * Invariant: a vector holds some of the lanes side by side, so the width of vectors never shows in
 * a result. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include "abi.h"

#define OPTGEN_TILE 128 /* elements computed before they are reduced: a multiple of the lanes */

/* The same functions for all rules; no rule uses all of them. */
#define OPTGEN_SHARED static inline __attribute__((always_inline, unused))
#define OPTGEN_APART static __attribute__((noinline, unused))

OPTGEN_SHARED double optgen_take_sum(double total, double x) { return total + x; }
OPTGEN_SHARED double optgen_take_max(double total, double x)
{
    return ((x > total) | (x != x)) ? x : total;
}
OPTGEN_SHARED double optgen_take_min(double total, double x)
{
    return ((x < total) | (x != x)) ? x : total;
}

/* Gathers values that stand `stride` apart; of matrices behind each other, the row that x begins
 * with. Small filters have loops of their own. */
OPTGEN_SHARED void optgen_pick(const double *restrict x, double *restrict row, int64_t count,
                               int64_t stride)
{
    if (stride == 1)
        memcpy(row, x, (size_t)count * sizeof *row);
    else if (stride == 3)
        for (int64_t i = 0; i < count; ++i)
            row[i] = x[i * 3];
    else
        for (int64_t i = 0; i < count; ++i)
            row[i] = x[i * stride];
}

OPTGEN_SHARED void optgen_pick_rows(const double *restrict x, double *restrict row, int64_t count,
                                    int64_t rows, int64_t n)
{
    if (rows == 1)
        memcpy(row, x, (size_t)(count * n) * sizeof *row);
    else if (rows == 3 && n == 3)
        for (int64_t m = 0; m < count; ++m)
            for (int64_t j = 0; j < 3; ++j)
                row[m * 3 + j] = x[m * 9 + j];
    else
        for (int64_t m = 0; m < count; ++m)
            for (int64_t j = 0; j < n; ++j)
                row[m * n + j] = x[m * rows * n + j];
}

#define OPTGEN_FOLDS(NAME, START)                                                               \
    OPTGEN_SHARED void optgen_begin_##NAME(double *lanes)                                       \
    {                                                                                           \
        for (int lane = 0; lane < OPTGEN_LANES; ++lane)                                         \
            lanes[lane] = START;                                                                \
    }                                                                                           \
    /* `count` values that stand `stride` apart, in order. */                                   \
    OPTGEN_SHARED double optgen_line_##NAME(const double *x, int64_t count, int64_t stride)     \
    {                                                                                           \
        double total = START;                                                                   \
        for (int64_t i = 0; i < count; ++i)                                                     \
            total = optgen_take_##NAME(total, x[i * stride]);                                   \
        return total;                                                                           \
    }                                                                                           \
    /* `runs` of `blocks` values each. */                                                       \
    OPTGEN_SHARED double optgen_runs_##NAME(const double *x, int64_t runs, int64_t blocks)      \
    {                                                                                           \
        double total = START;                                                                   \
        for (int64_t run = 0; run < runs; ++run)                                                \
            total = optgen_take_##NAME(total, optgen_line_##NAME(x + run * blocks, blocks, 1)); \
        return total;                                                                           \
    }                                                                                           \
    /* The next value of each of many. */                                                       \
    OPTGEN_SHARED void optgen_beside_##NAME(double *restrict totals, const double *restrict x,  \
                                            int64_t count)                                      \
    {                                                                                           \
        for (int64_t i = 0; i < count; ++i)                                                     \
            totals[i] = optgen_take_##NAME(totals[i], x[i]);                                    \
    }

_Static_assert(OPTGEN_LANES == 32, "the lanes of a block are folded in five halves");
OPTGEN_FOLDS(sum, 0.0)
OPTGEN_FOLDS(max, -(double)INFINITY)
OPTGEN_FOLDS(min, (double)INFINITY)

/* How blocks, panels and slabs are folded: one function of each per instruction set, for all
 * sweeps. The loops over lanes have lengths that compilers know, so that vectors hold the lanes. */
#define OPTGEN_HALVES(NAME, WIDTH)           \
    for (int lane = 0; lane < WIDTH; ++lane) \
        lanes[lane] = optgen_take_##NAME(lanes[lane], lanes[lane + WIDTH]);
#define OPTGEN_FOLDS_ON(NAME, START, ISA, ATTRIBUTE)                                               \
    /* Takes the next n values of a block: a multiple of the lanes, as those before. */            \
    ATTRIBUTE OPTGEN_APART void optgen_take_##NAME##_##ISA(const double *restrict x, int64_t n,    \
                                                           double *restrict lanes)                 \
    {                                                                                              \
        for (int64_t i = 0; i < n; i += OPTGEN_LANES)                                              \
            for (int lane = 0; lane < OPTGEN_LANES; ++lane)                                        \
                lanes[lane] = optgen_take_##NAME(lanes[lane], x[i + lane]);                        \
    }                                                                                              \
    /* Takes the last n values of a block: what the block comes to. */                             \
    ATTRIBUTE OPTGEN_APART double optgen_end_##NAME##_##ISA(const double *restrict x, int64_t n,   \
                                                            double *restrict lanes)                \
    {                                                                                              \
        const int64_t rest = n % OPTGEN_LANES;                                                     \
        optgen_take_##NAME##_##ISA(x, n - rest, lanes);                                            \
        for (int64_t i = 0; i < rest; ++i)                                                         \
            lanes[i] = optgen_take_##NAME(lanes[i], x[n - rest + i]);                              \
        OPTGEN_HALVES(NAME, OPTGEN_LANES / 2)                                                      \
        OPTGEN_HALVES(NAME, OPTGEN_LANES / 4)                                                      \
        OPTGEN_HALVES(NAME, OPTGEN_LANES / 8)                                                      \
        OPTGEN_HALVES(NAME, OPTGEN_LANES / 16)                                                     \
        return optgen_take_##NAME(lanes[0], lanes[1]);                                             \
    }                                                                                              \
    /* The next row of a panel. */                                                                 \
    ATTRIBUTE OPTGEN_APART void optgen_down_##NAME##_##ISA(const double *restrict x, int64_t n,    \
                                                           double *restrict panel, int32_t first)  \
    {                                                                                              \
        for (int64_t j = 0; first && j < n; ++j)                                                   \
            panel[j] = START;                                                                      \
        for (int64_t j = 0; j < n; ++j)                                                            \
            panel[j] = optgen_take_##NAME(panel[j], x[j]);                                         \
    }                                                                                              \
    /* Each of the rows of a slab folded as a block; all rows side by side, for they are short.    \
     * Lanes that a row has no value for hold what changes nothing, and are left out. */           \
    ATTRIBUTE OPTGEN_APART void optgen_rows_##NAME##_##ISA(const double *restrict x, int64_t rows, \
                                                           int64_t n, double *restrict ends)       \
    {                                                                                              \
        const int64_t own = n < OPTGEN_LANES ? n : OPTGEN_LANES;                                   \
        double lanes[OPTGEN_SLAB], next[OPTGEN_SLAB];                                              \
        for (int64_t i = 0; i < own * rows; ++i)                                                   \
            lanes[i] = START;                                                                      \
        for (int64_t lane = 0; lane < n; ++lane) {                                                 \
            optgen_pick(x + lane, next, rows, n);                                                  \
            optgen_beside_##NAME(lanes + lane % OPTGEN_LANES * rows, next, rows);                  \
        }                                                                                          \
        for (int64_t width = OPTGEN_LANES / 2; width > 0; width /= 2)                              \
            if (width < own)                                                                       \
                optgen_beside_##NAME(lanes, lanes + width * rows,                                  \
                                     (own - width < width ? own - width : width) * rows);          \
        memcpy(ends, lanes, (size_t)rows * sizeof *ends);                                          \
    }                                                                                              \
    /* Down the n columns of each matrix of a slab, panel by panel. */                             \
    ATTRIBUTE OPTGEN_APART void optgen_columns_##NAME##_##ISA(const double *restrict x,            \
                                                              int64_t matrices, int64_t rows,      \
                                                              int64_t n, double *restrict ends)    \
    {                                                                                              \
        double panel[OPTGEN_SLAB], next[OPTGEN_SLAB];                                              \
        for (int64_t j = 0; j < matrices * n; ++j)                                                 \
            ends[j] = START;                                                                       \
        for (int64_t top = 0; top < rows; top += OPTGEN_PANEL) {                                   \
            const int64_t bottom = rows - top < OPTGEN_PANEL ? rows : top + OPTGEN_PANEL;          \
            for (int64_t j = 0; j < matrices * n; ++j)                                             \
                panel[j] = START;                                                                  \
            for (int64_t i = top; i < bottom; ++i) {                                               \
                optgen_pick_rows(x + i * n, next, matrices, rows, n);                              \
                optgen_beside_##NAME(panel, next, matrices *n);                                    \
            }                                                                                      \
            optgen_beside_##NAME(ends, panel, matrices *n);                                        \
        }                                                                                          \
    }
/* What spreads values in a slab. `each`: every value of `x` once per element beside it; `every`:
 * the values of each matrix once per row. Written to `room` unless they stand right already. Small
 * filters have loops of their own. */
#define OPTGEN_REPEATS(TYPE, ISA, ATTRIBUTE)                                                    \
    ATTRIBUTE OPTGEN_SHARED void optgen_repeat_##TYPE##_##ISA(                                  \
        const TYPE *restrict x, TYPE *restrict room, int64_t count, int64_t times)              \
    {                                                                                           \
        for (int64_t i = 0; i < count; ++i)                                                     \
            for (int64_t j = 0; j < times; ++j)                                                 \
                room[i * times + j] = x[i];                                                     \
    }                                                                                           \
    ATTRIBUTE OPTGEN_APART const TYPE *optgen_each_##TYPE##_##ISA(const TYPE *x, TYPE *room,    \
                                                                  int64_t count, int64_t times) \
    {                                                                                           \
        if (times == 1)                                                                         \
            return x;                                                                           \
        if (times == 3)                                                                         \
            optgen_repeat_##TYPE##_##ISA(x, room, count, 3);                                    \
        else if (times == 9)                                                                    \
            optgen_repeat_##TYPE##_##ISA(x, room, count, 9);                                    \
        else                                                                                    \
            optgen_repeat_##TYPE##_##ISA(x, room, count, times);                                \
        return room;                                                                            \
    }
#define OPTGEN_STACKS(ISA, ATTRIBUTE)                                                        \
    ATTRIBUTE OPTGEN_SHARED void optgen_stack_##ISA(const double *restrict x,                \
                                                    double *restrict room, int64_t matrices, \
                                                    int64_t rows, int64_t n)                 \
    {                                                                                        \
        for (int64_t m = 0; m < matrices; ++m)                                               \
            for (int64_t i = 0; i < rows; ++i)                                               \
                for (int64_t j = 0; j < n; ++j)                                              \
                    room[(m * rows + i) * n + j] = x[m * n + j];                             \
    }                                                                                        \
    ATTRIBUTE OPTGEN_APART const double *optgen_every_##ISA(                                 \
        const double *x, double *room, int64_t matrices, int64_t rows, int64_t n)            \
    {                                                                                        \
        if (rows == 1)                                                                       \
            return x;                                                                        \
        if (rows == 3 && n == 3)                                                             \
            optgen_stack_##ISA(x, room, matrices, 3, 3);                                     \
        else                                                                                 \
            optgen_stack_##ISA(x, room, matrices, rows, n);                                  \
        return room;                                                                         \
    }

/* The functions of one instruction set. */
typedef struct {
    void (*take)(const double *restrict x, int64_t n, double *restrict lanes);
    double (*end)(const double *restrict x, int64_t n, double *restrict lanes);
    void (*down)(const double *restrict x, int64_t n, double *restrict panel, int32_t first);
    void (*rows)(const double *restrict x, int64_t rows, int64_t n, double *restrict ends);
    void (*columns)(const double *restrict x, int64_t matrices, int64_t rows, int64_t n,
                    double *restrict ends);
} optgen_reducer;
typedef struct {
    optgen_reducer sum, max, min;
    const float *(*each_float)(const float *x, float *room, int64_t count, int64_t times);
    const double *(*each_double)(const double *x, double *room, int64_t count, int64_t times);
    const double *(*every)(const double *x, double *room, int64_t matrices, int64_t rows,
                           int64_t n);
} optgen_reducers;
#define OPTGEN_REDUCER(NAME, ISA)                                                          \
    {                                                                                      \
        optgen_take_##NAME##_##ISA, optgen_end_##NAME##_##ISA, optgen_down_##NAME##_##ISA, \
            optgen_rows_##NAME##_##ISA, optgen_columns_##NAME##_##ISA                      \
    }
#define OPTGEN_REDUCTIONS(ISA, ATTRIBUTE)                                               \
    OPTGEN_FOLDS_ON(sum, 0.0, ISA, ATTRIBUTE)                                           \
    OPTGEN_FOLDS_ON(max, -(double)INFINITY, ISA, ATTRIBUTE)                             \
    OPTGEN_FOLDS_ON(min, (double)INFINITY, ISA, ATTRIBUTE)                              \
    OPTGEN_REPEATS(float, ISA, ATTRIBUTE)                                               \
    OPTGEN_REPEATS(double, ISA, ATTRIBUTE)                                              \
    OPTGEN_STACKS(ISA, ATTRIBUTE)                                                       \
    static const optgen_reducers optgen_reducers_##ISA                                  \
        __attribute__((unused)) = { OPTGEN_REDUCER(sum, ISA), OPTGEN_REDUCER(max, ISA), \
                                    OPTGEN_REDUCER(min, ISA), optgen_each_float_##ISA,  \
                                    optgen_each_double_##ISA, optgen_every_##ISA };

#ifdef OPTGEN_PLAIN
OPTGEN_REDUCTIONS(baseline, OPTGEN_PLAIN)
#endif
#ifdef OPTGEN_V2
OPTGEN_REDUCTIONS(x86_64_v2, OPTGEN_V2)
#endif
#ifdef OPTGEN_V3
OPTGEN_REDUCTIONS(x86_64_v3, OPTGEN_V3)
#endif
#ifdef OPTGEN_V4
OPTGEN_REDUCTIONS(x86_64_v4, OPTGEN_V4)
#endif

OPTGEN_SHARED int64_t optgen_parts(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

/* The matrices of a tensor, and the rows and columns of each: its last two dimensions and all
 * before them, its first dimensions by the others, or its blocks. `outer`: how many dimensions are
 * those of rows, where there is one matrix. */
typedef struct {
    int64_t matrices, rows, columns, elements;
    const int64_t *layout;
    int64_t outer;
} optgen_shape;

OPTGEN_SHARED optgen_shape optgen_shape_of(const int64_t *layout)
{
    const int64_t rank = layout[1], *const shape = layout + 2, block = layout[-2 - layout[-1]];
    const int64_t outer = layout[-3 - layout[-1]];
    const int pieces = layout[0] == OPTGEN_LAYOUT_PIECES;
    const int64_t first_row = pieces ? 0 : rank - 2, first_column = pieces ? outer : rank - 1;
    optgen_shape of = { 1, 1, 1, 1, layout, outer };
    for (int64_t d = 0; d < rank; ++d) {
        of.elements *= shape[d];
        *(d < first_row ? &of.matrices : d < first_column ? &of.rows : &of.columns) *= shape[d];
    }
    if (block > 0)
        of = (optgen_shape){ 1, optgen_parts(of.elements, block), block, of.elements, layout, 0 };
    return of;
}

/* How many indices the first `count` dimensions of a parameter have. */
OPTGEN_SHARED int64_t optgen_indices(const int64_t *layout, int64_t count)
{
    int64_t total = 0;
    for (int64_t k = 1; k <= count; ++k)
        total += layout[-1 - k];
    return total;
}

/* What an index of a dimension comes to: what the rows with it do, or the columns, in order. */
#define OPTGEN_OF_INDEX(NAME, START)                                                       \
    OPTGEN_SHARED double optgen_of_index_##NAME(const double *rows, const double *columns, \
                                                optgen_shape of, int64_t index)            \
    {                                                                                      \
        const int64_t *const layout = of.layout;                                           \
        int64_t k = 1, each = 1;                                                           \
        for (; index >= layout[-1 - k]; ++k)                                               \
            index -= layout[-1 - k];                                                       \
        const int64_t end = k <= of.outer ? of.outer : layout[-1];                         \
        const int64_t count = k <= of.outer ? of.rows : of.columns;                        \
        const double *const values = k <= of.outer ? rows : columns;                       \
        for (int64_t inner = k + 1; inner <= end; ++inner)                                 \
            each *= layout[-1 - inner];                                                    \
        double total = START;                                                              \
        for (int64_t i = index * each; i < count; i += each * layout[-1 - k])              \
            for (int64_t j = i; j < i + each; ++j)                                         \
                total = optgen_take_##NAME(total, values[j]);                              \
        return total;                                                                      \
    }
OPTGEN_OF_INDEX(max, -(double)INFINITY)
OPTGEN_OF_INDEX(min, (double)INFINITY)

/* How many of `of` there are in each of `over`. */
OPTGEN_SHARED double optgen_among(int64_t of, int64_t over)
{
    return over > 0 ? (double)(of / over) : 0.0;
}
