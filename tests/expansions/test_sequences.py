"""Sequences and optionals inside of models, against onnxruntime (by the certificate) and maps by hand."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import ilin

X = np.array([[1, -2, 3], [-4, 5, -6], [7, 8, -9], [0.5, -1, 2]], np.float32)
RELU = np.diag((X.ravel() > 0).astype(np.float32))

MODELS = {
    "split into rows, mapped, joined": (
        """
        parts = SplitToSequence <axis = 0, keepdims = 0> (x)
        mapped = SequenceMap (parts) <body = f (float[3] a) => (float[3] b) { b = Relu (a) }>
        y = ConcatFromSequence <axis = 0, new_axis = 1> (mapped)
        """,
        RELU,
    ),
    "split by one size": (
        """
        three = Constant <value = int64 {3}> ()
        parts = SplitToSequence <axis = 0> (x, three)
        one = Constant <value = int64 {1}> ()
        last = SequenceAt (parts, one)
        grown = SequenceInsert (parts, last, one)
        fewer = SequenceErase (grown)
        y = ConcatFromSequence <axis = 0> (fewer)
        """,
        np.eye(12),
    ),
    "split by sizes, negative positions": (
        """
        sizes = Constant <value = int64[2] {1, 3}> ()
        parts = SplitToSequence <axis = 0> (x, sizes)
        back = Constant <value = int64 {-2}> ()
        first = SequenceAt (parts, back)
        rest = SequenceErase (parts, back)
        turned = SequenceInsert (rest, first)
        y = ConcatFromSequence <axis = 0> (turned)
        """,
        np.roll(np.eye(12), -3, axis=0),
    ),
    "filled by a loop": (
        """
        none = SequenceEmpty <dtype = 1> ()
        count = Constant <value = int64 {4}> ()
        filled = Loop (count, , none) <
          body = step (int64 i, bool go, seq(float[3]) s) => (bool on, seq(float[3]) t) {
            on = Identity (go)
            row = Gather <axis = 0> (x, i)
            kept = Relu (row)
            length = SequenceLength (s)
            t = SequenceInsert (s, kept, length)
          }
        >
        y = ConcatFromSequence <axis = 0, new_axis = 1> (filled)
        """,
        RELU,
    ),
    "built and read by a loop over its length": (
        """
        n = Neg (x)
        pair = SequenceConstruct (x, n, x)
        length = SequenceLength (pair)
        y = Loop (length, , x) <
          body = step (int64 i, bool go, float[4, 3] h) => (bool on, float[4, 3] t) {
            on = Identity (go)
            item = SequenceAt (pair, i)
            t = Add (h, item)
          }
        >
        """,
        2 * np.eye(12),
    ),
    "optional": (
        """
        o = Optional (x)
        has = OptionalHasElement (o)
        y = If (has) <
          then_branch = a () => (float[4, 3] r) { v = OptionalGetElement (o)  r = Neg (v) },
          else_branch = b () => (float[4, 3] r) { r = Identity (x) }
        >
        """,
        -np.eye(12),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_sequences_are_resolved(name):
    body, W = MODELS[name]
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[4, 3] x) => (float[4, 3] y) {{ {body} }}'
    affine = ilin.linearize(onnx.parser.parse_model(text), X)
    assert affine.certificate.verified, affine.certificate
    assert affine.certificate.points_held == 1
    np.testing.assert_array_equal(affine.W, W)


def test_a_sequence_that_the_model_is_given_is_refused():
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (seq(float[2]) s, float[2] x) => (float[2] y) '
        "{ one = Constant <value = int64 {1}> ()  a = SequenceAt (s, one)  y = Add (a, x) }"
    )
    with pytest.raises(ilin.InputError, match="'s' is no tensor"):
        ilin.linearize(onnx.parser.parse_model(text), {"s": [np.ones(2, np.float32)] * 2, "x": np.ones(2)})
