"""TODO"""

from ..former import attribute_of

__getattr__ = attribute_of("ir")  # for what 0.1.0 pickled
