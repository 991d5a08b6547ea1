/* A kernel library: OPTGEN_ABI as it was when it was compiled, and all its kernels, the last one with no row. */
int32_t optgen_abi(void);
const optgen_kernel *optgen_kernels(void);
