/* The floating-point control state of a thread that runs kernels, and the processor's best
 * instruction set.
 *
 * States: the host program's, and the kernels': round to nearest, denormals honoured, no traps.
 *
 * Invariants: kernels run in the second state only, in whatever thread; each control_enter has its
 * control_leave in the same thread, so that the host program never sees a change. */
#include "internal.h"

#if defined(__x86_64__)
OPTGEN_PRIVATE control control_enter(void)
{
    const control before = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return before;
}
OPTGEN_PRIVATE void control_leave(control before) { _mm_setcsr(before); }
#elif defined(__aarch64__)
OPTGEN_PRIVATE control control_enter(void)
{
    control before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"((control)0));
    return before;
}
OPTGEN_PRIVATE void control_leave(control before)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
}
#else
OPTGEN_PRIVATE control control_enter(void) { return 0; }
OPTGEN_PRIVATE void control_leave(control before) { (void)before; }
#endif

OPTGEN_EXPORT uint64_t optgen_enter(void) { return (uint64_t)control_enter(); }

OPTGEN_EXPORT void optgen_leave(uint64_t before) { control_leave((control)before); }

OPTGEN_EXPORT const char *optgen_isa(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return "x86_64_v4";
    if (__builtin_cpu_supports("avx2"))
        return "x86_64_v3";
    return "x86_64_v2"; /* which NumPy needs too */
#else
    return "baseline";
#endif
}
