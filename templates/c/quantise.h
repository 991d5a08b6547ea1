/* Loads and stores of whole arrays in storages, for the host: a library of its own, which takes
 * longer to compile than the runtime. */
#pragma once
#include "abi.h"

int32_t optgen_storages_abi(void);

/* The random bits of stochastic rounding: those of the elements from `element` on. */
typedef struct {
    uint64_t seed, t, parameter, stream, element;
} optgen_rounding;

/* The loops of a storage for one instruction set; the last ones have no name. */
typedef struct {
    const char *name, *isa;
    const void *loops;
} optgen_storage;
const optgen_storage *optgen_storages(void);

/* Arrays of n elements, dense and apart. `more`: the low bits, or the scales. Without a `rounding`,
 * numbers are rounded to the nearest; else `element` is a multiple of 1,024. */
void optgen_load_array(const optgen_storage *storage, int64_t n, float *x, const void *codes,
                       const void *more);
void optgen_store_array(const optgen_storage *storage, int64_t n, const float *x, void *codes,
                        void *more, const optgen_rounding *rounding);
