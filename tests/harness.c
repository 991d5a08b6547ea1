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
    int arrays;
} rule;
#include RULES

enum { MOST_ARRAYS = 16, COUNT = 6 };
static const int64_t SIZES[][COUNT] = {
    { 1, 0, 3, 17, 0, 2 }, { 0, 0, 0, 0, 0, 1 }, { 33, 5, 0, 16, 49, 64 }, { 0, 260, 7, 0, 0, 31 },
};
typedef enum { DENSE, GAPS, BACKWARDS, UNALIGNED, STILL, ROWS, COLUMNS, LAYOUTS } layout;
static const char *fault = "";
static char shared[1 << 16];

static int has(const char *name) { return strcmp(fault, name) == 0; }

/* A kernel that is wrong. */
static void write_behind_the_end(char *const *at, const int64_t *by, int64_t n, const void *scalars)
{
    (void)by, (void)scalars;
    at[0][n * 4] = 1;
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
    default: return 1;
    }
}

static void step(const optgen_kernel *kernel, int arrays, const int64_t *sizes, layout kind, int threads, int64_t grain)
{
    const int64_t item = strcmp(kernel->dtype, "float32") == 0 ? 4 : 8;
    const int rank = kind == ROWS || kind == COLUMNS ? 2 : 1;
    const int shift = kind == UNALIGNED || has("unaligned") ? 1 : 0;
    int64_t cells[COUNT][2 + 2 + 2 * MOST_ARRAYS], table[COUNT * (3 + MOST_ARRAYS)], total = 0;
    char *blocks[COUNT * MOST_ARRAYS];
    double scalars[64];

    memset(scalars, 0x3e, sizeof scalars); /* small positive numbers in both types; so below */
    for (int k = 0; k < COUNT; ++k) {
        int64_t *const row = table + k * (3 + arrays), shape[2] = { sizes[k], 3 };
        row[0] = total;
        row[1] = (int64_t)(intptr_t)cells[k];
        row[2] = (int64_t)(intptr_t)scalars;
        cells[k][0] = kind == DENSE;
        cells[k][1] = rank;
        memcpy(cells[k] + 2, shape, (size_t)rank * sizeof *shape);
        for (int a = 0; a < arrays; ++a) {
            int64_t low = 0, high = item;
            for (int d = 0; d < rank; ++d) {
                const int64_t by = stride(kind, a, d, shape) * item, reach = sizes[k] ? by * (shape[d] - 1) : 0;
                cells[k][2 + rank + d * arrays + a] = by;
                *(reach < 0 ? &low : &high) += reach;
            }
            const size_t size = sizes[k] ? (size_t)(shift + high - low) : 0;
            blocks[k * arrays + a] = has("shared") ? shared : memset(malloc(size), 0x3e, size);
            row[3 + a] = (int64_t)(intptr_t)(blocks[k * arrays + a] + (sizes[k] ? shift - low : 0));
        }
        cells[k][2] += has("too long");
        total += cells[k][2] * (rank == 2 ? 3 : 1);
    }
    optgen_step(has("behind") ? write_behind_the_end : kernel->row, table, COUNT, arrays, total, threads, grain);
    for (int i = 0; i < COUNT * arrays && !has("shared"); ++i)
        free(blocks[i]);
}

static void *caller(void *steps)
{
    static const char *const isas[] = { "x86_64_v4", "x86_64_v3", "baseline" };
    for (size_t r = 0; r < sizeof rules / sizeof *rules; ++r)
        for (const optgen_kernel *kernel = rules[r].kernels(); kernel->row; ++kernel) {
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
                        step(kernel, rules[r].arrays, SIZES[s], kind, threads, 1 + (int64_t)s * 3);
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
