/* Steps kernels over memory of many shapes, each array in a block of its own that ends where the array ends, for a
 * sanitizer to watch. RULES, a file that the test writes, lists the kernels.
 *
 * harness CALLERS [FAULT]: how many threads do all this at once; and a fault that the sanitizer must find. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "kernel.h"
#include "runtime.h"

typedef struct {
    const optgen_kernel *(*kernels)(void);
    const char *variant;
    int cells, matrices, rows, columns, indices; /* how many values of each extent the kernel keeps */
    int indexed;                                 /* whether states have a value for each index of a dimension */
} rule;
#include RULES

enum { MOST_ARRAYS = 16, COUNT = 6 };
static const int64_t SIZES[][COUNT] = {
    { 1, 0, 3, 17, 0, 2 }, { 0, 0, 0, 0, 0, 1 }, { 33, 5, 0, 16, 70, 64 }, { 0, 1260, 7, 0, 0, 31 },
};
typedef enum { DENSE, GAPS, BACKWARDS, UNALIGNED, STILL, ROWS, COLUMNS, SLABS, LAYOUTS } layout;
static const char *fault = "";
static char shared[1 << 16];

static int has(const char *name) { return strcmp(fault, name) == 0; }

/* A kernel that is wrong. */
static void write_behind_the_end(char *const *at, const int64_t *by, int64_t n, const optgen_values *values)
{
    (void)by, (void)values;
    at[0][n * 4] = 1;
}

static int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }

/* Memory for `count` numbers, and not for one more. */
static void *numbers(int64_t count)
{
    double *const made = malloc((size_t)count * sizeof *made);
    for (int64_t i = 0; i < count; ++i)
        made[i] = 0.3;
    return made;
}

/* The stride of array a along dimension d, in elements. */
static int64_t stride(layout kind, int a, int d, const int64_t *shape)
{
    switch (kind) {
    case GAPS: return 1 + (a + 1) % 3;
    case BACKWARDS: return a == 1 ? -1 : 1;
    case STILL: return a == 1 ? 0 : 1;
    case ROWS: return d == 0 ? shape[1] + a : 1;
    case COLUMNS: return a == 1 ? (d == 0 ? 1 : shape[0]) : (d == 0 ? shape[1] : 1);
    case SLABS: return d == 0 ? shape[1] * shape[2] : d == 1 ? shape[2] : 1;
    default: return 1;
    }
}

static void step(const optgen_kernel *kernel, const rule *of, const int64_t *sizes, layout kind, int threads,
                 int64_t grain)
{
    const int64_t item = strcmp(kernel->dtype, "float32") == 0 ? 4 : 8;
    const int arrays = kernel->arrays, pointers = arrays + kernel->states, head = 5;
    const int rank = kind == SLABS ? 3 : kind == ROWS || kind == COLUMNS ? 2 : 1, tiled = kernel->units == 0;
    const int shift = kind == UNALIGNED || has("unaligned") ? 1 : 0;
    int64_t layouts[COUNT][2 + 3 + 1 + 2 + 3 + 3 * MOST_ARRAYS], *cells[COUNT], table[COUNT * (5 + MOST_ARRAYS)], total = 0, slabs = 0;
    char *blocks[COUNT * MOST_ARRAYS];
    optgen_space spaces[COUNT];
    double scalars[64], group[64];

    for (int i = 0; i < 64; ++i)
        scalars[i] = group[i] = 0.3;
    for (int k = 0; k < COUNT; ++k) {
        const int64_t shape[3] = { sizes[k], 3, 2 }, matrices = rank == 3 ? sizes[k] : 1;
        const int64_t rows = rank == 3 ? 3 * sizes[k] : rank == 2 ? sizes[k] : 1;
        const int64_t columns = rank == 3 ? 2 * sizes[k] : rank == 2 ? 3 : sizes[k];
        const int64_t kept = tiled ? rows * parts(columns / (matrices ? matrices : 1), OPTGEN_BLOCK) : parts(columns * rows, OPTGEN_BLOCK);
        const int64_t high = parts(rows / (matrices ? matrices : 1), OPTGEN_PANEL);
        int64_t indices = 0;
        for (int d = 0; d < rank; ++d)
            indices += shape[d];
        int64_t *const row = table + k * (head + pointers);
        cells[k] = layouts[k] + 2 + 3 + 1; /* behind the shape, which stands backwards */
        cells[k][-1] = rank;
        cells[k][-2 - rank] = 0;
        cells[k][-3 - rank] = rank - 1; /* the dimensions of rows */
        for (int d = 0; d < rank; ++d)
            cells[k][-2 - d] = shape[d];
        spaces[k] = (optgen_space){ numbers(of->cells), numbers(kept * kernel->partials),
                                    numbers(high * kernel->panels * columns), numbers(matrices * of->matrices),
                                    numbers(rows * of->rows), numbers(columns * of->columns),
                                    numbers(indices * of->indices) };
        row[0] = total;
        row[1] = (int64_t)(intptr_t)cells[k];
        row[2] = (int64_t)(intptr_t)scalars;
        row[3] = (int64_t)(intptr_t)&spaces[k];
        row[4] = slabs;
        cells[k][0] = kind == SLABS                                ? OPTGEN_LAYOUT_SLABS
                      : kind == DENSE || (tiled && kind == ROWS) ? OPTGEN_LAYOUT_DENSE
                                                                 : OPTGEN_LAYOUT_STRIDED;
        cells[k][1] = rank;
        memcpy(cells[k] + 2, shape, (size_t)rank * sizeof *shape);
        for (int a = 0; a < pointers; ++a) {
            int64_t low = 0, high = item;
            for (int d = 0; d < rank && a < arrays; ++d) {
                const int64_t by = stride(kind, a, d, shape) * item, reach = sizes[k] ? by * (shape[d] - 1) : 0;
                cells[k][2 + rank + d * arrays + a] = by;
                *(reach < 0 ? &low : &high) += reach;
            }
            const size_t size = sizes[k] ? (size_t)(shift + high - low) : 0;
            char *made = a < arrays ? malloc(size) : numbers(rows + columns + indices > 0 ? rows + columns + indices : 1);
            if (a < arrays)
                memset(made, 0x3e, size); /* small positive numbers in both types */
            if (has("shared")) {
                free(made);
                made = shared;
            }
            blocks[k * pointers + a] = made;
            row[head + a] = (int64_t)(intptr_t)(made + (sizes[k] && a < arrays ? shift - low : 0));
        }
        cells[k][2] += has("too long");
        total += optgen_units(kernel, cells[k]);
        slabs += optgen_slabs(cells[k]);
    }
    const optgen_work wrong = { .row = write_behind_the_end };
    optgen_kernel other = *kernel;
    if (has("behind"))
        other.work = &wrong, other.count = 1;
    optgen_step(&other, table, COUNT, total, slabs, group, 0, other.count, threads, grain, NULL);
    for (int i = 0; i < COUNT * pointers && !has("shared"); ++i)
        free(blocks[i]);
    for (int k = 0; k < COUNT; ++k) {
        void *const made[] = { spaces[k].cells, spaces[k].partials, spaces[k].panels, spaces[k].matrices, spaces[k].rows, spaces[k].columns, spaces[k].indices };
        for (size_t i = 0; i < sizeof made / sizeof *made; ++i)
            free(made[i]);
    }
}

static void *caller(void *steps)
{
    static const char *const isas[] = { "x86_64_v4", "x86_64_v3", "x86_64_v2", "baseline" };
    for (size_t r = 0; r < sizeof rules / sizeof *rules; ++r)
        for (const optgen_kernel *kernel = rules[r].kernels(); kernel->work; ++kernel) {
            int usable = 0;
            for (size_t i = 0; i < sizeof isas / sizeof *isas; ++i) {
                usable |= strcmp(optgen_isa(), isas[i]) == 0;
                if (!usable && strcmp(kernel->isa, isas[i]) == 0)
                    goto next;
            }
            if (strcmp(kernel->variant, rules[r].variant) != 0)
                continue;
            for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; ++s)
                for (layout kind = DENSE; kind < LAYOUTS; ++kind)
                    for (int threads = 1; threads <= 4; threads += 3, ++*(int64_t *)steps)
                        /* A tile has two dimensions; of the others none goes in slabs, nor does one with indices. */
                        if (kernel->units > 0 ? kind != SLABS : kind >= ROWS && !(kind == SLABS && rules[r].indexed))
                            step(kernel, &rules[r], SIZES[s], kind, threads, 1 + (int64_t)s * 3);
        next:;
        }
    return NULL;
}

int main(int argc, char **argv)
{
    enum { MOST = 8 };
    const int callers = argc > 1 ? atoi(argv[1]) : 1;
    pthread_t threads[MOST];
    int64_t steps[MOST] = { 0 }, total = 0;

    fault = argc > 2 ? argv[2] : "";
    for (int i = 0; i < callers && i < MOST; ++i)
        if (pthread_create(threads + i, NULL, caller, steps + i) != 0)
            return 2;
    for (int i = 0; i < callers && i < MOST; ++i) {
        pthread_join(threads[i], NULL);
        total += steps[i];
    }
    printf("%d steps, %d workers\n", (int)total, (int)optgen_workers());
    return 0;
}
