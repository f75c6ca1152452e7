"""Every primitive obeys every law: a table of factories × a table of laws.

A factory draws the structure of one instance (shapes, labels, windows, indices) by hypothesis, so that a
failure shrinks to a small one; the numbers come from a drawn seed. A law takes an instance and a random
generator, and asserts. Roundings are bounded by the primitive's own `fan_in` and `magnitude`, which are
tested by being used: |computed - exact| <= (fan_in + a few) · eps · |L| |x|.
"""

import dataclasses
import functools
import math
import operator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from ilin.runtime.primitives import (
    Broadcast,
    Chain,
    Contract,
    Conv,
    ConvTranspose,
    Gather,
    Reshape,
    Scale,
    Scatter,
    Sparse,
    Sum,
    Transpose,
    Window,
    chain,
)

CALM = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
DTYPES = (np.float32, np.float64)
seeds = st.integers(0, 2**32 - 1)
extents = st.sampled_from((1, 2, 3, 4))
rarely = st.sampled_from((False,) * 7 + (True,))


# -- factories ---------------------------------------------------------------------------------------
# Each takes the shape to start from, so that Chain can put any of them after any other.


@st.composite
def shapes(draw, max_rank=3):
    """A shape of rank 0 to `max_rank`; now and then one axis is empty."""
    shape = draw(st.lists(extents, max_size=max_rank))
    if shape and draw(rarely):
        shape[draw(st.integers(0, len(shape) - 1))] = 0
    return tuple(shape)


@st.composite
def values(draw, shape):
    """Normal numbers, a fifth of them zero, in either precision."""
    rng = np.random.default_rng(draw(seeds))
    numbers = np.asarray(rng.normal(size=shape) * (rng.random(shape) > 0.2))
    return numbers.astype(draw(st.sampled_from(DTYPES)))


@st.composite
def reshapes(draw, shape=None):
    shape = draw(shapes()) if shape is None else shape
    flat = (math.prod(shape),)
    others = [flat, shape, shape[::-1], (1, *shape), (*shape, 1), (*shape[:1], math.prod(shape[1:]))]
    if flat == (0,):
        others.append((5, 0))
    return Reshape(shape, draw(st.sampled_from(others)))


@st.composite
def transposes(draw, shape=None):
    shape = draw(shapes(max_rank=4)) if shape is None else shape
    return Transpose(shape, tuple(draw(st.permutations(range(len(shape))))))


@st.composite
def indices(draw, size, shape):
    """Positions below `size` for an array of `shape`: with repetitions, gaps (-1), both or neither."""
    rng = np.random.default_rng(draw(seeds))
    count = math.prod(shape)
    if count <= size and draw(st.booleans()):
        index = rng.permutation(size)[:count]
    else:
        index = rng.integers(0, size, count) if size else np.full(count, -1)
    if draw(st.booleans()):
        index = np.where(rng.random(count) < 0.3, -1, index)
    return index.reshape(shape).astype(draw(st.sampled_from((np.int32, np.int64))))


@st.composite
def gathers(draw, shape=None):
    shape = draw(shapes()) if shape is None else shape
    return Gather(shape, draw(indices(math.prod(shape), draw(shapes()))))


@st.composite
def scatters(draw, shape=None):
    shape = draw(shapes()) if shape is None else shape
    out_shape = draw(shapes())
    return Scatter(out_shape, draw(indices(math.prod(out_shape), shape)))


@st.composite
def broadcasts(draw, shape=None):
    shape = draw(shapes()) if shape is None else shape
    lead = draw(st.lists(st.sampled_from((1, 2, 3, 0)), max_size=2))
    return Broadcast(shape, (*lead, *(draw(st.integers(0, 3)) if n == 1 else n for n in shape)))


@st.composite
def sums(draw, shape=None):
    shape = draw(shapes(max_rank=4)) if shape is None else shape
    rest = shape[draw(st.integers(0, len(shape))) :]
    return Sum(shape, tuple(1 if draw(st.booleans()) else n for n in rest))


@st.composite
def scales(draw, shape=None, select=False):
    shape = draw(shapes()) if shape is None else shape
    rest = shape[draw(st.integers(0, len(shape))) :]
    factor = draw(values(tuple(1 if draw(st.booleans()) else n for n in rest)))
    return Scale(shape, factor > 0 if select else factor)


@st.composite
def contracts(draw, shape=None):
    """Every label of x is free (x, y), summed (x, w) or batch (x, w, y); w may bring new ones (w, y)."""
    shape = draw(shapes()) if shape is None else shape
    names = draw(st.permutations("abcdefgh"))
    new = draw(st.lists(st.integers(1, 3), max_size=2))
    size = dict(zip(names, (*shape, *new), strict=False))
    x, w, y = names[: len(shape)], names[len(shape) : len(size)], names[len(shape) : len(size)]
    for label in x:
        role = draw(st.sampled_from(("summed", "free", "batch")))
        w, y = w + [label] * (role != "free"), y + [label] * (role != "summed")
    w, y = draw(st.permutations(w)), draw(st.permutations(y))
    labels = f"{''.join(x)},{''.join(w)}->{''.join(y)}"
    return Contract(shape, draw(values(tuple(size[label] for label in w))), labels)


@st.composite
def matrices(draw, shape=None):
    shape = draw(shapes()) if shape is None else shape
    out_shape = draw(shapes())
    dense = draw(values((math.prod(out_shape), math.prod(shape))))
    entries = sparse.csr_array(dense * (np.abs(dense) > 0.5))
    if entries.nnz and draw(st.booleans()):
        entries.data[-1] = 0  # stored all the same
    return Sparse(shape, out_shape, entries)


@st.composite
def windows(draw, rank):
    """Any window: some hang over the end (ceil mode), some lie wholly in the padding, some axes are empty."""
    largest = (7, 5, 3)[rank - 1]
    most = (3, 3, 2)[rank - 1]

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    inputs, outputs = each(1, largest), each(1, most + 1)
    if draw(rarely):
        inputs = (0, *inputs[1:])
    if draw(rarely):
        outputs = (*outputs[:-1], 0)
    return Window(inputs, outputs, each(1, most), each(1, 3), each(1, 3), each(0, 3))


@st.composite
def convs(draw, rank, depthwise=False):
    window = draw(windows(rank))
    group = draw(st.integers(1, 3))
    channels = 1 if depthwise else draw(st.integers(1, 2))
    out_channels = group * draw(st.integers(1, 2))
    weight = draw(values((out_channels, channels, *window.kernel)))
    return Conv(draw(st.integers(1, 2)), weight, window, group)


@st.composite
def conv_transposes(draw, rank, depthwise=False):
    return draw(convs(rank, depthwise)).T


MOVES = (reshapes, transposes, gathers, broadcasts, functools.partial(scales, select=True))
STEPS = (*MOVES, scatters, sums, scales, contracts, matrices)


@st.composite
def chains(draw, firsts, steps):
    parts = [draw(draw(st.sampled_from(firsts))())]
    for _ in range(draw(st.integers(0, 3))):
        small = parts[-1].out_size <= 64
        fitting = steps if small else [step for step in steps if step not in (broadcasts, contracts)]
        parts.append(draw(draw(st.sampled_from(fitting))(parts[-1].out_shape)))
    return Chain(tuple(parts))


FACTORIES = {
    "Reshape": reshapes(),
    "Transpose": transposes(),
    "Gather": gathers(),
    "Scatter": scatters(),
    "Broadcast": broadcasts(),
    "Sum": sums(),
    "Scale": scales(),
    "Scale, bool": scales(select=True),
    "Contract": contracts(),
    "Sparse": matrices(),
    "Conv, 1-D": convs(1),
    "Conv, 2-D": convs(2),
    "Conv, 3-D": convs(3),
    "Conv, depthwise": convs(2, depthwise=True),
    "ConvTranspose, 1-D": conv_transposes(1),
    "ConvTranspose, 2-D": conv_transposes(2),
    "ConvTranspose, 3-D": conv_transposes(3),
    "ConvTranspose, depthwise": conv_transposes(2, depthwise=True),
    "Chain": chains((*STEPS, lambda: convs(2), lambda: conv_transposes(1)), STEPS),
    "Chain, moves": chains(MOVES, MOVES),
}


# -- laws --------------------------------------------------------------------------------------------


def dense(L):
    """The matrix in float64, small enough to look at; a chain's from its parts', which may be in float32."""
    if isinstance(L, Chain):
        return functools.reduce(lambda done, part: dense(part) @ done, L.parts, np.eye(L.in_size))
    M = L.matrix()
    M.check_format(full_check=True)  # scipy itself crashes on a column that does not exist
    return M.toarray().astype(np.float64)


def block_of(shape, rng, dtype=np.float64):
    """One to three tensors, read-only, and half of the time not C-ordered, as a transposed view would be."""
    block = rng.normal(size=(rng.integers(1, 4), *shape)).astype(dtype)
    if rng.random() < 0.5:
        block = np.asfortranarray(block)
    block.setflags(write=False)
    return block


def flat(block):
    return block.reshape(len(block), math.prod(block.shape[1:]))


def depth(L):
    return sum(map(depth, L.parts)) if isinstance(L, Chain) else 1


def apply_is_the_matrix(L, rng):
    """Within fan_in roundings and one for each cast of a weight; to the bit where values are only moved."""
    M, bound = dense(L), dense(L.magnitude())
    for dtype in DTYPES:
        x = block_of(L.in_shape, rng, dtype)
        y = L.apply(x)
        assert y.shape == (len(x), *L.out_shape)
        assert y.dtype == dtype
        exact = flat(x).astype(np.float64) @ M.T
        slack = (L.fan_in + 2 * depth(L)) * np.finfo(dtype).eps if L.fan_in else 0
        assert np.all(np.abs(flat(y) - exact) <= slack * (np.abs(flat(x)) @ bound.T))


def matrix_of_a_chain_is_the_product(L, rng):
    """Up to roundings in float32, in which parts may be; the other laws look at `dense` instead."""
    M, bound = L.matrix(), dense(L.magnitude())
    slack = (L.fan_in + 2 * depth(L)) * np.finfo(np.float32).eps
    assert np.all(np.abs(M.toarray() - dense(L)) <= slack * bound)


def apply_treats_tensors_apart(L, rng):
    """A block of tensors is each tensor on its own."""
    x = block_of(L.in_shape, rng)
    alone = np.concatenate([L.apply(x[k : k + 1]) for k in range(len(x))])
    np.testing.assert_allclose(L.apply(x), alone, rtol=1e-12, atol=1e-12)


def transpose_is_the_adjoint(L, rng):
    """⟨L x, y⟩ = ⟨x, Lᵀ y⟩, and the two matrices are each other's transpose, to the last bit."""
    x = block_of(L.in_shape, rng)
    y = rng.normal(size=(len(x), *L.out_shape))
    there = np.sum(flat(L.apply(x)) * flat(y), axis=1)
    back = np.sum(flat(x) * flat(L.T.apply(y)), axis=1)
    bound = np.einsum("bo,oi,bi->b", np.abs(flat(y)), dense(L.magnitude()), np.abs(flat(x)))
    terms = L.fan_in + L.T.fan_in + L.in_size + L.out_size + 4 * depth(L)
    assert np.all(np.abs(there - back) <= terms * np.finfo(np.float64).eps * bound)
    if isinstance(L, Chain):  # its products are summed in another order
        np.testing.assert_allclose(dense(L.T), dense(L).T, rtol=1e-9, atol=1e-12)
    else:
        np.testing.assert_array_equal(dense(L.T), dense(L).T)


def transposing_twice_gives_it_back(L, rng):
    assert L.T.T == L
    assert type(L.T.T) is type(L)


def changed_copies(L):
    """L with one of its fields changed, for every field that can be."""
    for field in dataclasses.fields(L):
        value = getattr(L, field.name)
        if isinstance(value, np.ndarray):
            changed = value.copy()
            if not changed.size:
                continue
            changed.flat[-1] = ~changed.flat[-1] if changed.dtype == bool else changed.flat[-1] + 1
        elif sparse.issparse(value):
            if not np.any(value.data):
                continue
            changed = value * 2
        elif isinstance(value, Window):
            changed = dataclasses.replace(value, pads=(*value.pads[:-1], value.pads[-1] + 1))
        elif field.name == "bound":
            changed = abs(L.weight) if isinstance(L, Contract) else abs(L.entries)
        elif field.name == "window":
            changed = Window((2,), (1,), (2,), (2,), (1,), (0,))
        elif field.name == "parts":
            changed = (*value, Reshape(L.out_shape, L.out_shape))
        elif isinstance(value, tuple):
            changed = (*value, 1)
        elif isinstance(value, str):
            changed = value.upper()
            if changed == value:  # "x" may have no labels at all
                continue
        else:
            changed = value + 1
        if isinstance(L, Contract) and field.name == "in_shape":
            continue  # another shape would contradict the labels, which is refused
        yield dataclasses.replace(L, **{field.name: changed})


def equality_sees_every_field(L, rng):
    assert dataclasses.replace(L) == L
    for changed in changed_copies(L):
        assert changed != L
    assert Chain((L,)) != L


def shapes_swap_under_transposition(L, rng):
    assert (L.T.in_shape, L.T.out_shape) == (L.out_shape, L.in_shape)
    assert (L.in_size, L.out_size) == (math.prod(L.in_shape), math.prod(L.out_shape))
    M = L.matrix()
    assert M.format == "csr"
    assert M.shape == (L.out_size, L.in_size)
    assert M.dtype in DTYPES


def magnitude_bounds_the_entries(L, rng):
    """|L| bounds |M|, and is no looser where there is no product to cancel in."""
    M, bound = np.abs(dense(L)), dense(L.magnitude())
    assert (L.magnitude().in_shape, L.magnitude().out_shape) == (L.in_shape, L.out_shape)
    if isinstance(L, Chain):
        assert np.all(bound * (1 + 1e-12) >= M)
    else:
        np.testing.assert_array_equal(bound, M)
    np.testing.assert_allclose(dense(L.T.magnitude()), bound.T, rtol=1e-12)


def size_bound_is_one(L, rng):
    """It bounds |L| s for sizes s from nothing to as large as their squares overflow."""
    for dtype in (np.float32, np.float64):
        for scale in (1.0, np.finfo(dtype).max ** 0.75, np.finfo(dtype).tiny ** 0.75):
            size = np.abs(block_of(L.in_shape, rng, dtype)) * dtype(scale)
            bound, exact = L.size_bound(size), L.magnitude().apply(size.astype(np.float64))
            assert bound.dtype == dtype
            assert bound.shape == exact.shape
            assert np.all(bound * (1 + (depth(L) + 8) * np.finfo(dtype).eps) >= exact)


def stored(L):
    """1 where the matrix stores an entry, zero or not."""
    M = L.matrix()
    return sparse.csr_array((np.ones(M.nnz), M.indices, M.indptr), shape=M.shape)


def nothing_leaves_the_reach(L, rng):
    """What is outside reach(mask) stays exactly zero when the input vanishes outside the mask."""
    M = dense(L) != 0
    for density in (0.0, 0.2, 0.7, 1.0):
        mask = np.asarray(rng.random(L.in_shape) < density)
        reach = L.reach(mask)
        assert reach.shape == L.out_shape
        assert reach.dtype == bool
        x = (rng.random((2, *L.in_shape)) + 0.5) * mask
        assert not np.any(L.apply(x)[:, ~reach])
        assert np.all(reach.ravel() | (M @ mask.ravel() == 0))
        assert mask.any() or not reach.any()
        if not isinstance(L, Conv | ConvTranspose | Chain):  # these alone answer more coarsely
            np.testing.assert_array_equal(reach.ravel(), stored(L) @ mask.ravel() > 0)


def fan_in_counts_the_terms(L, rng):
    """No row has more entries than fan_in; where it is 0, a row is empty or a single one."""
    if isinstance(L, Chain):  # roundings add up along it
        assert L.fan_in == sum(part.fan_in for part in L.parts)
    elif L.fan_in:
        assert np.all(np.count_nonzero(dense(L), axis=1) <= L.fan_in)
    if L.fan_in == 0:
        M = dense(L)
        assert np.all((M == 0) | (M == 1))
        assert np.all(M.sum(axis=1) <= 1)
    assert operator.index(L.fan_in) >= 0


def work_counts_the_products(L, rng):
    """Arithmetic costs at least one multiply-add for each entry; a chain costs what its parts cost."""
    assert operator.index(L.work) >= 0
    if isinstance(L, Chain):
        assert L.work == sum(part.work for part in L.parts)
    elif L.fan_in and not isinstance(L, Scatter):  # a Scatter's work is its outputs, however many meet there
        assert L.work >= np.count_nonzero(dense(L))
    if isinstance(L, Conv | ConvTranspose | Contract | Sparse):
        assert L.T.work == L.work


LAWS = (
    apply_is_the_matrix,
    matrix_of_a_chain_is_the_product,
    apply_treats_tensors_apart,
    transpose_is_the_adjoint,
    transposing_twice_gives_it_back,
    equality_sees_every_field,
    shapes_swap_under_transposition,
    magnitude_bounds_the_entries,
    size_bound_is_one,
    nothing_leaves_the_reach,
    fan_in_counts_the_terms,
    work_counts_the_products,
)


@pytest.mark.parametrize("factory", FACTORIES)
def test_laws(factory):
    @CALM
    @given(L=FACTORIES[factory], seed=seeds)
    def hold(L, seed):
        for law in LAWS:
            law(L, np.random.default_rng(seed))

    hold()


# -- what is not a law of every instance -------------------------------------------------------------

ONE = Window((3,), (2,), (2,), (1,), (1,), (0,))
CONV, DEPTHWISE = Conv(1, np.ones((2, 2, 2)), ONE), Conv(1, np.ones((2, 1, 2)), ONE, 2)
EVERY_KIND = {
    "Reshape": Reshape((2, 3), (6,)),
    "Transpose": Transpose((2, 3), (1, 0)),
    "Gather": Gather((3,), np.array([0, -1, 0])),
    "Scatter, apart": Scatter((3,), np.array([0, -1, 1])),
    "Scatter, meeting": Scatter((3,), np.array([0, -1, 0])),
    "Broadcast": Broadcast((1, 3), (2, 2, 3)),
    "Sum": Sum((2, 2, 3), (1, 3)),
    "Scale": Scale((3,), np.arange(3.0)),
    "Contract": Contract((2, 3), np.ones((3, 4)), "mk,kn->nm"),
    "Sparse": Sparse((3,), (2,), sparse.csr_array(np.ones((2, 3)))),
    "Conv": CONV,
    "ConvTranspose": CONV.T,
    "Conv, depthwise": DEPTHWISE,
    "ConvTranspose, depthwise": DEPTHWISE.T,
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_an_empty_block_stays_empty(kind):
    L = EVERY_KIND[kind]
    assert L.apply(np.zeros((0, *L.in_shape))).shape == (0, *L.out_shape)


EMPTY_CONVS = {
    "no images": Conv(0, np.ones((2, 2, 2)), ONE),
    "no input channels": Conv(1, np.ones((2, 0, 2)), ONE),
    "no output channels": Conv(1, np.ones((0, 2, 2)), ONE),
}


@pytest.mark.parametrize("transposed", [False, True], ids=["Conv", "ConvTranspose"])
@pytest.mark.parametrize("empty", EMPTY_CONVS)
def test_an_empty_convolution_maps_to_zero(empty, transposed):
    L = EMPTY_CONVS[empty].T if transposed else EMPTY_CONVS[empty]
    assert not L.matrix().nnz
    np.testing.assert_array_equal(L.apply(np.ones((2, *L.in_shape))), np.zeros((2, *L.out_shape)))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_no_kind_equals_another(kind):
    assert [other for other in EVERY_KIND if EVERY_KIND[other] == EVERY_KIND[kind]] == [kind]
    assert EVERY_KIND[kind] != "a string"


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_instances_cannot_be_hashed(kind):
    with pytest.raises(TypeError, match="unhashable"):
        hash(EVERY_KIND[kind])


def test_a_chain_of_one_is_the_one():
    one, two = EVERY_KIND["Reshape"], EVERY_KIND["Transpose"]
    assert chain(one) is one
    assert chain(two.T, one) == Chain((two.T, one))


def test_magnitude_of_a_chain_does_not_cancel():
    """(1, -1) · (1, 1)ᵀ is 0, but the bound of its entry is 2."""
    copied = Broadcast((1,), (2,))
    cancelled = chain(copied, Scale((2,), np.array([1.0, -1.0])), copied.T)
    assert cancelled.matrix().toarray() == [[0]]
    assert cancelled.magnitude().matrix().toarray() == [[2]]


@pytest.mark.parametrize(
    "labels, shape, weight",
    [
        ("ab,b->", (2, 3), (3,)),  # a of x is summed without a weight
        ("a,ab->a", (2,), (2, 3)),  # b of w is summed alone
        ("a,a->ab", (2,), (2,)),  # b of y comes from nowhere
        ("aa,ab->b", (2, 2), (2, 3)),  # a diagonal of x
        ("a,bb->ab", (2,), (3, 3)),  # a diagonal of w
        ("a,ab->bb", (2,), (2, 3)),  # a diagonal of y
    ],
)
def test_contract_refuses_what_has_no_transpose(labels, shape, weight):
    with pytest.raises(ValueError, match=f"not a contraction that can be transposed: {labels}"):
        Contract(shape, np.ones(weight), labels)


def test_reshape_refuses_another_size():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(5,\) differ in size"):
        Reshape((2, 3), (5,))
