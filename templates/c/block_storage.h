/* Storages whose neighbours share a scale: the load and the store of one element and of one block.
 *
 * The scale of a block is the largest of its sizes, found as an integer, so in any order. Where it
 * is less than 2^-94, all is 0; if there is an infinity or a NaN, all is NaN. A code without a sign
 * is 0 for 0 and negative numbers only. As in storage.h, there are no branches, and the
 * interpreter does the same operations. */
#pragma once
#include "storage.h"

/* The bits of a number without its sign: what the scale of a block is the largest of. */
OPTGEN_SHARED uint32_t optgen_size_bits(float x) { return optgen_bits_of(x) & 0x7FFFFFFFu; }

/* The scale of a block, from the largest of these bits. */
OPTGEN_SHARED float optgen_scale(uint32_t largest)
{
    const uint32_t usable = largest < 33u << 23 ? 0 : largest;
    return optgen_real(usable > 0x7F7FFFFFu ? 0x7FC00000u : usable);
}

/* The scale of these n numbers. */
OPTGEN_SHARED float optgen_scale_of(int64_t n, const float *x)
{
    int32_t largest = 0;
    for (int64_t i = 0; i < n; ++i) {
        const int32_t size = (int32_t)optgen_size_bits(x[i]);
        largest = size > largest ? size : largest;
    }
    return optgen_scale((uint32_t)largest);
}

/* ---- Codes, of a number with a sign and of one without ---- */

/* Without a sign, a positive number has level 1 at least. */
OPTGEN_SHARED uint8_t optgen_code_unsigned(int32_t level, uint32_t u, float scale)
{
    const int32_t least = u > 0, found = level > least ? level : least;
    return (uint8_t)(scale > 0 && u >> 31 == 0 ? found : 0);
}

/* Logarithmic: a step is so many bits of a float32 that are `dropped`; the scale is the highest
 * level. With a sign, the next bit above the levels holds it. */
OPTGEN_SHARED float optgen_load_log(uint32_t code, float scale, uint32_t levels, int dropped)
{
    const uint32_t level = code & levels, below = (levels - level) << dropped;
    const uint32_t none = scale != scale ? 0x7FC00000u : 0;
    const uint32_t size = level > 0 ? optgen_bits_of(scale) - below : none;
    return optgen_real(size | (code & (levels + 1)) * (0x80000000u / (levels + 1)));
}

/* `added`: half a step, or a random part of one. */
OPTGEN_SHARED int32_t optgen_level_log(float x, float scale, uint32_t added, uint32_t levels,
                                       int dropped)
{
    const uint32_t distance = optgen_bits_of(scale) - optgen_size_bits(x);
    const int32_t level = (int32_t)(levels - ((distance + added) >> dropped));
    return level > 0 ? level : 0;
}

OPTGEN_SHARED uint8_t optgen_store_log_signed(float x, float scale, uint32_t added, uint32_t levels,
                                              int dropped)
{
    const uint32_t level = (uint32_t)optgen_level_log(x, scale, added, levels, dropped);
    return (uint8_t)(scale > 0 ? level | (optgen_bits_of(x) >> 31) * (levels + 1) : 0);
}

OPTGEN_SHARED uint8_t optgen_store_log_unsigned(float x, float scale, uint32_t added,
                                                uint32_t levels, int dropped)
{
    const int32_t level = optgen_level_log(x, scale, added, levels, dropped);
    return optgen_code_unsigned(level, optgen_bits_of(x), scale);
}

#define OPTGEN_LOG(NAME, KIND, LEVELS, DROPPED)                                                   \
    OPTGEN_SHARED float optgen_load_##NAME(uint8_t code, float scale)                             \
    {                                                                                             \
        return optgen_load_log(code, scale, LEVELS, DROPPED);                                     \
    }                                                                                             \
    OPTGEN_SHARED uint8_t optgen_store_##NAME(float x, float scale)                               \
    {                                                                                             \
        return optgen_store_log_##KIND(x, scale, 1u << (DROPPED - 1), LEVELS, DROPPED);           \
    }                                                                                             \
    OPTGEN_SHARED uint8_t optgen_store_##NAME##_stochastic(float x, float scale, uint32_t random) \
    {                                                                                             \
        return optgen_store_log_##KIND(x, scale, random << (DROPPED - 16), LEVELS, DROPPED);      \
    }
OPTGEN_LOG(log8_signed, signed, 127, 20)
OPTGEN_LOG(log8_unsigned, unsigned, 255, 20)
OPTGEN_LOG(log4_signed, signed, 7, 23)
OPTGEN_LOG(log4_unsigned, unsigned, 15, 23)

/* Linear: even steps, of which the scale is the highest. With a sign, in two's complement. The
 * highest level is loaded as 1 times the scale, so it never overflows.
 * `added`: 0, or more than -1/2 and less than 1/2. */
OPTGEN_SHARED int32_t optgen_level_linear(float x, float scale, float added, float levels)
{
    const int usable = scale > 0;
    const float steps = x * (levels / (usable ? scale : 1.0f)) + added;
    const float below = steps < levels ? steps : levels;
    const float within = usable ? (below > -levels ? below : -levels) : 0.0f;
    /* The last bit of this sum is 1. */
    return (int32_t)(optgen_bits_of(within + 0x1.8p23f) - 0x4B400000u);
}

/* From 16 random bits, an odd number of 2^-16. */
OPTGEN_SHARED float optgen_part_of_step(uint32_t random)
{
    return (float)((int32_t)(random | 1) - 32768) * 0x1p-16f;
}

OPTGEN_SHARED float optgen_load_linear8_signed(uint8_t code, float scale)
{
    return (float)(int8_t)code * (1.0f / 127.0f) * scale;
}

OPTGEN_SHARED uint8_t optgen_store_linear8_signed(float x, float scale)
{
    return (uint8_t)optgen_level_linear(x, scale, 0.0f, 127.0f);
}

OPTGEN_SHARED uint8_t optgen_store_linear8_signed_stochastic(float x, float scale, uint32_t random)
{
    return (uint8_t)optgen_level_linear(x, scale, optgen_part_of_step(random), 127.0f);
}

OPTGEN_SHARED float optgen_load_linear8_unsigned(uint8_t code, float scale)
{
    return (float)code * (1.0f / 255.0f) * scale;
}

OPTGEN_SHARED uint8_t optgen_store_linear8_unsigned(float x, float scale)
{
    const int32_t level = optgen_level_linear(x, scale, 0.0f, 255.0f);
    return optgen_code_unsigned(level, optgen_bits_of(x), scale);
}

OPTGEN_SHARED uint8_t optgen_store_linear8_unsigned_stochastic(float x, float scale,
                                                               uint32_t random)
{
    const int32_t level = optgen_level_linear(x, scale, optgen_part_of_step(random), 255.0f);
    return optgen_code_unsigned(level, optgen_bits_of(x), scale);
}

/* ---- Blocks ----
 *
 * n is at most 256, or 128 of log4. A store gives the scale. `element`: the number of the first
 * element in its tensor. */

#define OPTGEN_EIGHT(NAME)                                                                    \
    OPTGEN_SHARED void optgen_load_block_##NAME(int64_t n, float *restrict x,                 \
                                                const uint8_t *restrict codes, float scale)   \
    {                                                                                         \
        for (int64_t i = 0; i < n; ++i)                                                       \
            x[i] = optgen_load_##NAME(codes[i], scale);                                       \
    }                                                                                         \
    OPTGEN_SHARED float optgen_store_block_##NAME(int64_t n, const float *restrict x,         \
                                                  uint8_t *restrict codes)                    \
    {                                                                                         \
        const float scale = optgen_scale_of(n, x);                                            \
        for (int64_t i = 0; i < n; ++i)                                                       \
            codes[i] = optgen_store_##NAME(x[i], scale);                                      \
        return scale;                                                                         \
    }                                                                                         \
    OPTGEN_SHARED float optgen_store_block_##NAME##_stochastic(                               \
        int64_t n, const float *restrict x, uint8_t *restrict codes, optgen_rounding_key key, \
        uint32_t stream, uint32_t element)                                                    \
    {                                                                                         \
        const float scale = optgen_scale_of(n, x);                                            \
        for (int64_t i = 0; i < n; ++i) {                                                     \
            const uint32_t random = optgen_rounding_bits(key, element + (uint32_t)i, stream); \
            codes[i] = optgen_store_##NAME##_stochastic(x[i], scale, random);                 \
        }                                                                                     \
        return scale;                                                                         \
    }
OPTGEN_EIGHT(log8_signed)
OPTGEN_EIGHT(log8_unsigned)
OPTGEN_EIGHT(linear8_signed)
OPTGEN_EIGHT(linear8_unsigned)

/* Two codes in a byte: the first half of the block in the lower bits, the second one in the upper
 * bits. The first half has one more element if n is odd. */
#define OPTGEN_FOUR(NAME)                                                                     \
    OPTGEN_SHARED void optgen_load_block_##NAME(int64_t n, float *restrict x,                 \
                                                const uint8_t *restrict codes, float scale)   \
    {                                                                                         \
        const int64_t half = n - n / 2;                                                       \
        for (int64_t i = 0; i < half; ++i)                                                    \
            x[i] = optgen_load_##NAME(codes[i] & 15, scale);                                  \
        for (int64_t i = half; i < n; ++i)                                                    \
            x[i] = optgen_load_##NAME(codes[i - half] >> 4, scale);                           \
    }                                                                                         \
    OPTGEN_SHARED float optgen_store_block_##NAME(int64_t n, const float *restrict x,         \
                                                  uint8_t *restrict codes)                    \
    {                                                                                         \
        const float scale = optgen_scale_of(n, x);                                            \
        const int64_t half = n - n / 2;                                                       \
        for (int64_t i = 0; i < half; ++i)                                                    \
            codes[i] = optgen_store_##NAME(x[i], scale);                                      \
        for (int64_t i = half; i < n; ++i)                                                    \
            codes[i - half] |= (uint8_t)(optgen_store_##NAME(x[i], scale) << 4);              \
        return scale;                                                                         \
    }                                                                                         \
    OPTGEN_SHARED float optgen_store_block_##NAME##_stochastic(                               \
        int64_t n, const float *restrict x, uint8_t *restrict codes, optgen_rounding_key key, \
        uint32_t stream, uint32_t element)                                                    \
    {                                                                                         \
        const float scale = optgen_scale_of(n, x);                                            \
        const int64_t half = n - n / 2;                                                       \
        for (int64_t i = 0; i < half; ++i) {                                                  \
            const uint32_t random = optgen_rounding_bits(key, element + (uint32_t)i, stream); \
            codes[i] = optgen_store_##NAME##_stochastic(x[i], scale, random);                 \
        }                                                                                     \
        for (int64_t i = half; i < n; ++i) {                                                  \
            const uint32_t random = optgen_rounding_bits(key, element + (uint32_t)i, stream); \
            codes[i - half] |=                                                                \
                (uint8_t)(optgen_store_##NAME##_stochastic(x[i], scale, random) << 4);        \
        }                                                                                     \
        return scale;                                                                         \
    }
OPTGEN_FOUR(log4_signed)
OPTGEN_FOUR(log4_unsigned)

/* ---- Elements of a tensor ----
 *
 * n of them from `element` on, where a block begins, of `size`. `kept` has all codes, and behind
 * them, from the next multiple of 4 bytes on, all scales. */

OPTGEN_SHARED float *optgen_scales_of(char *kept, int64_t size, int64_t packed)
{
    return (float *)(void *)(kept + ((size + packed - 1) / packed + 3) / 4 * 4);
}

/* How many elements a tensor of this layout has. */
OPTGEN_SHARED int64_t optgen_elements_of(const int64_t *layout)
{
    int64_t size = 1;
    for (int64_t d = 0; d < layout[1]; ++d)
        size *= layout[2 + d];
    return size;
}

#define OPTGEN_EACH_BLOCK(BLOCK, PACKED)                                          \
    float *const scales = optgen_scales_of(kept, size, PACKED) + element / BLOCK; \
    uint8_t *const codes = (uint8_t *)kept + element / PACKED;                    \
    for (int64_t i = 0, k = 0; i < n; i += BLOCK, ++k)

#define OPTGEN_STAGE(NAME, BLOCK, PACKED)                                                        \
    OPTGEN_SHARED void optgen_load_stage_##NAME(int64_t n, float *restrict x, char *kept,        \
                                                int64_t element, int64_t size)                   \
    {                                                                                            \
        OPTGEN_EACH_BLOCK(BLOCK, PACKED)                                                         \
        optgen_load_block_##NAME(n - i < BLOCK ? n - i : BLOCK, x + i, codes + i / PACKED,       \
                                 scales[k]);                                                     \
    }                                                                                            \
    OPTGEN_SHARED void optgen_store_stage_##NAME(int64_t n, const float *restrict x, char *kept, \
                                                 int64_t element, int64_t size)                  \
    {                                                                                            \
        OPTGEN_EACH_BLOCK(BLOCK, PACKED)                                                         \
        scales[k] =                                                                              \
            optgen_store_block_##NAME(n - i < BLOCK ? n - i : BLOCK, x + i, codes + i / PACKED); \
    }                                                                                            \
    OPTGEN_SHARED void optgen_store_stage_##NAME##_stochastic(                                   \
        int64_t n, const float *restrict x, char *kept, int64_t element, int64_t size,           \
        optgen_rounding_key key, uint32_t stream)                                                \
    {                                                                                            \
        OPTGEN_EACH_BLOCK(BLOCK, PACKED)                                                         \
        scales[k] = optgen_store_block_##NAME##_stochastic(n - i < BLOCK ? n - i : BLOCK, x + i, \
                                                           codes + i / PACKED, key, stream,      \
                                                           (uint32_t)(element + i));             \
    }
OPTGEN_STAGE(log8_signed, 256, 1)
OPTGEN_STAGE(log8_unsigned, 256, 1)
OPTGEN_STAGE(linear8_signed, 256, 1)
OPTGEN_STAGE(linear8_unsigned, 256, 1)
OPTGEN_STAGE(log4_signed, 128, 2)
OPTGEN_STAGE(log4_unsigned, 128, 2)
