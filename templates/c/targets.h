/* The instruction sets that loops are compiled for, as attributes of functions. */
#pragma once

#if defined(__x86_64__)
#define OPTGEN_V2 __attribute__((target("sse4.2,popcnt")))
#define OPTGEN_V3 __attribute__((target("avx2")))
#define OPTGEN_AVX512 "avx512f,avx512bw,avx512dq,avx512vl"
#ifdef __clang__
#define OPTGEN_V4 __attribute__((target(OPTGEN_AVX512), min_vector_width(512)))
#else
#define OPTGEN_V4 __attribute__((target(OPTGEN_AVX512 ",prefer-vector-width=512")))
#endif
#else
#define OPTGEN_PLAIN
#endif
