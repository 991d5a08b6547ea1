/* The loads and stores of the storages as loops over arrays, for tests that call them. */
#include "block_storage.h"

#define EXPORT __attribute__((visibility("default"))) void
#define EACH for (int64_t i = 0; i < n; ++i)

EXPORT rounding_bits(uint64_t seed, uint64_t t, uint32_t parameter, uint32_t stream, uint64_t first,
                     int64_t n, uint32_t *to)
{
    EACH
    {
        const uint64_t element = first + (uint64_t)i;
        const optgen_rounding_key key =
            optgen_rounding_key_of(seed, t, parameter, (uint32_t)(element >> 32), stream);
        to[i] = optgen_rounding_bits(key, (uint32_t)element, stream);
    }
}

#define CODES(NAME, TYPE)                                                    \
    EXPORT load_##NAME(int64_t n, float *x, const TYPE *codes)               \
    {                                                                        \
        EACH x[i] = optgen_load_##NAME(codes[i]);                            \
    }                                                                        \
    EXPORT store_##NAME(int64_t n, const float *x, TYPE *codes)              \
    {                                                                        \
        EACH codes[i] = optgen_store_##NAME(x[i]);                           \
    }                                                                        \
    EXPORT store_##NAME##_stochastic(int64_t n, const float *x, TYPE *codes, \
                                     const uint32_t *random)                 \
    {                                                                        \
        EACH codes[i] = optgen_store_##NAME##_stochastic(x[i], random[i]);   \
    }
CODES(bfloat16, uint16_t)
CODES(float16, uint16_t)

#define SPLIT(NAME, TYPE)                                                          \
    EXPORT load_##NAME(int64_t n, float *x, const uint16_t *high, const TYPE *low) \
    {                                                                              \
        EACH x[i] = optgen_load_##NAME(high[i], low[i]);                           \
    }                                                                              \
    EXPORT store_##NAME(int64_t n, const float *x, uint16_t *high, TYPE *low)      \
    {                                                                              \
        EACH                                                                       \
        {                                                                          \
            const optgen_##NAME both = optgen_store_##NAME(x[i]);                  \
            high[i] = both.high;                                                   \
            low[i] = both.low;                                                     \
        }                                                                          \
    }
SPLIT(bf16_8, uint8_t)
SPLIT(bf16_16, uint16_t)

EXPORT store_bf16_8_stochastic(int64_t n, const float *x, uint16_t *high, uint8_t *low,
                               const uint32_t *random)
{
    EACH
    {
        const optgen_bf16_8 both = optgen_store_bf16_8_stochastic(x[i], random[i]);
        high[i] = both.high;
        low[i] = both.low;
    }
}

/* Blocks of SIZE elements, in CODES codes each. */
#define BLOCKS(NAME, SIZE, CODES)                                                                  \
    EXPORT load_##NAME(int64_t n, float *x, const uint8_t *codes, const float *scales)             \
    {                                                                                              \
        for (int64_t i = 0, k = 0; i < n; i += SIZE, ++k)                                          \
            optgen_load_block_##NAME(n - i < SIZE ? n - i : SIZE, x + i, codes + k * CODES,        \
                                     scales[k]);                                                   \
    }                                                                                              \
    EXPORT store_##NAME(int64_t n, const float *x, uint8_t *codes, float *scales)                  \
    {                                                                                              \
        for (int64_t i = 0, k = 0; i < n; i += SIZE, ++k)                                          \
            scales[k] =                                                                            \
                optgen_store_block_##NAME(n - i < SIZE ? n - i : SIZE, x + i, codes + k * CODES);  \
    }                                                                                              \
    EXPORT store_##NAME##_drawing(int64_t n, const float *x, uint8_t *codes, float *scales,        \
                                  uint64_t seed, uint64_t t, uint32_t parameter, uint32_t stream,  \
                                  uint64_t element)                                                \
    {                                                                                              \
        for (int64_t i = 0, k = 0; i < n; i += SIZE, ++k) {                                        \
            const uint64_t first = element + (uint64_t)i;                                          \
            const optgen_rounding_key key =                                                        \
                optgen_rounding_key_of(seed, t, parameter, (uint32_t)(first >> 32), stream);       \
            scales[k] = optgen_store_block_##NAME##_stochastic(n - i < SIZE ? n - i : SIZE, x + i, \
                                                               codes + k * CODES, key, stream,     \
                                                               (uint32_t)first);                   \
        }                                                                                          \
    }
BLOCKS(log8_signed, 256, 256)
BLOCKS(log8_unsigned, 256, 256)
BLOCKS(linear8_signed, 256, 256)
BLOCKS(linear8_unsigned, 256, 256)
BLOCKS(log4_signed, 128, 64)
BLOCKS(log4_unsigned, 128, 64)
