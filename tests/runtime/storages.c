/* Stores and loads arrays in every storage, each in a block of its own that ends where the array
 * ends, for a sanitizer to watch. Prints how many.
 *
 * storages ISAS: the instruction sets to try. Lines of the standard input: the name of a storage,
 * how many elements, and the bytes of its two arrays. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quantise.h"

static void convert(const optgen_storage *storage, int64_t n, size_t first, size_t second)
{
    float *const x = malloc((size_t)n * sizeof *x);
    void *const codes = malloc(first), *const more = malloc(second);
    const optgen_rounding rounding = { 1, 2, 3, 1, ((uint64_t)1 << 32) - 1024 };
    uint32_t bits = 1;
    for (int64_t i = 0; i < n; ++i) {
        bits = bits * 1664525 + 1013904223;
        const uint32_t kept = n % 2 ? bits : bits % 0x7F800000; /* any number, or finite ones */
        memcpy(x + i, &kept, sizeof kept);
    }
    optgen_store_array(storage, n, x, codes, more, NULL);
    optgen_load_array(storage, n, x, codes, more);
    optgen_store_array(storage, n, x, codes, more, &rounding);
    optgen_load_array(storage, n, x, codes, more);
    free(x);
    free(codes);
    free(more);
}

int main(int argc, char **argv)
{
    char name[32];
    long long n, count = 0;
    size_t codes, more;
    while (scanf("%31s %lld %zu %zu", name, &n, &codes, &more) == 4)
        for (const optgen_storage *storage = optgen_storages(); storage->name; ++storage)
            for (int i = 1; i < argc; ++i)
                if (strcmp(name, storage->name) == 0 && strcmp(argv[i], storage->isa) == 0) {
                    convert(storage, n, codes, more);
                    ++count;
                }
    printf("%lld\n", count);
    return 0;
}
