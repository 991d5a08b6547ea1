/* What a kernel library exports: the OPTGEN_ABI that it was compiled with, and its kernels, of
 * which the last one has no variant. */
#pragma once
#include "abi.h"

int32_t optgen_abi(void);
const optgen_kernel *optgen_kernels(void);
