/* Loads and stores of whole arrays in storages, for the host: kernels have loops of their own.
 *
 * States: none.
 *
 * Invariants: the caller has put the thread into the floating-point state of kernels. */
#include <stddef.h>

#include "block_storage.h"
#include "quantise.h"
#include "targets.h"

#define OPTGEN_EXPORT __attribute__((visibility("default")))

/* The random bits of a piece, whose first element has this number in the array. */
typedef struct {
    optgen_rounding_key key;
    uint32_t stream, element;
} piece_rounding;

/* An array goes through in pieces: of one block, or of so many elements. `codes`, `more`: the bytes
 * of a piece in each array. */
typedef struct {
    int64_t size, codes, more;
    void (*load)(int64_t n, float *restrict x, const void *restrict codes,
                 const void *restrict more);
    void (*store)(int64_t n, const float *restrict x, void *restrict codes, void *restrict more);
    void (*draw)(int64_t n, const float *restrict x, void *restrict codes, void *restrict more,
                 const piece_rounding *rounding);
} storage_loops;

#define PIECE 1024

/* ---- One code for each element ---- */

#define CODES_LOOPS(NAME, TYPE, ISA, TARGET)                                                       \
    TARGET static void load_##NAME##_##ISA(int64_t n, float *restrict x, const void *restrict of,  \
                                           const void *restrict more)                              \
    {                                                                                              \
        const TYPE *const codes = of;                                                              \
        (void)more;                                                                                \
        for (int64_t i = 0; i < n; ++i)                                                            \
            x[i] = optgen_load_##NAME(codes[i]);                                                   \
    }                                                                                              \
    TARGET static void store_##NAME##_##ISA(int64_t n, const float *restrict x, void *restrict to, \
                                            void *restrict more)                                   \
    {                                                                                              \
        TYPE *const codes = to;                                                                    \
        (void)more;                                                                                \
        for (int64_t i = 0; i < n; ++i)                                                            \
            codes[i] = optgen_store_##NAME(x[i]);                                                  \
    }                                                                                              \
    TARGET static void draw_##NAME##_##ISA(int64_t n, const float *restrict x, void *restrict to,  \
                                           void *restrict more, const piece_rounding *rounding)    \
    {                                                                                              \
        TYPE *const codes = to;                                                                    \
        const piece_rounding by = *rounding;                                                       \
        (void)more;                                                                                \
        for (int64_t i = 0; i < n; ++i)                                                            \
            codes[i] = optgen_store_##NAME##_stochastic(                                           \
                x[i], optgen_rounding_bits(by.key, by.element + (uint32_t)i, by.stream));          \
    }                                                                                              \
    static const storage_loops NAME##_##ISA = { PIECE,                                             \
                                                PIECE * sizeof(TYPE),                              \
                                                0,                                                 \
                                                load_##NAME##_##ISA,                               \
                                                store_##NAME##_##ISA,                              \
                                                draw_##NAME##_##ISA };

/* ---- Two numbers for each element ---- */

#define SPLIT_LOOPS(NAME, TYPE, ISA, TARGET)                                                       \
    TARGET static void load_##NAME##_##ISA(int64_t n, float *restrict x, const void *restrict of,  \
                                           const void *restrict more)                              \
    {                                                                                              \
        const uint16_t *const high = of;                                                           \
        const TYPE *const low = more;                                                              \
        for (int64_t i = 0; i < n; ++i)                                                            \
            x[i] = optgen_load_##NAME(high[i], low[i]);                                            \
    }                                                                                              \
    TARGET static void store_##NAME##_##ISA(int64_t n, const float *restrict x, void *restrict to, \
                                            void *restrict more)                                   \
    {                                                                                              \
        uint16_t *restrict const high = to;                                                        \
        TYPE *restrict const low = more;                                                           \
        for (int64_t i = 0; i < n; ++i) {                                                          \
            const optgen_##NAME both = optgen_store_##NAME(x[i]);                                  \
            high[i] = both.high;                                                                   \
            low[i] = both.low;                                                                     \
        }                                                                                          \
    }                                                                                              \
    TARGET static void draw_##NAME##_##ISA(int64_t n, const float *restrict x, void *restrict to,  \
                                           void *restrict more, const piece_rounding *rounding)    \
    {                                                                                              \
        uint16_t *restrict const high = to;                                                        \
        TYPE *restrict const low = more;                                                           \
        const piece_rounding by = *rounding;                                                       \
        for (int64_t i = 0; i < n; ++i) {                                                          \
            const optgen_##NAME both = optgen_store_##NAME##_stochastic(                           \
                x[i], optgen_rounding_bits(by.key, by.element + (uint32_t)i, by.stream));          \
            high[i] = both.high;                                                                   \
            low[i] = both.low;                                                                     \
        }                                                                                          \
    }                                                                                              \
    static const storage_loops NAME##_##ISA = { PIECE,                                             \
                                                PIECE * sizeof(uint16_t),                          \
                                                PIECE * sizeof(TYPE),                              \
                                                load_##NAME##_##ISA,                               \
                                                store_##NAME##_##ISA,                              \
                                                draw_##NAME##_##ISA };

/* ---- A scale for each block ---- */

#define BLOCK_LOOPS(NAME, SIZE, CODES, ISA, TARGET)                                                \
    TARGET static void load_##NAME##_##ISA(int64_t n, float *restrict x, const void *restrict of,  \
                                           const void *restrict more)                              \
    {                                                                                              \
        optgen_load_block_##NAME(n, x, of, *(const float *)more);                                  \
    }                                                                                              \
    TARGET static void store_##NAME##_##ISA(int64_t n, const float *restrict x, void *restrict to, \
                                            void *restrict more)                                   \
    {                                                                                              \
        *(float *)more = optgen_store_block_##NAME(n, x, to);                                      \
    }                                                                                              \
    TARGET static void draw_##NAME##_##ISA(int64_t n, const float *restrict x, void *restrict to,  \
                                           void *restrict more, const piece_rounding *rounding)    \
    {                                                                                              \
        *(float *)more = optgen_store_block_##NAME##_stochastic(                                   \
            n, x, to, rounding->key, rounding->stream, rounding->element);                         \
    }                                                                                              \
    static const storage_loops NAME##_##ISA = {                                                    \
        SIZE, CODES, sizeof(float), load_##NAME##_##ISA, store_##NAME##_##ISA, draw_##NAME##_##ISA \
    };

/* ---- All of them ---- */

#define EACH_STORAGE(CODES, SPLIT, BLOCK, ISA, TARGET) \
    CODES(bfloat16, uint16_t, ISA, TARGET)             \
    CODES(float16, uint16_t, ISA, TARGET)              \
    SPLIT(bf16_8, uint8_t, ISA, TARGET)                \
    SPLIT(bf16_16, uint16_t, ISA, TARGET)              \
    BLOCK(log8_signed, 256, 256, ISA, TARGET)          \
    BLOCK(log8_unsigned, 256, 256, ISA, TARGET)        \
    BLOCK(linear8_signed, 256, 256, ISA, TARGET)       \
    BLOCK(linear8_unsigned, 256, 256, ISA, TARGET)     \
    BLOCK(log4_signed, 128, 64, ISA, TARGET)           \
    BLOCK(log4_unsigned, 128, 64, ISA, TARGET)

#define CODES_ROW(NAME, TYPE, ISA, TARGET) { #NAME, #ISA, &NAME##_##ISA },
#define BLOCK_ROW(NAME, SIZE, CODES, ISA, TARGET) { #NAME, #ISA, &NAME##_##ISA },
#define ROWS(ISA, TARGET) EACH_STORAGE(CODES_ROW, CODES_ROW, BLOCK_ROW, ISA, TARGET)
#define LOOPS(ISA, TARGET) EACH_STORAGE(CODES_LOOPS, SPLIT_LOOPS, BLOCK_LOOPS, ISA, TARGET)

#if defined(__x86_64__)
#define EACH_TARGET(X) X(x86_64_v2, OPTGEN_V2) X(x86_64_v3, OPTGEN_V3) X(x86_64_v4, OPTGEN_V4)
#else
#define EACH_TARGET(X) X(baseline, OPTGEN_PLAIN)
#endif
EACH_TARGET(LOOPS)

OPTGEN_EXPORT int32_t optgen_storages_abi(void) { return OPTGEN_ABI; }

OPTGEN_EXPORT const optgen_storage *optgen_storages(void)
{
    static const optgen_storage all[] = { EACH_TARGET(ROWS){ NULL, NULL, NULL } };
    return all;
}

OPTGEN_EXPORT void optgen_load_array(const optgen_storage *storage, int64_t n, float *x,
                                     const void *codes, const void *more)
{
    const storage_loops *const loops = storage->loops;
    for (int64_t at = 0, k = 0; at < n; at += loops->size, ++k)
        loops->load(n - at < loops->size ? n - at : loops->size, x + at,
                    (const char *)codes + k * loops->codes, (const char *)more + k * loops->more);
}

OPTGEN_EXPORT void optgen_store_array(const optgen_storage *storage, int64_t n, const float *x,
                                      void *codes, void *more, const optgen_rounding *rounding)
{
    const storage_loops *const loops = storage->loops;
    piece_rounding by = { .element = 0 };
    uint64_t slab = ~(uint64_t)0;
    for (int64_t at = 0, k = 0; at < n; at += loops->size, ++k) {
        const int64_t count = n - at < loops->size ? n - at : loops->size;
        char *const of = (char *)codes + k * loops->codes, *const other =
                                                               (char *)more + k * loops->more;
        if (rounding == NULL) {
            loops->store(count, x + at, of, other);
            continue;
        }
        const uint64_t element = rounding->element + (uint64_t)at;
        by.element = (uint32_t)element;
        by.stream = (uint32_t)rounding->stream;
        if (element >> 32 != slab) {
            slab = element >> 32;
            by.key =
                optgen_rounding_key_of(rounding->seed, rounding->t, (uint32_t)rounding->parameter,
                                       (uint32_t)slab, by.stream);
        }
        loops->draw(count, x + at, of, other, &by);
    }
}
