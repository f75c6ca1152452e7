"""What a page says as data for machines, which the page carries as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..runtime.affine_map import AffineMap
from .content import Account, Content, Output

if TYPE_CHECKING:
    from markupsafe import Markup

FORMAT = 1
MOST = 10_000  # contributions that are written out; the saved map holds all of them


def document_of(content: Content, affine: AffineMap) -> dict[str, Any]:
    """Plain data for JSON; numbers that are not finite are null.

    Args:
        content: what the page says.
        affine: the map.
    """
    document = {
        "format": FORMAT,
        "model": content.model,
        "model_sha256": affine.model_sha256,
        "kind": str(content.kind),
        "rows": list(content.rows),
        "prediction": [_output(each) for each in content.prediction],
        "explained": _output(content.explained),
        "against": None if content.against is None else _output(content.against),
        "account": _account(content.account),
        "contrast": None if content.contrast is None else _account(content.contrast),
        "decision_boundary": None if content.boundary is None else content.boundary.as_dict(),
        "certificate": content.certificate.as_dict(),
        "region": {
            "radii": [radius.as_dict() for radius in content.extent.radii],
            "left_out": content.extent.left_out,
        },
        "notes": list(content.notes),
        "provenance": dict(content.provenance),
        "command": content.command,
    }
    plain: dict[str, Any] = _finite(document)
    return plain


def embedded(document: dict[str, Any]) -> Markup:
    """JSON that stands in an HTML script element as it is: no character there could end the element."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))  # in ASCII
    from markupsafe import Markup  # comes with jinja2, which a plot does without

    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _output(output: Output) -> dict[str, Any]:
    return {"name": output.name, "row": output.row, "value": output.value}


def _account(account: Account) -> dict[str, Any]:
    return {
        "value": account.value,
        "inputs": account.inputs,
        "constant": account.constant,
        "contributions": account.contributions.tolist() if account.contributions.size <= MOST else None,
        "largest": [asdict(entry) for entry in account.entries],
        "layers": [asdict(share) for share in account.layers.shares],
    }


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
