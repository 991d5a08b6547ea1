/* Scratch memory: what a thread needs for values to be reduced, apart from its stack.
 *
 * States of a thread: without scratch; with scratch of a size, which only grows. It is freed when
 * the thread ends.
 *
 * Invariants: no frame of the runtime or of a kernel grows with the number of reductions of a rule;
 * scratch begins with a line of the cache; no two threads share any. */
#include "internal.h"

typedef struct {
    size_t size;
    _Alignas(LINE) char at[];
} scratch;

static pthread_key_t scratch_key;
static int has_scratch_key;

__attribute__((constructor)) static void make_scratch_key(void)
{
    has_scratch_key = pthread_key_create(&scratch_key, free) == 0;
}

/* The scratch of this thread, of at least `size` bytes; NULL if there is no memory for it. What was
 * in it may be gone. */
OPTGEN_PRIVATE char *scratch_of(size_t size)
{
    static char none[LINE];
    if (size == 0)
        return none;
    scratch *own = has_scratch_key ? pthread_getspecific(scratch_key) : NULL;
    if (own != NULL && own->size >= size)
        return own->at;
    const size_t lines = (sizeof *own + size + LINE - 1) / LINE;
    scratch *const made = has_scratch_key ? aligned_alloc(LINE, lines * LINE) : NULL;
    if (made == NULL)
        return NULL;
    made->size = size;
    if (pthread_setspecific(scratch_key, made) != 0) {
        free(made);
        return NULL;
    }
    free(own);
    return made->at;
}

OPTGEN_EXPORT int32_t optgen_reserve(const optgen_kernel *kernel)
{
    return scratch_of(scratch_size(kernel)) != NULL;
}
