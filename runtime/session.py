"""onnxruntime, and nothing else in ilin imports it."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from .errors import ModelError, OptionError
from .primitives import Array
from .surgery import constants_alone, with_outputs
from .surroundings import ALONE, Surroundings, embedded

_FEW_WEIGHTS = 1 << 20
_PRODUCTS = frozenset(  # operators of dense networks, all as fast as their weights are read
    {"Add", "Clip", "Constant", "Div", "Flatten", "Gemm", "Identity", "LeakyRelu", "MatMul", "Mul", "Relu"}
    | {"Reshape", "Sigmoid", "Sub", "Tanh"}
)


class Runner(Protocol):
    """What takes chosen tensors out of a model."""

    outputs: tuple[str, ...]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Run once, from graph input to output, both by name."""


class Session:
    """Runs a model and takes out chosen tensors, intermediate ones included.

    Sessions over a user's model run it as it is written: onnxruntime's rewrites fuse differently
    depending on which tensors are asked for, so that two sessions could observe different patterns.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        outputs: Sequence[str],
        providers: Sequence[str] | None = None,
        *,
        rewrite: bool = False,
        surroundings: Surroundings = ALONE,
    ) -> None:
        """Build the session.

        Args:
            proto: a valid model. It is not changed.
            outputs: tensor names to take out, in order.
            providers: onnxruntime execution providers, the CPU's by default.
            rewrite: let onnxruntime optimise the graph, for models that ilin itself emitted.
            surroundings: where its external data lies, and libraries with operators of its own.

        Raises:
            ModelError: onnxruntime does not accept the model.
            OptionError: it cannot load a library.
        """
        self.outputs = tuple(outputs)
        if not outputs:  # nothing to take out, and onnxruntime refuses a graph without nodes
            return
        import onnxruntime

        options = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if rewrite else levels.ORT_DISABLE_ALL
        if rewrite:
            # By default a node whose result only an output reads comes last, and keeps its inputs alive until
            # then: a sweep with rounding bounds held every block at once, four times the memory.
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        if _short(proto):
            options.intra_op_num_threads = 1
        options.log_severity_level = 4  # its findings reach the user as one line of ours
        # Its threads would go on spinning after a run, and take the cores from numpy's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if surroundings.folder is not None:
            folder = str(surroundings.folder)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        for library in surroundings.custom_ops:
            _register(options, library)
        try:
            serialized = with_outputs(proto, outputs).SerializeToString()
        except (ValueError, EncodeError) as error:
            raise ModelError(
                "the model is too large for one protobuf message (2 GB); keep its tensors as external data: "
                f"{error}"
            ) from error
        try:
            self._session = onnxruntime.InferenceSession(
                serialized, options, providers=list(providers or ["CPUExecutionProvider"])
            )
        except _failures() as error:
            kind = NoKernelError if _lacks_kernel(error) else ModelError
            raise kind(f"onnxruntime does not accept this model: {_one_line(error)}") from error
        self._inputs = frozenset(put.name for put in self._session.get_inputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Run once.

        Returns:
            Output name to value, without the ones that onnxruntime leaves out.

        Raises:
            ModelError: onnxruntime fails while running.
        """
        if not self.outputs:
            return {}
        given = {name: np.asarray(a) for name, a in feeds.items() if name in self._inputs}
        try:
            values = self._session.run(self.outputs, given)
        except _failures() as error:
            raise ModelError(f"onnxruntime failed while running the model: {_one_line(error)}") from error
        return dict(zip(self.outputs, values, strict=True))


def _short(proto: onnx.ModelProto) -> bool:
    """Whether one vector's run is matrix products of so few weights that one thread is as fast.

    A second would have to be woken, and waits where numpy's own threads have not come to rest.
    """
    sizes = {one.name: math.prod(one.dims) for one in proto.graph.initializer}
    batched = any(
        not 0 <= put.type.tensor_type.shape.dim[0].dim_value <= 1
        for put in proto.graph.input
        if put.name not in sizes and put.type.tensor_type.shape.dim
    )
    return (
        not batched
        and sum(sizes.values()) <= _FEW_WEIGHTS
        and _PRODUCTS.issuperset(node.op_type for node in proto.graph.node)
    )


class NoKernelError(ModelError):
    """The model is valid, but onnxruntime has no implementation of something in it on this machine."""


class ReferenceSession:
    """The same by onnx's reference evaluator: plain numpy, slow, but with every operator of the standard."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        outputs: Sequence[str],
        surroundings: Surroundings = ALONE,
    ) -> None:
        """Prepare the evaluator.

        Args:
            proto: a valid model. It is not changed.
            outputs: tensor names to take out, in order.
            surroundings: where its external data lies.

        Raises:
            NoKernelError: it does not know an operator either.
        """
        from onnx.reference import ReferenceEvaluator

        self.outputs = tuple(outputs)
        try:
            self._evaluator = ReferenceEvaluator(embedded(with_outputs(proto, outputs), surroundings.folder))
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise NoKernelError(f"onnx's reference evaluator does not run it: {_one_line(error)}") from error

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Run once; as `Session.run`."""
        known = set(self._evaluator.input_names)
        given = {name: np.asarray(a) for name, a in feeds.items() if name in known}
        try:
            with np.errstate(all="ignore"):
                values = self._evaluator.run(list(self.outputs), given)
        except Exception as error:  # whatever numpy raises on shapes and types that do not fit
            raise ModelError(f"onnx's reference evaluator failed: {_one_line(error)}") from error
        return {name: np.asarray(v) for name, v in zip(self.outputs, values, strict=True) if v is not None}


def evaluate_constants(
    proto: onnx.ModelProto,
    nodes: Sequence[int],
    outputs: Sequence[str],
    surroundings: Surroundings = ALONE,
) -> dict[str, Any]:
    """Run the nodes at the given positions, which depend on no input, and return the named tensors."""
    alone = constants_alone(proto, nodes)
    try:
        return Session(alone, outputs, surroundings=surroundings).run({})
    except NoKernelError:
        return ReferenceSession(alone, outputs, surroundings).run({})


def _register(options: Any, library: str) -> None:
    try:
        options.register_custom_ops_library(library)
    except _failures() as error:
        raise OptionError(
            f"onnxruntime cannot load the custom-op library {library}: {_one_line(error)}"
        ) from error


def require_providers(providers: Sequence[str] | None) -> None:
    """Refuse execution providers that this onnxruntime does not have; by itself it would take another.

    Raises:
        OptionError: naming the first of them, and those that there are.
    """
    if providers is None:
        return
    import onnxruntime

    known = onnxruntime.get_available_providers()
    if isinstance(providers, str) or not providers:
        raise OptionError(
            f"providers must be a list of names or None, not {providers!r}; there are {', '.join(known)}"
        )
    for name in providers:
        if name not in known:
            raise OptionError(f"onnxruntime has no provider {name!r} here; it has {', '.join(known)}")


def version() -> str:
    """Onnxruntime's version."""
    import onnxruntime

    return str(onnxruntime.__version__)


def environment() -> dict[str, str]:
    """What runs of a model may differ by in their last bits."""
    return {"onnxruntime": version(), "machine": f"{platform.system()} {platform.machine()}"}


def _failures() -> tuple[type[Exception], ...]:
    """Onnxruntime raises one exception type for each status code, and they share no base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NotFound,
        state.NotImplemented,
        state.RuntimeException,
        state.EPFail,
        RuntimeError,
        ValueError,
    )


def _lacks_kernel(error: BaseException) -> bool:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    words = ("is not a registered function/op", "under development", "has not been implemented")
    return isinstance(error, state.NotImplemented) or any(each in str(error) for each in words)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
