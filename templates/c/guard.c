/* The guard of a step plan: are these the arrays that the plan was made for?
 *
 * Looks at lists of NumPy arrays or of PyTorch tensors without calling Python. A gradient in other
 * memory passes if it has the same layout and overlaps nothing that the step writes.
 *
 * States: `roll` holds what the plan saw. A call either passes, after which the gradients of `roll`
 * and the pointers in the kernel's table are those of the call; or fails, and no pointer changed.
 *
 * Invariants:
 * - The caller holds the interpreter's lock.
 * - The type of an object is compared before anything else of it is read: it may be no array.
 * - Pointers are moved after all arrays have passed, never before.
 * - `seen.object` of a gradient holds its address meanwhile; it is not used otherwise.
 *
 * What is said of gradients holds for the other arrays that a step is given: they stand behind the
 * gradients, in lists of their own length. */
#include "internal.h"

/* How CPython's lists and NumPy's arrays begin, as both publish. The caller has checked that they
 * do. */
typedef struct {
    int64_t references;
    const void *type;
    const char *data;
    int32_t rank;
    const int64_t *shape, *strides;
    const void *base, *dtype;
    int32_t flags;
} array;
typedef struct {
    int64_t references;
    const void *type;
    int64_t count;
    const array *const *items;
} list;

typedef int stepping(const void *dict, int64_t *at, const void **key, const void **value);

enum { ALIGNED = 0x0100, WRITEABLE = 0x0400 };

/* An array as it is now: its memory, shape, strides and type. `more`: whatever else must not
 * change. */
typedef struct {
    const char *data;
    const void *base;
    int64_t dtype, more, rank;
    const int64_t *shape, *strides;
} head;

/* `low`, `high`: where the memory of a gradient begins and ends, seen from its first element.
 * `cell`: the kernel's pointer to it, which is `offset` bytes further. */
typedef struct {
    seen as;
    int64_t low, high;
    const char **cell;
    int64_t offset;
} seen_gradient;

/* The arrays of a plan: `count` parameters, and `given` gradients. `lows`, `reach`: what the step
 * writes, as `written` intervals of addresses: where each begins, in order, and how far the first
 * 0, 1, 2, ... of them reach. */
typedef struct {
    int64_t count, given, written;
    const seen *params;
    seen_gradient *grads;
    const int64_t *lows, *reach;
    int64_t fixed;       /* whether gradients in other memory are refused */
    const looking *look; /* NULL for arrays of NumPy */
} roll;

static int read_head(const array *x, const looking *look, head *out)
{
    if (look == NULL) {
        *out = (head){ x->data,
                       x->base,
                       (int64_t)(intptr_t)x->dtype,
                       x->flags & (ALIGNED | WRITEABLE),
                       x->rank,
                       x->shape,
                       x->strides };
        return 1;
    }
    const void *const tensor = (const char *)x + look->at;
    int32_t layout, device, dtype;
    *out = (head){ NULL, NULL, 0, 0, 0, NULL, NULL };
    if (look->of_layout(tensor, &layout) != 0 || layout != look->layout
        || look->of_device(tensor, &device) != 0 || device != look->device
        || look->of_dtype(tensor, &dtype) != 0)
        return 0;
    out->dtype = dtype;
    return look->of_rank(tensor, &out->rank) == 0 && look->of_shape(tensor, &out->shape) == 0
           && look->of_strides(tensor, &out->strides) == 0
           && look->of_data(tensor, &out->data) == 0;
}

static int same_layout(const array *x, const looking *look, const seen *was, head *now)
{
    if (x->type != was->type) /* before anything else is read: it may be no array */
        return 0;
    if (!read_head(x, look, now) || now->dtype != was->dtype || now->rank != was->rank
        || now->more != was->more)
        return 0;
    for (int64_t d = 0; d < was->rank; ++d)
        if (now->shape[d] != was->extents[d] || now->strides[d] != was->extents[was->rank + d])
            return 0;
    return 1;
}

/* Whether an array is in the memory and of the layout that it was seen with. */
OPTGEN_PRIVATE int same_array(const void *x, const looking *look, const seen *was)
{
    head now;
    return same_layout(x, look, was, &now) && now.data == was->data && now.base == was->base;
}

/* Whether a gradient overlaps anything that the step writes. */
static int overlaps(const roll *known, int64_t low, int64_t high)
{
    int64_t from = 0, to = known->written; /* how many intervals begin before `high` */
    while (from < to) {
        const int64_t middle = from + (to - from) / 2;
        if (known->lows[middle] < high)
            from = middle + 1;
        else
            to = middle;
    }
    return known->reach[from] > low;
}

/* Writes what `roll` remembers of a tensor of PyTorch: address, dtype, rank, shape, strides; 0 if
 * it has none. */
OPTGEN_EXPORT int32_t optgen_roll_see(const void *object, const looking *look, int64_t *out)
{
    head now;
    if (!read_head(object, look, &now) || now.rank > MOST_RANK)
        return 0;
    out[0] = (int64_t)(intptr_t)now.data, out[1] = now.dtype, out[2] = now.rank;
    for (int64_t d = 0; d < now.rank; ++d) {
        out[3 + d] = now.shape[d];
        out[3 + now.rank + d] = now.strides[d];
    }
    return 1;
}

/* Whether the values of these Python dictionaries, one behind the other, are the very objects that
 * `known` lists. `next`: PyDict_Next. */
OPTGEN_EXPORT int32_t optgen_roll_values(const void *dicts, const void *known, int64_t count,
                                         stepping *next)
{
    const list *const of = dicts;
    const void *const *const expected = known, *key, *value;
    int64_t found = 0;
    for (int64_t k = 0; k < of->count; ++k)
        for (int64_t at = 0; next(of->items[k], &at, &key, &value); ++found)
            if (found == count || value != expected[found])
                return 0;
    return found == count;
}

/* Whether a gradient has the layout that it had, in memory that the step does not write; notes that
 * memory. */
static int rebindable(const roll *of, const array *given, seen_gradient *gradient)
{
    head now;
    if (!same_layout(given, of->look, &gradient->as, &now))
        return 0;
    if (now.data == NULL && gradient->low < gradient->high) /* zeros that have no memory */
        return 0;
    gradient->as.object = now.data; /* kept until all are known to fit */
    if (now.data == gradient->as.data)
        return 1;
    return !of->fixed
           && !overlaps(of, (int64_t)(intptr_t)now.data + gradient->low,
                        (int64_t)(intptr_t)now.data + gradient->high);
}

/* Whether two Python lists are the parameters of the plan and gradients with the layout of its own.
 * Binds the kernel's pointers to these gradients. `grads` may be NULL: then only parameters are
 * compared. */
OPTGEN_EXPORT int32_t optgen_roll_call(const void *known, const void *params, const void *grads)
{
    const roll *const of = known;
    const list *const ps = params, *const gs = grads;
    if (ps->count != of->count || (gs != NULL && gs->count != of->given))
        return 0;
    for (int64_t k = 0; k < of->count; ++k) {
        const seen *const was = &of->params[k];
        if (was->object != NULL && ps->items[k] != was->object)
            return 0;
        if (!same_array(ps->items[k], of->look, was))
            return 0;
    }
    if (gs == NULL)
        return 1;
    int other = 0;
    for (int64_t k = 0; k < of->given; ++k) {
        if (!rebindable(of, gs->items[k], &of->grads[k]))
            return 0;
        other |= of->grads[k].as.object != of->grads[k].as.data;
    }
    for (int64_t k = 0; other && k < of->given; ++k) {
        seen_gradient *const gradient = &of->grads[k];
        gradient->as.data = gradient->as.object;
        *gradient->cell = gradient->as.data + gradient->offset;
    }
    return 1;
}
