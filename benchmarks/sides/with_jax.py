"""JAX: jit(jacrev), or jit(jacfwd) where there are more outputs than inputs, of the same network.

The network is written in plain jax.numpy and lax, with the weights of the PyTorch one.
"""

from __future__ import annotations

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import Case
from jax import lax
from job import Answer, Array, Job, Options, Prepared


def versions() -> dict[str, str]:
    """JAX's version."""
    return {"jax": jax.__version__}


def serves(case: Case) -> str:
    """MLPs and the CNN, at one point."""
    if case.kind == "resnet18":
        return "the network is not written in JAX here"
    return "measured at single points only" if case.points else ""


def candidates(job: Job) -> list[Options]:
    """One way."""
    return [{"call": "jit(jacfwd)" if math.prod(job.case.shape) < job.K else "jit(jacrev)"}]


def prepare(job: Job, options: Options) -> Prepared:
    """Build the network; the compilation happens at the first call."""
    weights = [jnp.asarray(w) for w in job.weights()]
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    network = _mlp if job.case.kind == "mlp" else _cnn
    transform = jax.jacfwd if options["call"] == "jit(jacfwd)" else jax.jacrev
    jacobian = jax.jit(transform(lambda z: network(layers, z)))

    def ask(x: Array) -> Answer:
        start = time.perf_counter()
        found = jacobian(x).block_until_ready()
        seconds = time.perf_counter() - start
        return Answer(np.asarray(found).reshape(job.K, -1), seconds)

    return Prepared(ask)


def _mlp(layers: list[tuple[Any, Any]], z: Any) -> Any:
    """Linear layers with relu between them."""
    h = z.reshape(-1)
    for W, b in layers[:-1]:
        h = jax.nn.relu(W @ h + b)
    W, b = layers[-1]
    return W @ h + b


def _cnn(layers: list[tuple[Any, Any]], z: Any) -> Any:
    """Twice two 3×3 convolutions and a 2×2 pool, then linear layers."""
    h = z
    for index, (W, b) in enumerate(layers[:4]):
        h = jax.nn.relu(lax.conv_general_dilated(h, W, (1, 1), "SAME") + b[:, None, None])
        if index % 2:
            h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return _mlp(layers[4:], h)
