/* Random numbers: for each element a word of 64 bits, and what is made of it.
 *
 * A word is that of Philox4x32-10 (Salmon et al., 2011): a function of the seed, the count of
 * updates, the number of the parameter, the number of the element, and which draw of the rule it
 * is. Invariant: the interpreter makes the same numbers of the same words, in IEEE operations that
 * are exact. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "abi.h"
#include "philox.h"

/* What the words of a draw depend on, besides the element. */
typedef struct {
    double seed, t, parameter;
    uint32_t number;
} optgen_draw_key;

OPTGEN_SHARED uint64_t optgen_word(optgen_draw_key key, uint64_t element)
{
    const uint64_t t = (uint64_t)key.t;
    const optgen_words words =
        optgen_philox((optgen_words){ (uint32_t)element, (uint32_t)(element >> 32), (uint32_t)t,
                                      key.number + ((uint32_t)(t >> 32) << 8) },
                      (uint32_t)key.seed, (uint32_t)key.parameter);
    return (uint64_t)words.a << 32 | words.b;
}

/* The upper bits of a word, 24 or 52, as a fraction below 1: they become those of a number from 1
 * to 2. */
OPTGEN_SHARED double optgen_fraction(uint64_t word, int bits)
{
    const uint64_t kept = word >> 12 & ~(uint64_t)0 << (52 - bits), one = (uint64_t)0x3FF << 52;
    const uint64_t from_one = one | kept;
    double x;
    memcpy(&x, &from_one, sizeof x);
    return x - 1.0;
}

OPTGEN_SHARED double optgen_as_uniform(uint64_t word, int bits)
{
    return optgen_fraction(word, bits);
}

/* A probability of at most 0.5, and never 0, with the sign of the last bit. */
OPTGEN_SHARED double optgen_as_tail(uint64_t word, int bits)
{
    const double least = bits == 24 ? 0x1p-24 : 0x1p-52;
    const double size = (optgen_fraction(word, bits) + least) * 0.5;
    return word & 1 ? -size : size;
}

OPTGEN_SHARED double optgen_as_rademacher(uint64_t word, int bits)
{
    (void)bits;
    return word >> 63 ? -1.0 : 1.0;
}

/* Draws for n elements from `first` on. */
#define OPTGEN_DRAW(KIND)                                                                      \
    OPTGEN_SHARED void optgen_draw_##KIND(double *restrict to, int64_t n, optgen_draw_key key, \
                                          int64_t first, int bits)                             \
    {                                                                                          \
        for (int64_t i = 0; i < n; ++i)                                                        \
            to[i] = optgen_as_##KIND(optgen_word(key, (uint64_t)(first + i)), bits);           \
    }
OPTGEN_DRAW(uniform)
OPTGEN_DRAW(tail)
OPTGEN_DRAW(rademacher)
