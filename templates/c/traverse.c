/* Traversal: cuts a step into chunks and runs the work of a kernel over them. Knows no rule.
 *
 * A step is a list of pieces of work, done in order. Each piece is cut into chunks, and the chunks
 * are dealt out in lanes, one lane per thread, the same in every step: so a thread finds in its
 * caches what it left there. A thread that is through with its lane helps with the others.
 *
 * States of a step: `turn` is the piece at hand, from `from` up to `to`, when the step is over;
 * `done` counts the chunks of that piece that are done; a lane's `next` holds both the piece and
 * the number of chunks taken from it.
 *
 * Invariants:
 * - `turn` and `next` only grow. Who comes late changes nothing and has missed nothing.
 * - Whoever takes a ticket from a lane below its end runs that chunk: each chunk runs once.
 * - A piece begins after the last chunk of the one before, whoever did it.
 * - Lanes are raised before `turn`: a thread that sees a piece finds its chunks free to be taken.
 * - Values to be reduced go to memory of the thread; blocks, panels and tiles are written by one
 *   chunk each. So results do not depend on the threads. */
#include "internal.h"

/* One piece of work as it is cut: first the slabs, then the units; for small loops the shares of
 * all tensors in place of units. */
typedef struct {
    const optgen_work *work;
    int64_t slabs, units, parts; /* how many of each there are; `parts`: the shares of a tensor */
    int64_t slab_chunk, chunk;   /* how many slabs or units a chunk has */
    int64_t slab_chunks, chunks; /* how many chunks: of slabs, and altogether */
} piece;

/* ---- Elements ---- */

static const optgen_tensor *tensor_at(const optgen_kernel *kernel, const char *tensors, int64_t k)
{
    const size_t size =
        sizeof(optgen_tensor) + (size_t)(kernel->arrays + kernel->states) * sizeof(char *);
    return (const optgen_tensor *)(tensors + (size_t)k * size);
}

/* The number of elements, out of n, before the first one at the start of a cache line; 0 if n is
 * too small for that to matter. Vectors across two lines take twice as long to read, and more to
 * write. */
static int64_t before_line(const char *at, int64_t size, int64_t n)
{
    const int64_t bytes = (int64_t)(-(uintptr_t)at % LINE);
    return n * size > 16 * LINE && bytes % size == 0 ? bytes / size : 0;
}

/* Runs elements begin to end of one tensor in the order of its layout, one row of the last
 * dimension at a time. `values`: those of the first element. Values to be reduced are left one
 * behind the other. */
static void run_tensor(const job *step, const optgen_work *work, optgen_values values,
                       int64_t begin, int64_t end)
{
    const optgen_tensor *const tensor = values.tensor;
    const int arrays = step->kernel->arrays;
    const int64_t dense = tensor->layout[0] == OPTGEN_LAYOUT_DENSE, rank = tensor->layout[1],
                  last = rank - 1;
    const int64_t *const shape = tensor->layout + 2, *const by = shape + rank;
    const int64_t *const inner = by + last * arrays;
    int64_t index[MOST_RANK], rest = begin;
    char *at[arrays]; /* as many as the rule has states, and two */

    memcpy(at, tensor->at, (size_t)arrays * sizeof *at);
    for (int64_t d = 0; d < rank; ++d)
        index[d] = 0;
    for (int64_t d = last; rest > 0; --d) {
        index[d] = rest % shape[d];
        rest /= shape[d];
        for (int a = 0; a < arrays; ++a)
            at[a] += index[d] * by[d * arrays + a];
    }
    values.element = begin;
    for (;;) {
        const int64_t row = shape[last] - index[last], left = end - begin,
                      most = row < left ? row : left;
        const int64_t head = dense ? before_line(at[0], inner[0], most) : 0,
                      n = head > 0 ? head : most;
        work->row(at, dense ? NULL : inner, n, &values);
        begin += n;
        values.column += n;
        values.element += n;
        values.reduced = (char *)values.reduced + n * CELL;
        if (begin == end)
            return;
        /* To the next part of the row, or the start of the next one. */
        for (int a = 0; a < arrays; ++a)
            at[a] += n * inner[a];
        index[last] += n;
        for (int64_t d = last; d > 0 && index[d] == shape[d]; --d) {
            for (int a = 0; a < arrays; ++a)
                at[a] += by[(d - 1) * arrays + a] - shape[d] * by[d * arrays + a];
            index[d] = 0;
            ++index[d - 1];
        }
    }
}

static int64_t product(const int64_t *shape, int64_t rank)
{
    int64_t total = 1;
    for (int64_t d = 0; d < rank; ++d)
        total *= shape[d];
    return total;
}

static int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }

/* Runs blocks begin to end of one tensor that is one run; folds each if the sweep reduces. One that
 * does not may take dense blocks only. */
static void run_blocks(const job *step, const optgen_work *work, const optgen_tensor *tensor,
                       int64_t begin, int64_t end, char *reduced)
{
    const int arrays = step->kernel->arrays;
    const int64_t dense = tensor->layout[0] == OPTGEN_LAYOUT_DENSE,
                  rank = tensor->layout[1], *const by = tensor->layout + 2 + rank;
    const int64_t size = product(tensor->layout + 2, rank), blocks = parts(size, OPTGEN_BLOCK);
    optgen_values values = {
        .step = tensor->scalars, .group = step->group, .tensor = tensor, .reduced = reduced
    };
    char *at[arrays];
    const int64_t stop = end * OPTGEN_BLOCK < size ? end * OPTGEN_BLOCK : size;
    if (work->block == NULL) {
        run_tensor(step, work, values, begin * OPTGEN_BLOCK, stop);
        return;
    }
    char *const partials = work->fold != NULL ? tensor->space->partials : NULL;
    for (int64_t block = begin; block < end; ++block) {
        const int64_t from = block * OPTGEN_BLOCK,
                      to = from + OPTGEN_BLOCK < stop ? from + OPTGEN_BLOCK : stop;
        char *const partial = partials != NULL ? partials + block * CELL : NULL;
        if (dense && rank == 1) {
            for (int a = 0; a < arrays; ++a)
                at[a] = tensor->at[a] + from * by[a];
            values.element = from;
            work->block(at, to - from, &values, partial, blocks, NULL, 0, 0);
        } else {
            run_tensor(step, work, values, from, to);
            work->fold(reduced, to - from, partial, blocks, NULL, 0, 0);
        }
    }
}

/* The matrices of a tensor, and the rows and columns of each: its last two dimensions and all
 * before them, its first dimensions by the others, or its blocks. Each row is as long as the
 * others, but for the last block. */
typedef struct {
    int64_t matrices, rows, columns, elements;
} extents;

/* How many elements a block has; 0 if a tensor is seen as matrices. */
static int64_t block_of(const int64_t *layout) { return layout[-2 - layout[-1]]; }

static extents extents_of(const int64_t *layout)
{
    const int64_t rank = layout[1], *const shape = layout + 2, size = product(shape, rank);
    if (block_of(layout) > 0)
        return (extents){ 1, parts(size, block_of(layout)), block_of(layout), size };
    const int64_t outer = layout[-3 - layout[-1]];
    if (layout[0] == OPTGEN_LAYOUT_PIECES)
        return (extents){ 1, product(shape, outer), product(shape + outer, rank - outer), size };
    return (extents){ product(shape, rank - 2), shape[rank - 2], shape[rank - 1], size };
}

/* Runs tiles begin to end of one tensor of matrices, each row after row. A tile is a block of
 * columns of a panel of rows. What a short row has no elements for is folded as nothing. */
static void run_tiles(const job *step, const optgen_work *work, const optgen_tensor *tensor,
                      int64_t begin, int64_t end, char *reduced)
{
    const int arrays = step->kernel->arrays;
    const int64_t kind = tensor->layout[0], rank = tensor->layout[1];
    const int64_t each = block_of(tensor->layout);
    const int dense = kind == OPTGEN_LAYOUT_DENSE;
    const int pieces = kind == OPTGEN_LAYOUT_PIECES || (each > 0 && rank > 1);
    const int64_t *const shape = tensor->layout + 2, *const by = shape + rank;
    const int64_t *const along = by + (rank - 1) * arrays;
    const extents of = extents_of(tensor->layout);
    const int64_t panels = parts(of.rows, OPTGEN_PANEL), blocks = parts(of.columns, OPTGEN_BLOCK);
    const int64_t height = of.matrices * of.rows, width = of.matrices * of.columns;
    char *const partials = tensor->space->partials, *const sums = tensor->space->panels;
    optgen_values values = { .step = tensor->scalars,
                             .group = step->group,
                             .tensor = tensor,
                             .matrices = of.matrices,
                             .rows = height,
                             .columns = width,
                             .reduced = reduced };
    char *at[arrays];
    int64_t down[arrays];

    for (int a = 0; a < arrays; ++a)
        down[a] = each > 0 ? each * along[a] : by[(rank - 2) * arrays + a];
    for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t block = tile % blocks, panel = tile / blocks % panels,
                      matrix = tile / blocks / panels;
        const int64_t left = block * OPTGEN_BLOCK, top = panel * OPTGEN_PANEL;
        const int64_t wide = of.columns - left < OPTGEN_BLOCK ? of.columns - left : OPTGEN_BLOCK;
        const int64_t bottom = top + OPTGEN_PANEL < of.rows ? top + OPTGEN_PANEL : of.rows;
        int64_t rest = matrix;
        for (int a = 0; a < arrays; ++a)
            at[a] = tensor->at[a] + top * down[a] + left * along[a];
        for (int64_t d = rank - 3; !pieces && d >= 0; --d) {
            for (int a = 0; a < arrays; ++a)
                at[a] += rest % shape[d] * by[d * arrays + a];
            rest /= shape[d];
        }
        values.matrix = matrix;
        values.column = matrix * of.columns + left;
        char *const sum = sums + (panel * width + values.column) * CELL;
        for (int64_t i = top; i < bottom; ++i) {
            values.row = matrix * of.rows + i;
            values.element = values.row * of.columns + left;
            const int64_t remain = of.elements - values.element;
            const int64_t n = remain < 0 ? 0 : remain < wide ? remain : wide;
            char *const partial = partials + (values.row * blocks + block) * CELL;
            if (dense && work->block != NULL && n > 0) {
                work->block(at, n, &values, partial, height * blocks, sum, panels * width,
                            i == top);
            } else {
                if (pieces && n > 0)
                    run_tensor(step, work, values, values.element, values.element + n);
                else if (n > 0)
                    work->row(at, dense ? NULL : along, n, &values);
                if (work->fold != NULL)
                    work->fold(reduced, n, partial, height * blocks, sum, panels * width, i == top);
            }
            for (int a = 0; a < arrays; ++a)
                at[a] += down[a];
        }
    }
}

/* What goes through a stage in slabs: how many matrices or blocks, and how many of them a slab has.
 */
typedef struct {
    int64_t count, each;
} pack;

static pack pack_of(const int64_t *layout)
{
    const extents of = extents_of(layout);
    if (block_of(layout) > 0)
        return (pack){ of.rows, OPTGEN_SLAB / of.columns };
    return (pack){ of.matrices, OPTGEN_SLAB / (of.rows * of.columns) };
}

/* Runs slabs begin to end of one tensor, each through the whole stage. */
static void run_slabs(const job *step, const optgen_work *work, const optgen_tensor *tensor,
                      int64_t begin, int64_t end)
{
    const pack of = pack_of(tensor->layout);
    const int64_t each = of.each;
    for (int64_t slab = begin; slab < end; ++slab) {
        const int64_t first = slab * each, left = of.count - first;
        work->slab(tensor, tensor->scalars, step->group, first, each < left ? each : left);
    }
}

OPTGEN_EXPORT int64_t optgen_units(const optgen_kernel *kernel, const int64_t *layout)
{
    if (kernel->units > 0)
        return parts(product(layout + 2, layout[1]), kernel->units);
    if (layout[0] == OPTGEN_LAYOUT_SLABS)
        return 0;
    const extents of = extents_of(layout);
    return of.matrices * parts(of.rows, OPTGEN_PANEL) * parts(of.columns, OPTGEN_BLOCK);
}

OPTGEN_EXPORT int64_t optgen_slabs(const int64_t *layout)
{
    const pack of = layout[0] == OPTGEN_LAYOUT_SLABS ? pack_of(layout) : (pack){ 0, 1 };
    return parts(of.count, of.each);
}

/* The number of slabs, or of other units, before tensor k. */
static int64_t units_before(const job *step, int slabs, int64_t k)
{
    if (k == step->count)
        return slabs ? step->slabs : step->total;
    const optgen_tensor *const tensor = tensor_at(step->kernel, step->tensors, k);
    return slabs ? tensor->slab : tensor->first;
}

/* Runs units, or slabs, begin to end of the whole step. */
static void run_units(const job *step, const optgen_work *work, int slabs, int64_t begin,
                      int64_t end, char *reduced)
{
    const optgen_kernel *const kernel = step->kernel;
    int64_t low = 0, high = step->count; /* the tensor that holds `begin` is in [low, high) */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (units_before(step, slabs, middle) <= begin)
            low = middle;
        else
            high = middle;
    }
    for (int64_t k = low; begin < end; ++k) {
        const optgen_tensor *const tensor = tensor_at(kernel, step->tensors, k);
        const int64_t first = units_before(step, slabs, k), stop = units_before(step, slabs, k + 1),
                      until = stop < end ? stop : end;
        if (begin < until) {
            const int64_t from = begin - first, to = until - first;
            if (slabs)
                run_slabs(step, work, tensor, from, to);
            else if (work->course != NULL && !work->course(tensor, tensor->scalars, step->group))
                ; /* this tensor has another course */
            else if (kernel->units == 1)
                run_tensor(step, work,
                           (optgen_values){ .step = tensor->scalars,
                                            .group = step->group,
                                            .tensor = tensor,
                                            .reduced = reduced },
                           from, to);
            else if (kernel->units > 1)
                run_blocks(step, work, tensor, from, to, reduced);
            else
                run_tiles(step, work, tensor, from, to, reduced);
        }
        begin = until;
    }
}

/* Runs shares begin to end of the small loops of all tensors. */
static void run_small_loops(const job *step, const piece *of, int64_t begin, int64_t end)
{
    for (int64_t share = begin; share < end; ++share) {
        const optgen_tensor *const tensor =
            tensor_at(step->kernel, step->tensors, share / of->parts);
        if (of->work->whole || step->kernel->units != 0 || tensor->layout[0] != OPTGEN_LAYOUT_SLABS)
            of->work->small_loop(tensor, tensor->scalars, step->group, share % of->parts,
                                 of->parts);
    }
}

/* The size of a chunk: several per thread, so that a thread that is held up does not hold up the
 * step. */
static int64_t chunk_of(const job *step, int64_t total)
{
    const int64_t chunk = step->threads > 1 ? total / (step->threads * (int64_t)8) : total;
    return chunk < step->grain ? step->grain : parts(chunk, step->grain) * step->grain;
}

static piece piece_of(const job *step, int32_t k)
{
    const optgen_work *const work = step->kernel->work + k;
    piece of = { work, work->slab != NULL ? step->slabs : 0, step->total, 1, 1, 1, 0, 0 };
    if (work->small_loop != NULL) {
        of.parts = work->whole || step->threads == 1 ? 1 : step->threads * (int64_t)2;
        of.units = step->count * of.parts;
        of.chunk = step->threads == 1 ? of.units + 1 : 1;
    } else {
        of.chunk = chunk_of(step, of.units);
    }
    of.slab_chunk = chunk_of(step, of.slabs);
    of.slab_chunks = parts(of.slabs, of.slab_chunk);
    of.chunks = of.slab_chunks + parts(of.units, of.chunk);
    return of;
}

static void run_chunk(const job *step, const piece *of, int64_t chunk, char *reduced)
{
    const int slabs = chunk < of->slab_chunks;
    const int64_t size = slabs ? of->slab_chunk : of->chunk, total = slabs ? of->slabs : of->units;
    const int64_t begin = (slabs ? chunk : chunk - of->slab_chunks) * size;
    const int64_t end = begin + size < total ? begin + size : total;
    if (slabs || of->work->small_loop == NULL)
        run_units(step, of->work, slabs, begin, end, reduced);
    else
        run_small_loops(step, of, begin, end);
}

/* The most chunks that any piece from `from` on is cut into; at least 1. */
OPTGEN_PRIVATE int64_t most_chunks(const job *step, int32_t from)
{
    int64_t most = 1;
    for (int32_t k = from; k < step->to; ++k) {
        const int64_t chunks = piece_of(step, k).chunks;
        most = chunks > most ? chunks : most;
    }
    return most;
}

/* ---- Lanes ---- */

/* Raises a number that only grows: who is late changes nothing. */
static void raise_to(atomic_llong *number, int64_t value)
{
    long long now = atomic_load_explicit(number, memory_order_relaxed);
    while (now < value && !atomic_compare_exchange_weak(number, &now, value))
        ;
}

/* Begins the next piece after k that has any chunks. Piece k may be through before all lanes
 * are empty of tickets, if some of them have no chunk. */
OPTGEN_PRIVATE void go_on(job *step, int32_t k)
{
    int32_t next = k + 1;
    while (next < step->to && piece_of(step, next).chunks == 0)
        ++next;
    atomic_store_explicit(&step->done, 0, memory_order_relaxed);
    for (int32_t l = 0; l < step->threads; ++l)
        raise_to(&step->lanes[l].next, next * TURN);
    raise_to(&step->turn, next);
    if (atomic_load(&step->sleeping) > 0)
        wake_sleepers();
}

/* Takes the next chunk of lane `l`; -1 if the lane is through, or the whole step. If the
 * next piece has begun meanwhile, `k` and `of` become that piece. */
static int64_t take_chunk(job *step, int32_t l, int32_t *k, piece *of)
{
    const int64_t ticket = atomic_fetch_add_explicit(&step->lanes[l].next, 1, memory_order_acq_rel);
    if (ticket / TURN != *k) {
        *k = (int32_t)(ticket / TURN);
        if (*k >= step->to)
            return -1;
        *of = piece_of(step, *k);
    }
    const int64_t chunk = of->chunks * l / step->threads + ticket % TURN;
    return chunk < of->chunks * (l + 1) / step->threads ? chunk : -1;
}

/* Runs what is left of lane `l`. Whoever does the last chunk of a piece begins the next
 * one. */
static void run_lane(job *step, int32_t l, int32_t *k, piece *of, char *reduced)
{
    int64_t chunk;
    while ((chunk = take_chunk(step, l, k, of)) >= 0) {
        run_chunk(step, of, chunk, reduced);
        if (atomic_fetch_add_explicit(&step->done, 1, memory_order_acq_rel) + 1 == of->chunks)
            go_on(step, *k);
    }
}

/* Runs the lanes of piece `k`, lane `own` first, and of the pieces that begin meanwhile;
 * gives the last of these, or `to` if the step is over. */
static int32_t run_lanes(job *step, int32_t k, int32_t own, char *reduced)
{
    piece of = piece_of(step, k);
    for (int32_t i = 0; i < step->threads && k < step->to; ++i)
        run_lane(step, (own + i) % step->threads, &k, &of, reduced);
    return k;
}

/* Runs chunks until none is left of the whole step. Any number of threads may be in here
 * with the same step. One that has no memory leaves its lane to the others. */
OPTGEN_PRIVATE void run_step(job *step, int32_t own)
{
    char *const reduced = scratch_of(scratch_size(step->kernel));
    if (reduced == NULL)
        return;
    const control host = control_enter();
    int32_t begun, k;
    do {
        begun = (int32_t)atomic_load_explicit(&step->turn, memory_order_acquire);
        k = begun < step->to ? run_lanes(step, begun, own, reduced) : begun;
        if (k == begun && k < step->to) /* else lanes that were passed may have chunks again */
            wait_for(step, k);
    } while (k < step->to);
    control_leave(host);
}
