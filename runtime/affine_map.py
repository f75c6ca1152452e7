"""AffineMap: what may be asked of the network's map at x.

Each question has a file of its own, which is imported when it is asked first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .archive import DAMAGE, sealed, write_archive
from .files import write_whole
from .layer import Layer
from .linearization import Linearization
from .saved import damaged, map_of, read, to_header, to_members

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from xarray import Dataset

    from .ledger import Ledger
    from .spectrum import Spectrum
    from .views import FeatureTrace, LayerView, Units


class AffineMap(Linearization):
    """The exact affine map that a network computes at x, and on the linear region around it.

    Rows are flattened, stacked outputs; columns are flattened, stacked inputs; both in C order. Where methods
    take a row they count positions among the rows that were asked for, `rows`, and None is the largest
    output; `row_of` finds the position of an output by its index, which is what the command line takes.
    """

    def ledger(
        self,
        row: int | None = None,
        *,
        against: int | None = None,
        groups: Any = None,
        baseline: Any = None,
    ) -> Ledger:
        """An output as a sum in which every term has a name: contributions, and b split by step and channel.

        Args:
            row: position in `rows`; None for the largest output.
            against: another row b: the ledger of output a - b, with the ledgers of both and the distance to
                where the map makes them equal.
            groups: which input entries to add up: "channels", an array of labels in the input's shape, or
                group name to mask, flat positions, slice or tuple; by input name where there are several.
            baseline: x0, shaped as the input, or a number: contributions of x - x0, from the map at x0 on.

        Raises:
            RowsError: no such row.
            InputError: groups or a baseline that do not fit the input, or groups that overlap.
            OptionError: groups written in a way that is not understood.
            NonFiniteError: a term outside the range of float64.
        """
        from .ledger import ledger_of

        return ledger_of(self, self._position(row), against=against, groups=groups, baseline=baseline)

    def upto(self, step: str | Layer, *, memory_limit: int | str | None = None) -> LayerView:
        """The map from the inputs to a tensor on the way: t(z) = P z + p.

        Args:
            step: a tensor's name, the name of the node that makes it, or a layer of `layers`.
            memory_limit: of the matrix: bytes, or a text such as "4GiB"; None for 80 % of what is available.

        Returns:
            A view whose `matrix()`, `operator` and `b` are P and p, rows being the tensor's entries.

        Raises:
            UnknownTensorError: no such step.
            InputError: a map that was loaded from a file, which holds no network.
            NonFiniteError: an offset outside the range of the map's type.
        """
        from .views import upto

        return upto(self, step, memory_limit)

    def onward(self, step: str | Layer, *, memory_limit: int | str | None = None) -> LayerView:
        """The map from a tensor on the way to the rows, whatever does not come from the tensor held at x.

        Args:
            step: as in `upto`.
            memory_limit: as in `upto`.

        Returns:
            A view M t + r: M is the total derivative of the rows with respect to the tensor, r what arrives
            at x around it or behind it. M t(x) + r = W x + b. Where the tensor is a `cut`, r does not depend
            on x, and the two views compose to the map: W = M P, b = M p + r.

        Raises:
            As `upto`.
        """
        from .views import onward

        return onward(self, step, memory_limit)

    def trace_feature(
        self, feature: int | tuple[str, int | tuple[int, ...]], *, tensors: bool = False
    ) -> FeatureTrace:
        """How an input feature is carried through the network: x_j e_j under each step in turn.

        At a step that is column j of `upto`'s matrix times x_j, at an output what `contributions` says of
        the feature. One sweep forward, of which one line for each step is kept.

        Args:
            feature: j, a flat index into the stacked inputs; or (input name, index), flat or for each axis.
            tensors: keep what arrives at each step as a whole, too.

        Raises:
            InputError: no such feature; or as `upto`.
        """
        from .views import trace_feature

        return trace_feature(self, feature, tensors)

    def units(self, row: int | None, step: str | Layer, k: int | None = None) -> Units:
        """Which units of a tensor carry an output at x: its slope in each, times the unit's value.

        They sum, with `others` and `rest`, to the output. `rest` is `onward(step).b[row]`: offsets of later
        steps and, where the tensor is no cut, what goes around it. On a tensor that is an input these are
        `contributions`; elsewhere the same for a hidden layer (layer gradient × activation).

        Args:
            row: position in `rows`; None for the largest output.
            step: as in `upto`.
            k: units to list, those that carry most; None for all.

        Raises:
            RowsError: no such row.
            OptionError: k is no positive integer.
            As `upto`.
        """
        from .views import units

        return units(self, self._position(row), step, k)

    def spectrum(self, k: int | None = None, *, memory_limit: int | str | None = None) -> Spectrum:
        """Leading singular values and vectors of W, how many directions it really has, and how rows lie.

        All in float64. Where W is small, by LAPACK (`numpy.linalg.svd`); else, or where W was not made, by
        ARPACK (`scipy.sparse.linalg.svds`) on its products, from a start vector that is always the same.

        Args:
            k: singular values, largest first; None for six, or all of them where there are fewer.
            memory_limit: bytes, or a text such as "4GiB"; None for 80 % of what is available.

        Raises:
            OptionError: k is no positive integer, more than min(K, N), or more than ARPACK finds.
            MemoryLimitError: it would take more memory.
        """
        from .spectrum import spectrum_of

        return spectrum_of(self.W, k, self._as_inputs, memory_limit)

    def to_xarray(self) -> Dataset:
        """The map as an xarray Dataset with named axes.

        Returns:
            For each input NAME of shape (d0, d1, …): `W:NAME` (row, NAME_0, NAME_1, …), `x:NAME` and
            `contributions:NAME`, both without and with the axis `row`; and `b` and `value` (row), the latter
            the output as onnxruntime computes it. The coordinate `row` holds the flat output indices.

        Raises:
            OptionError: xarray is not installed (pip install 'ilin[table]').
            MemoryLimitError: W was not made.
            NonFiniteError: a contribution outside the range of W's type.
        """
        from .labelled import dataset_of

        return dataset_of(self)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        row: int | None = None,
        against: int | None = None,
        class_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        layout: str = "auto",
        command: str | None = None,
    ) -> None:
        """Write one self-contained HTML page about one output, for readers without mathematics.

        The same map gives the same bytes. An existing file is replaced whole or not at all.

        Args:
            path: of the page.
            row: position in `rows` of the output to explain; None for the largest.
            against: position of the one to set it against; None for the largest other.
            class_names: one for each output entry, or for each place along the output's last axis.
            feature_names: one for each input entry, or for each place along the input's last axis.
            layout: how an input's axes are read: "auto"; "entries"; a letter for each axis, such as "NCHW",
                "NHWC", "NCL" or "NLC"; or letters and a shape to read a flat input in, such as "HW=28x28".
            command: that repeats the answer, as the page tells it; None for lines of Python.

        Raises:
            OptionError: jinja2 or pillow is missing (pip install 'ilin[report]'), a layout that is not
                understood or fits no input, or as many names as nothing has.
            RowsError: no such row, or one against itself.
            OutputError: the path cannot be written.
        """
        from ..report.page import write_report

        row, against = self._positions(row, against)
        write_report(
            self,
            path,
            row=row,
            against=against,
            class_names=class_names,
            feature_names=feature_names,
            layout=layout,
            command=command,
        )

    def plot(
        self,
        row: int | None = None,
        *,
        against: int | None = None,
        weights: bool = False,
        input: str | None = None,
        largest: int = 20,
        class_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        layout: str = "auto",
        ax: Axes | None = None,
    ) -> Axes:
        """Draw on matplotlib what the input adds to one output: a map, bars, or the largest entries.

        Args:
            row: position in `rows`; None for the largest output.
            against: another position: what speaks for the one against the other.
            weights: draw W's row instead of W's row times x.
            input: name of the input to draw; None for the only one, or the largest entries of all.
            largest: bars, where entries are drawn one by one.
            class_names: as in `report`.
            feature_names: as in `report`.
            layout: as in `report`; an image's channels are added up.
            ax: to draw on; None for a new figure.

        Returns:
            The axes.

        Raises:
            OptionError: matplotlib is missing (pip install 'ilin[plot]'), or as `report`.
            RowsError: as `report`.
            InputError: no such input.
        """
        from ..report.plot import plot

        row, against = self._positions(row, against)
        return plot(
            self,
            row,
            against=against,
            weights=weights,
            input=input,
            largest=largest,
            class_names=class_names,
            feature_names=feature_names,
            layout=layout,
            ax=ax,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map to one .npz file, loadable without pickle; `verify` checks it again from there.

        The file is written beside its destination and renamed, so that an existing file is replaced
        whole or not at all. The same map gives the same bytes, at any time and under any name.

        Raises:
            OutputError: the path cannot be written.
            MemoryLimitError: W was not made.
        """
        arrays = to_members(self)
        header = sealed(to_header(self), arrays)
        write_whole(Path(path), lambda file: write_archive(file, header, arrays))


def load(path: str | os.PathLike[str]) -> AffineMap:
    """Read a saved map. Its layers hold their bias shares but no matrices.

    Nothing is checked: the certificate is what the file says of itself. `verify` compares the map with its
    model again.

    Args:
        path: a file that `AffineMap.save` wrote; or a folder of blocks, whose W stays on disk: a read-only
            numpy.memmap.

    Raises:
        OutputError: no such file, not a saved map, one of a newer format, or a folder that is not finished.
    """
    header, arrays = read(path)
    try:
        return map_of(AffineMap, header, arrays)
    except DAMAGE as error:
        raise damaged(path, error) from error
