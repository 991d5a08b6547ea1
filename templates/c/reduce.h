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

typedef double optgen_lanes __attribute__((vector_size(8 * OPTGEN_LANES), aligned(8)));

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
    /* What is left of a block in the end. */                                                   \
    OPTGEN_SHARED double optgen_end_##NAME(double *lanes)                                       \
    {                                                                                           \
        for (int width = OPTGEN_LANES / 2; width > 0; width /= 2)                               \
            for (int lane = 0; lane < width; ++lane)                                            \
                lanes[lane] = optgen_take_##NAME(lanes[lane], lanes[lane + width]);             \
        return lanes[0];                                                                        \
    }                                                                                           \
    /* The next row of a panel. */                                                              \
    OPTGEN_SHARED void optgen_down_##NAME(const double *x, int64_t n, double *panel,            \
                                          int32_t first)                                        \
    {                                                                                           \
        for (int64_t j = 0; j < n; ++j)                                                         \
            panel[j] = optgen_take_##NAME(first ? START : panel[j], x[j]);                      \
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

OPTGEN_FOLDS(sum, 0.0)
OPTGEN_FOLDS(max, -(double)INFINITY)
OPTGEN_FOLDS(min, (double)INFINITY)

/* Repeats each value of `x` once per element beside it; or the values of each matrix once per row.
 * Writes them to `room` unless they stand right already. Small filters have loops of their own. */
#define OPTGEN_SPREADS(TYPE)                                                               \
    OPTGEN_SHARED void optgen_repeat_##TYPE(const TYPE *restrict x, TYPE *restrict room,   \
                                            int64_t count, int64_t times)                  \
    {                                                                                      \
        for (int64_t i = 0; i < count; ++i)                                                \
            for (int64_t j = 0; j < times; ++j)                                            \
                room[i * times + j] = x[i];                                                \
    }                                                                                      \
    OPTGEN_SHARED const TYPE *optgen_each_##TYPE(const TYPE *x, TYPE *room, int64_t count, \
                                                 int64_t times)                            \
    {                                                                                      \
        if (times == 1)                                                                    \
            return x;                                                                      \
        if (times == 3)                                                                    \
            optgen_repeat_##TYPE(x, room, count, 3);                                       \
        else if (times == 9)                                                               \
            optgen_repeat_##TYPE(x, room, count, 9);                                       \
        else                                                                               \
            optgen_repeat_##TYPE(x, room, count, times);                                   \
        return room;                                                                       \
    }
OPTGEN_SPREADS(float)
OPTGEN_SPREADS(double)

OPTGEN_SHARED void optgen_stack(const double *restrict x, double *restrict room, int64_t matrices,
                                int64_t rows, int64_t n)
{
    for (int64_t m = 0; m < matrices; ++m)
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < n; ++j)
                room[(m * rows + i) * n + j] = x[m * n + j];
}

OPTGEN_SHARED const double *optgen_every(const double *x, double *room, int64_t matrices,
                                         int64_t rows, int64_t n)
{
    if (rows == 1)
        return x;
    if (rows == 3 && n == 3)
        optgen_stack(x, room, matrices, 3, 3);
    else
        optgen_stack(x, room, matrices, rows, n);
    return room;
}

/* Takes the next n values of a block; those before were a multiple of the lanes. One function per
 * instruction set: each cuts the vector of all lanes into those that it may use. */
#define OPTGEN_TAKE(NAME, ISA, ATTRIBUTE)                                               \
    ATTRIBUTE OPTGEN_SHARED void optgen_take_##NAME##_##ISA(const double *x, int64_t n, \
                                                            double *lanes)              \
    {                                                                                   \
        int64_t i = 0;                                                                  \
        for (; i + OPTGEN_LANES <= n; i += OPTGEN_LANES)                                \
            for (int lane = 0; lane < OPTGEN_LANES; ++lane)                             \
                lanes[lane] = optgen_take_##NAME(lanes[lane], x[i + lane]);             \
        for (int lane = 0; i < n; ++i, ++lane)                                          \
            lanes[lane] = optgen_take_##NAME(lanes[lane], x[i]);                        \
    }
/* The reductions of a slab: one function per instruction set, for all sweeps. */
#define OPTGEN_SLABS(NAME, START, ISA, ATTRIBUTE)                                                  \
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
#define OPTGEN_REDUCTIONS(ISA, ATTRIBUTE)                                                         \
    OPTGEN_SLABS(sum, 0.0, ISA, ATTRIBUTE)                                                        \
    OPTGEN_SLABS(max, -(double)INFINITY, ISA, ATTRIBUTE)                                          \
    OPTGEN_SLABS(min, (double)INFINITY, ISA, ATTRIBUTE)                                           \
    OPTGEN_TAKE(max, ISA, ATTRIBUTE)                                                              \
    OPTGEN_TAKE(min, ISA, ATTRIBUTE)                                                              \
    ATTRIBUTE OPTGEN_SHARED void optgen_take_sum_##ISA(const double *x, int64_t n, double *lanes) \
    {                                                                                             \
        optgen_lanes total;                                                                       \
        int64_t i = 0;                                                                            \
        memcpy(&total, lanes, sizeof total);                                                      \
        for (; i + OPTGEN_LANES <= n; i += OPTGEN_LANES)                                          \
            total += *(const optgen_lanes *)(x + i);                                              \
        memcpy(lanes, &total, sizeof total);                                                      \
        for (int lane = 0; i < n; ++i, ++lane)                                                    \
            lanes[lane] += x[i];                                                                  \
    }

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

/* The matrices of a tensor, and the rows and columns of each: its last two dimensions and all
 * before them, the slices of the first one, or the lines of the last one. */
typedef struct {
    int64_t matrices, rows, columns, elements;
    const int64_t *layout;
} optgen_shape;

OPTGEN_SHARED optgen_shape optgen_shape_of(const int64_t *layout)
{
    const int64_t rank = layout[1], *const shape = layout + 2;
    optgen_shape of = { 1, 1, 1, 1, layout };
    for (int64_t d = 0; d < rank; ++d) {
        of.elements *= shape[d];
        if (d + 2 < rank)
            of.matrices *= shape[d];
    }
    of.rows = rank < 2 ? 1 : shape[rank - 2];
    of.columns = shape[rank - 1];
    if (layout[0] == OPTGEN_LAYOUT_SLICES) {
        of.matrices = 1;
        of.rows = shape[0];
        of.columns = 1;
        for (int64_t d = 1; d < rank; ++d)
            of.columns *= shape[d];
    } else if (layout[0] == OPTGEN_LAYOUT_LINES) {
        of.rows *= of.matrices;
        of.matrices = 1;
    }
    return of;
}

OPTGEN_SHARED int64_t optgen_parts(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

/* How many of `of` there are in each of `over`. */
OPTGEN_SHARED double optgen_among(int64_t of, int64_t over)
{
    return over > 0 ? (double)(of / over) : 0.0;
}
