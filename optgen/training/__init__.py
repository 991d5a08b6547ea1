"""TODO"""

from ..former import attribute_of

__getattr__ = attribute_of("training")  # for what 0.1.0 pickled
