"""From a lowered rule to C and Python source.

In: lowered rules and the templates. Out: the C of kernels and runtime, the text of modules and new specs.

The emitter alone knows precedence, casts, literals and the functions of libm. Templates hold loops and the ABI.
"""
