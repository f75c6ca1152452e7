"""NonZero, NonMaxSuppression: positions of entries, picked by their values.

Locally constant: an answer holds as long as the same positions come out.
https://onnx.ai/onnx/operators/onnx__NonZero.html, …NonMaxSuppression.html
"""

from ._rule import locally_constant

locally_constant(__name__, "NonZero", "NonMaxSuppression")
