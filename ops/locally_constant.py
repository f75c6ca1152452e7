"""Shape, Size, EyeLike, ConstantOfShape: shapes alone decide the output, so it does not change around x."""

from ._rule import constant_around_x

constant_around_x(__name__, "Shape", "Size", "EyeLike", "ConstantOfShape")
