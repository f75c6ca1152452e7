"""Operators that ONNX defines by a function body: the body's nodes in place of the node."""

from __future__ import annotations

from typing import Any

import onnx

from ._composite import Composite
from ._registry import Expansion


def function_of(op_type: str, domain: str, opset: int) -> Expansion | None:
    """The expansion of an operator that has a function body for an opset; None for one that has none."""
    if not onnx.defs.has(op_type, opset, domain):
        return None
    schema: Any = onnx.defs.get_schema(op_type, opset, domain)  # its stubs leave the bodies out
    written = (*schema.function_opset_versions, *schema.context_dependent_function_opset_versions)
    return Expansion(_expand) if any(version <= opset for version in written) else None


def _expand(site: Composite) -> tuple[str, ...]:
    schema = onnx.defs.get_schema(site.proto.op_type, site.opset, site.proto.domain)
    body = _body(site, schema)
    attributes = {
        name: put.default_value for name, put in schema.attributes.items() if put.default_value.type
    }
    attributes |= {attribute.name: attribute for attribute in site.proto.attribute}
    actual = dict(zip(body.input, site.inputs, strict=False))
    bound = {name: actual.get(name, "") for name in body.input}
    return tuple(site.inline(body.node, bound, list(body.output), "", attributes))


def _body(site: Composite, schema: Any) -> onnx.FunctionProto:
    """The newest body that is written for this opset or an older one."""
    written = [version for version in schema.function_opset_versions if version <= site.opset]
    if written:
        return _parsed(schema.get_function_with_opset_version(max(written)))
    written = [
        version for version in schema.context_dependent_function_opset_versions if version <= site.opset
    ]
    types = [put.SerializeToString() for put in site.type_protos()]
    node = site.proto.SerializeToString()
    made = schema.get_context_dependent_function_with_opset_version(max(written), node, types)
    if not made:
        raise site.refuse("ONNX gives no function body for these types and attributes")
    return _parsed(made)


def _parsed(serialized: bytes) -> onnx.FunctionProto:
    body = onnx.FunctionProto()
    body.ParseFromString(serialized)
    return body
