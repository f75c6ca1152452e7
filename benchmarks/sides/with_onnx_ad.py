"""onnx-ad: its reverse model, built once, run by onnxruntime with some seeds at a time."""

from __future__ import annotations

import time
from importlib.metadata import version

import numpy as np
import onnx
import onnx_ad
import onnxruntime
from cases import Case
from job import Answer, Array, Job, Options, Prepared

CHUNKS = (1, 10, 100)


def versions() -> dict[str, str]:
    """The versions of onnx-ad and of the onnxruntime that runs its model."""
    return {"onnx-ad": version("onnx-ad"), "onnxruntime": onnxruntime.__version__}


def serves(case: Case) -> str:
    """Every case at one point; it seeds rows, not points."""
    return "one point in a call" if case.points else ""


def candidates(job: Job) -> list[Options]:
    """How many seeds ride in one run."""
    sizes = (*(size for size in CHUNKS if size < job.K), job.K)
    return [{"seeds": size} for size in sizes if job.fits(size)]


def prepare(job: Job, options: Options) -> Prepared:
    """Build the reverse model, which returns W's rows for seeds along a last axis."""
    primal = onnx.load(job.model)
    session = _session(onnx_ad.reverse(primal, layout="onnx"))
    forward = _session(primal)
    outputs, K = job.case.outputs, job.K

    def ask(x: Array) -> Answer:
        start = time.perf_counter()
        rows = [int(forward.run(["y"], {"x": x})[0].argmax())] if job.case.rows == "top" else range(K)
        W = np.empty((K, x.size), np.float32)
        for first in range(0, K, options["seeds"]):
            part = list(rows[first : first + options["seeds"]])
            seed = np.zeros((1, outputs, len(part)), np.float32)
            seed[0, part, range(len(part))] = 1
            found = session.run(["adj_x"], {"x": x, "adj_y": seed})[0]
            W[first : first + len(part)] = found.reshape(x.size, len(part)).T
        return Answer(W, time.perf_counter() - start)

    return Prepared(ask)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
