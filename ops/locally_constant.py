"""Shape, Size: the output depends on x's shape only, so it does not change around x."""

from ._rule import constant_around_x

constant_around_x(__name__, "Shape", "Size")
