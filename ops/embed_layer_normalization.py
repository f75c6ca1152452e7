"""EmbedLayerNormalization of onnxruntime (com.microsoft): LayerNormalization of a sum of three embeddings.

The embeddings are rows of tables, by the words, the positions and (optional) the segments. Smooth in the
tables; the indices are integers and do not move. Frozen mode holds the deviation. To explain a model from
its embeddings on, name the output of this node, or its third, the sum itself, in inputs.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.EmbedLayerNormalization
"""

import numpy as np

from ..runtime.primitives import Primitive
from ..runtime.program import Kind
from ._moves import gathered, positions
from ._rule import Local, Site, lowers
from .skip_layer_normalization import normalised_sum

_WORDS, _SEGMENTS, _WORD_TABLE, _POSITION_TABLE, _SEGMENT_TABLE, _SCALE, _SHIFT, _MASK, _POSITIONS = range(9)


@lowers(
    "EmbedLayerNormalization",
    domain="com.microsoft",
    kind=Kind.SMOOTH,
    observes=(_WORD_TABLE, _POSITION_TABLE, _SEGMENT_TABLE),
    linear_in=(_WORD_TABLE, _POSITION_TABLE, _SEGMENT_TABLE),
    constant_outputs=(1,),
)
def embed_layer_normalization(site: Site) -> tuple[Local, ...]:
    """Look up, add, normalise."""
    words = site.value(_WORDS)
    places = site.value(_POSITIONS) if site.has(_POSITIONS) else np.arange(words.shape[1])[None]
    indices = {_WORD_TABLE: words, _POSITION_TABLE: np.broadcast_to(places, words.shape)}
    if site.has(_SEGMENTS) and site.has(_SEGMENT_TABLE):
        indices[_SEGMENT_TABLE] = site.value(_SEGMENTS)
    looked_up: dict[int, Primitive] = {
        table: gathered(site, positions(site, table)[index], table) for table, index in indices.items()
    }
    normal, total = normalised_sum(site, looked_up, (_SCALE, _SHIFT), centred=True)
    return (normal, total)[: len(site.outputs) - 1] if len(site.outputs) > 1 else (normal,)
