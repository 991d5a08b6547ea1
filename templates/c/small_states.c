/* Small states: counts and other values of less than element extent, which lie in tensors of
 * PyTorch.
 *
 * Kernels have them in float64, in memory of the plan. The tensors are the caller's, float32 or
 * float64: they are read before a step and written after one that counts.
 *
 * States: `values` holds what the tensor held when it was last read or written.
 *
 * Invariants:
 * - The caller holds the interpreter's lock, and keeps the tensors alive.
 * - A tensor whose memory has moved is not touched. */
#include "internal.h"

/* `object`: the tensor, with its memory `data` of `count` values; `wide`: whether these are
 * float64. */
typedef struct {
    const char *object;
    void *data;
    double *values;
    int64_t count, wide;
} small_state;

/* The first `counts` of the states count steps. */
typedef struct {
    int64_t count, counts;
    const small_state *states;
    const looking *look;
} small_states;

/* Reads all. 0 if the memory of one has moved, or if a count is not as it was left. */
OPTGEN_EXPORT int32_t optgen_small_read(const void *known)
{
    const small_states *const of = known;
    for (int64_t k = 0; k < of->count; ++k) {
        const small_state *const state = &of->states[k];
        void *data;
        if (of->look->of_data(state->object + of->look->at, &data) != 0 || data != state->data)
            return 0;
        for (int64_t i = 0; i < state->count; ++i) {
            const double value =
                state->wide ? ((const double *)data)[i] : (double)((const float *)data)[i];
            if (k < of->counts && value != state->values[i])
                return 0;
            state->values[i] = value;
        }
    }
    return 1;
}

/* Writes all; each count one higher, if the step `counts`. */
OPTGEN_EXPORT void optgen_small_write(const void *known, int32_t counts)
{
    const small_states *const of = known;
    const control before = control_enter();
    for (int64_t k = 0; k < of->count; ++k) {
        const small_state *const state = &of->states[k];
        for (int64_t i = 0; i < state->count; ++i) {
            const double value = state->values[i] + (counts && k < of->counts);
            if (state->wide)
                ((double *)state->data)[i] = value;
            else
                ((float *)state->data)[i] = (float)value;
            state->values[i] = state->wide ? value : (double)(float)value;
        }
    }
    control_leave(before);
}
