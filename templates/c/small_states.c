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
 * - A tensor that has other memory, or another layout, is not touched. */
#include "internal.h"

/* `as`: the tensor, which lies in one piece; `count`: how many values it has; `wide`: whether these
 * are float64. */
typedef struct {
    seen as;
    double *values;
    int64_t count, wide;
} small_state;

/* The first `counts` of the states count steps. */
typedef struct {
    int64_t count, counts;
    const small_state *states;
    const looking *look;
} small_states;

/* Reads all. 0 if one has other memory or another layout, or if a count is not as it was left. */
OPTGEN_EXPORT int32_t optgen_small_read(const void *known)
{
    const small_states *const of = known;
    for (int64_t k = 0; k < of->count; ++k) {
        const small_state *const state = &of->states[k];
        const void *const data = state->as.data;
        if (!same_array(state->as.object, of->look, &state->as))
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
        void *const data = (void *)(intptr_t)state->as.data;
        for (int64_t i = 0; i < state->count; ++i) {
            const double value = state->values[i] + (counts && k < of->counts);
            if (state->wide)
                ((double *)data)[i] = value;
            else
                ((float *)data)[i] = (float)value;
            state->values[i] = state->wide ? value : (double)(float)value;
        }
    }
    control_leave(before);
}
