/* Storages: the load and the store of one element, in every form that arrays are kept in.
 *
 * A store rounds to the nearest, or stochastically: by 16 random bits. All is integer operations
 * and + - * / in float32, without branches, so that compilers make vectors of it.
 *
 * Invariant: the interpreter does the same operations, so the bits are the same. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "abi.h"
#include "philox.h"

OPTGEN_SHARED uint32_t optgen_bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

OPTGEN_SHARED float optgen_real(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The bits of a number, where every NaN is the same one. */
OPTGEN_SHARED uint32_t optgen_bits_of_number(float x)
{
    return x != x ? 0x7FC00000u : optgen_bits_of(x);
}

/* ---- Random bits for stochastic rounding ---- */

/* The keys of two streams, for one step of a parameter and 2^32 of its elements. */
typedef struct {
    uint32_t first, second;
} optgen_rounding_key;

/* The key of a stream of random bits. `slab`: the number of an element, without its last 32 bits.
 * Streams 2k and 2k + 1 have one key, and share each word that it makes. */
OPTGEN_SHARED optgen_rounding_key optgen_rounding_key_of(uint64_t seed, uint64_t t,
                                                         uint32_t parameter, uint32_t slab,
                                                         uint32_t stream)
{
    /* The highest bit is never set in a draw of a rule: no key is the word of a draw. */
    const optgen_words counter = { (uint32_t)t, (uint32_t)(t >> 32), parameter,
                                   1u << 31 | stream / 4 << 24 | slab };
    const optgen_words words = optgen_philox(counter, (uint32_t)seed, (uint32_t)(seed >> 32));
    return stream % 4 < 2 ? (optgen_rounding_key){ words.a, words.b }
                          : (optgen_rounding_key){ words.c, words.d };
}

/* The random word of an element: lowbias32 (Wellons, 2018) of its number and the key. */
OPTGEN_SHARED uint32_t optgen_rounding_word(optgen_rounding_key key, uint32_t element)
{
    uint32_t x = element * 0x9E3779B9u + key.first;
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x += key.second;
    x *= 0x846CA68Bu;
    return x ^ x >> 16;
}

/* The 16 random bits of an element in a stream. */
OPTGEN_SHARED uint32_t optgen_rounding_bits(optgen_rounding_key key, uint32_t element,
                                            uint32_t stream)
{
    const uint32_t word = optgen_rounding_word(key, element);
    return stream % 2 ? word & 0xFFFFu : word >> 16;
}

/* ---- bfloat16 ---- */

OPTGEN_SHARED float optgen_load_bfloat16(uint16_t code)
{
    return optgen_real((uint32_t)code << 16);
}

OPTGEN_SHARED uint16_t optgen_store_bfloat16(float x)
{
    const uint32_t u = optgen_bits_of(x);
    return (uint16_t)((x != x ? 0x7FC00000u : u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

OPTGEN_SHARED uint16_t optgen_store_bfloat16_stochastic(float x, uint32_t random)
{
    return (uint16_t)((x != x ? 0x7FC00000u : optgen_bits_of(x) + random) >> 16);
}

/* ---- bfloat16 with low bits ----
 *
 * The high half is the nearest bfloat16 of the whole, for the low bits count from their middle. */

typedef struct {
    uint16_t high;
    uint8_t low;
} optgen_bf16_8;

typedef struct {
    uint16_t high, low;
} optgen_bf16_16;

OPTGEN_SHARED float optgen_load_bf16_8(uint16_t high, uint8_t low)
{
    return optgen_real(((uint32_t)high << 16) + ((uint32_t)low << 8) - 0x8000u);
}

OPTGEN_SHARED optgen_bf16_8 optgen_store_bf16_8(float x)
{
    const uint32_t u = optgen_bits_of_number(x) + 0x8080u;
    return (optgen_bf16_8){ (uint16_t)(u >> 16), (uint8_t)(u >> 8) };
}

OPTGEN_SHARED optgen_bf16_8 optgen_store_bf16_8_stochastic(float x, uint32_t random)
{
    const uint32_t u = optgen_bits_of_number(x) + 0x8000u + (random >> 8);
    return (optgen_bf16_8){ (uint16_t)(u >> 16), (uint8_t)(u >> 8) };
}

OPTGEN_SHARED float optgen_load_bf16_16(uint16_t high, uint16_t low)
{
    return optgen_real(((uint32_t)high << 16) + (uint32_t)(int32_t)(int16_t)low);
}

OPTGEN_SHARED optgen_bf16_16 optgen_store_bf16_16(float x)
{
    const uint32_t u = optgen_bits_of_number(x);
    return (optgen_bf16_16){ (uint16_t)((u + 0x8000u) >> 16), (uint16_t)u };
}

/* Nothing is lost, so nothing is left to chance. */
OPTGEN_SHARED optgen_bf16_16 optgen_store_bf16_16_stochastic(float x, uint32_t random)
{
    (void)random;
    return optgen_store_bf16_16(x);
}

/* ---- float16 ---- */

OPTGEN_SHARED float optgen_load_float16(uint16_t code)
{
    const uint32_t u = (uint32_t)(code & 0x7FFF) << 13, rebias = 112u << 23, least = 113u << 23;
    const uint32_t normal = u + (u >= 31u << 23 ? rebias + rebias : rebias);
    /* Subnormal: behind the point of a number that begins with 2^-14, which is taken away. */
    const uint32_t small = optgen_bits_of(optgen_real(u | least) - optgen_real(least));
    return optgen_real((u < 1u << 23 ? small : normal) | (uint32_t)(code & 0x8000) << 16);
}

/* The float16 of the float32 with the bits `u`. Its bits without the sign are `normal` where it is
 * at least 2^-14, and `small` below. */
OPTGEN_SHARED uint16_t optgen_float16_of(uint32_t u, uint32_t normal, uint32_t small)
{
    const uint32_t a = u & 0x7FFFFFFFu, h = a < 113u << 23 ? small : normal;
    const uint32_t bounded = (h < 0x7C00u ? h : 0x7C00u) | (u >> 16 & 0x8000u);
    return (uint16_t)(a > 0x7F800000u ? 0x7E00u : bounded);
}

OPTGEN_SHARED uint16_t optgen_store_float16(float x)
{
    const uint32_t u = optgen_bits_of(x), a = u & 0x7FFFFFFFu, moved = a - (112u << 23);
    /* The last bit of a number from 1/2 to 1 is 2^-24, as that of a subnormal float16. */
    const uint32_t small = optgen_bits_of((a < 113u << 23 ? optgen_real(a) : 0.0f) + 0.5f);
    return optgen_float16_of(u, (moved + 0xFFFu + (moved >> 13 & 1u)) >> 13, small - 0x3F000000u);
}

OPTGEN_SHARED uint16_t optgen_store_float16_stochastic(float x, uint32_t random)
{
    const uint32_t u = optgen_bits_of(x), a = u & 0x7FFFFFFFu, moved = a - (112u << 23);
    const float small = (a < 113u << 23 ? optgen_real(a) : 0.0f) * 0x1p40f;
    return optgen_float16_of(u, (moved + (random >> 3)) >> 13,
                             ((uint32_t)(int32_t)small + random) >> 16);
}
