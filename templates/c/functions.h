/* The functions of the language in float64, for values of the host. */
#pragma once

/* One of a single argument leaves `y` alone. The last has no name. */
typedef struct {
    const char *name;
    double (*of)(double x, double y);
} optgen_function;
const optgen_function *optgen_functions(void);
