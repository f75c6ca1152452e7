"""MelWeightMatrix: triangles over the bins of a spectrum, between edges in Hertz.

It takes the edges to whole bins, so that it only jumps as they move: locally constant.
https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html
"""

from ._rule import locally_constant

locally_constant(__name__, "MelWeightMatrix")
