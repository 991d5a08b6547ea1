/* Random words: Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011).
 *
 * Four words of 32 bits are a function of a counter and a key, and of nothing else. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "abi.h"

#ifndef OPTGEN_SHARED
#define OPTGEN_SHARED static inline __attribute__((always_inline, unused))
#endif

/* Four words: a counter, or what is made of it. */
typedef struct {
    uint32_t a, b, c, d;
} optgen_words;

OPTGEN_SHARED optgen_words optgen_philox(optgen_words x, uint32_t first, uint32_t second)
{
    for (int round = 0; round < 10; ++round) {
        const uint64_t left = (uint64_t)0xD2511F53 * x.a, right = (uint64_t)0xCD9E8D57 * x.c;
        x.a = (uint32_t)(right >> 32) ^ x.b ^ first;
        x.c = (uint32_t)(left >> 32) ^ x.d ^ second;
        x.b = (uint32_t)right;
        x.d = (uint32_t)left;
        first += 0x9E3779B9;
        second += 0xBB67AE85;
    }
    return x;
}
