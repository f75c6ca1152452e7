"""Shape, Size, EyeLike, ConstantOfShape: shapes alone decide the output, so it does not change around x."""

from ._rule import constant_by_shape

constant_by_shape(__name__, "Shape", "Size", "EyeLike", "ConstantOfShape")
