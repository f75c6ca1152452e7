"""ilin: `compiled.at(x)` and `compiled.at_many(X)`, W and b alone and with the certificate."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from cases import Case
from job import Answer, Array, Job, Options, Prepared

import ilin


def versions() -> dict[str, str]:
    """Versions of ilin and of what does its arithmetic."""
    import onnxruntime
    import scipy

    found = {
        "ilin": ilin.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    if importlib.util.find_spec("numba") is not None:
        import numba

        found["numba"] = numba.__version__
    return found


def serves(case: Case) -> str:
    """It serves every case."""
    return ""


def candidates(job: Job) -> list[Options]:
    """It chooses by itself."""
    return [{"engine": job.engine}]


def prepare(job: Job, options: Options) -> Prepared:
    """Compile the model once."""
    compiled = ilin.compile(job.model, engine=options["engine"])
    rows: Any = "all" if job.case.rows == "all" else 1

    def maps(x: Array) -> Iterator[ilin.AffineMap]:
        if job.case.points:
            yield from compiled.at_many(x, rows)
        else:
            yield compiled.at(x, rows)

    def ask(x: Array) -> Answer:
        start = time.perf_counter()
        found = [affine.W for affine in maps(x)]
        seconds = time.perf_counter() - start
        return Answer(np.stack(found) if job.case.points else found[0], seconds)

    def verified(x: Array) -> float:
        start = time.perf_counter()
        for affine in maps(x):
            if not affine.certificate.verified:
                raise RuntimeError(f"ilin's answer is not verified: {affine.certificate.reason}")
        return time.perf_counter() - start

    def facts(x: Array) -> dict[str, Any]:
        """What the chosen plan multiplies, at one point."""
        point = x[0] if job.case.points else x
        if hasattr(compiled, "plan"):
            plan = compiled.plan(point, rows)
            return {
                name: getattr(plan, name, None)
                for name in ("engine", "passes", "multiply_adds", "peak_bytes", "seconds")
            }
        affine = compiled.at(point, rows)
        work = sum(L.work for layer in affine.layers for L in layer.terms or ())
        return {"engine": options["engine"], "passes": job.K, "multiply_adds": work * job.K}

    return Prepared(ask, facts, verified)
