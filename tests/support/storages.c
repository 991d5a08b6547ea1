/* The loads and stores of `storage.h` as loops over arrays, for tests that call them. */
#include "storage.h"

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
