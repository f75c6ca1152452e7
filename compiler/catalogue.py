"""What the registry holds, as plain data and as the page docs/operators.md.

`ilin inspect --operators --markdown > docs/operators.md` writes the page. What an operator is at x, its
convention at ties and its frozen reading stand in one place, the docstring of the file with its rule.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx

from ..expansions import EXPANSIONS, Expansion
from ..ops import REGISTRY, Entry, registered_by_others

OLDEST = 6  # the first operator set that is read

_HEAD = """\
# Operators

This page is written by `ilin inspect --operators --markdown > docs/operators.md`. It lists {count}
operators; their versions are those of onnx's operator set {newest}. Whatever does not depend on x may be
any operator at all. An operator without a rule is refused by name before anything runs; a rule for one of
your own is a few lines in [a package of your own](custom-operators.md).

- **opsets**: the versions of the operator that are in force from operator set {oldest} on; the rule
  covers all.
- **verdict**: how far an answer holds. *affine*: everywhere. *piecewise-linear*: on the linear region
  around x. *locally constant*: the outputs stay what they are around x and contribute W = 0. *smooth*: at
  x only, by the tangent or with gates held (`--mode frozen`). *as its nodes are*: the operator is written
  out in simpler ones. Of several verdicts, types, attributes or
  `--quantized` choose.
- **linear in**: the inputs that may depend on x; of `A or B`, which are multiplied, one may. *else
  smooth*: in other uses the node is taken by its tangent, or frozen; without it they are refused.
"""


@dataclass(frozen=True)
class Operator:
    """One operator that has a rule."""

    domain: str
    op_type: str
    opsets: tuple[int, ...]  # versions that are in force at some operator set from `OLDEST` on
    verdicts: tuple[str, ...]
    linear_in: str
    module: str
    title: str  # the first paragraph of the rule's file: the equation
    at_x: str  # the rest, without links

    @property
    def file(self) -> str:
        """Where the rule stands."""
        return f"{self.module.removeprefix('ilin.').replace('.', '/')}.py"


def catalogue() -> list[Operator]:
    """All operators that have a rule or are written out in others, by domain and name."""
    return [
        _operator(REGISTRY[key]) if key in REGISTRY else _written_out(*key, EXPANSIONS[key])
        for key in sorted({*REGISTRY, *EXPANSIONS})
    ]


def _written_out(domain: str, op_type: str, expansion: Expansion) -> Operator:
    module = expansion.expand.__module__
    title, *rest = _paragraphs(module)
    verdict = str(expansion.kind or "as its nodes are")
    about = (verdict,), "as its nodes are", module, title, "\n\n".join(rest)
    return Operator(domain or "ai.onnx", op_type, _versions(op_type, domain), *about)


def _operator(entry: Entry) -> Operator:
    entries = list(_serving(entry))
    verdicts = tuple(dict.fromkeys(str(each.kind) for each in entries))
    title, *rest = _paragraphs(entry.module)
    versions = _versions(entry.op_type, entry.domain)
    return Operator(
        entry.domain or "ai.onnx",
        entry.op_type,
        versions,
        verdicts,
        "; ".join(dict.fromkeys(filter(None, (_linear_in(each) for each in entries)))),
        entry.module,
        title,
        "\n\n".join(rest),
    )


def _serving(entry: Entry) -> Iterator[Entry]:
    """The entries that serve the uses of an operator."""
    one: Entry | None = entry
    while one is not None:
        yield one
        one = one.otherwise


def _paragraphs(module: str) -> list[str]:
    """The docstring of a rule's file, paragraph by paragraph, each in one line; links are left out."""
    text = inspect.cleandoc(getattr(sys.modules.get(module), "__doc__", None) or "")
    parts = [
        "\n".join(line for line in part.split("\n") if "https://" not in line) for part in text.split("\n\n")
    ]
    return [" ".join(part.split()) for part in parts if part.strip()] or [""]


def _versions(op_type: str, domain: str) -> tuple[int, ...]:
    """Versions of an operator's schema in force from `OLDEST` on; none where onnx does not define it."""
    since = sorted(
        schema.since_version
        for schema in _schemas()
        if schema.name == op_type and schema.domain == domain and not schema.deprecated
    )
    return tuple(first for first, after in pairwise([*since, sys.maxsize]) if after > OLDEST or domain)


def _schemas() -> Sequence[onnx.defs.OpSchema]:
    schemas: Sequence[onnx.defs.OpSchema] = onnx.defs.get_all_schemas_with_history()
    return schemas


def _linear_in(entry: Entry) -> str:
    """Which inputs may depend on x, by name."""
    if entry.rule is None:
        return "any"
    formal = _formal(entry)
    count = max(len(formal), 1 + max((0, *(i for pair in entry.products for i in pair))))
    allowed = range(count) if entry.linear_in is None else entry.linear_in
    if entry.linear_in is None and not entry.products:
        return "any; else smooth" if entry.tangent else "any"
    pairs = [[_name(formal, i) for i in pair if i in allowed] for pair in entry.products]
    paired = {position for pair in entry.products for position in pair}
    parts = [f"one of {pair[0]}" if len({*pair}) < len(pair) else " or ".join(pair) for pair in pairs if pair]
    parts += [_name(formal, i) for i in allowed if i not in paired]
    told = ", ".join(dict.fromkeys(parts))
    return f"{told}; else smooth" if entry.tangent else told


def _formal(entry: Entry) -> list[str]:
    """The schema's names of an operator's inputs; none where onnx does not define it."""
    if not onnx.defs.has(entry.op_type, entry.domain):
        return []
    return [put.name for put in onnx.defs.get_schema(entry.op_type, domain=entry.domain).inputs]


def _name(formal: Sequence[str], position: int) -> str:
    """An input by name; the last formal one may stand for any number of them."""
    return formal[min(position, len(formal) - 1)] if formal else f"input {position}"


def page() -> str:
    """docs/operators.md, of ilin's own rules."""
    own = [one for one in catalogue() if not registered_by_others(one.op_type, _key(one.domain))]
    head = _HEAD.format(count=len(own), newest=onnx.defs.onnx_opset_version(), oldest=OLDEST)
    lines = [head, "| operator | opsets | verdict | linear in |", "|---|---|---|---|"]
    for one in own:
        name = one.op_type if one.domain == "ai.onnx" else f"{one.domain}.{one.op_type}"
        opsets = ", ".join(map(str, one.opsets)) or "1"
        lines.append(
            f"| [{name}](../{one.file}) | {opsets} | {' or '.join(one.verdicts)} | {one.linear_in} |"
        )
    lines += ["", "## What each does at x", ""]
    by_file = {one.file: one for one in own}
    for file in sorted(by_file):
        one = by_file[file]
        lines.append(f"- **[{file}](../{file})** {' '.join(filter(None, (one.title, one.at_x)))}")
    return "\n".join(lines) + "\n"


def _key(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
