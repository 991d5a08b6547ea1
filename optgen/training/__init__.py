"""Training loops over tracked parameters: `param`, `gradient`, `update`, `train`.

In: NumPy arrays, a loss in ordinary NumPy, and any object with `step(params, grads)`.
Out: gradients as plain arrays, and parameters changed in place.

Nothing here knows of rules or kernels.
"""

from ..former import attribute_of

__getattr__ = attribute_of("training")  # for what 0.1.0 pickled
