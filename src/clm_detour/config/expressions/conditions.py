"""Evaluate conditions on the fields of a record, like `educational_score >= 3 and language in ['en', 'fr']`.

The syntax is Python's. Only names, constants, comparisons, `and`, `or`, `not` and lists of constants are
allowed. An expression is turned into plain functions once, and is never run as Python code. A field that a
record may lack is written `specialty?`. A name that is not a word goes in backquotes: `Note type`.

Null, a missing optional field, and an empty cell that is compared with a number are equal to None only, and
neither less nor greater than anything. Cells of CSV files are text; compared with a number they are read as
numbers.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clm_detour.config.expressions.fields import NAME, Field, FieldProblem
from clm_detour.utils.errors import UserError

Value = Callable[[Mapping[str, Any]], Any]
Comparison = Callable[[Any, Any], bool]
LONGEST = 10_000  # characters: far more than a person writes, and too few to exhaust the stack
SPECIAL_NAMES = re.compile(
    rf"(?P<string>'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")|`(?P<quoted>[^`]+)`|(?P<optional>{NAME}\?)"
)
KNOWN = (
    "use names of fields, constants, lists, comparisons (== != < <= > >= in, not in), and, or, not; "
    "`a name with blanks` goes in backquotes, and name? may be missing"
)


@dataclass(frozen=True)
class Condition:
    """A function of a record that returns whether the condition holds."""

    text: str
    fields: tuple[Field, ...]
    value: Value

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition.

        Raises:
            UserError: If it is not a condition; the message says what is allowed.
        """
        fields: dict[str, Field] = {}

        def stand_in(match: re.Match[str]) -> str:
            """Return a word in place of a name that Python cannot read."""
            if match["string"]:
                return match["string"]
            word = f"_field_{len(fields)}_"
            fields[word] = Field.parse(match["quoted"] or match["optional"])
            return word

        try:
            if len(text) > LONGEST:
                raise SyntaxError("it is too long")
            tree = ast.parse(SPECIAL_NAMES.sub(stand_in, text).strip(), mode="eval")
            value = compile_node(tree.body, fields)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else "it cannot be parsed"
            raise UserError(f"{text[:200]!r} is not a condition ({reason}): {KNOWN}.") from None
        return cls(text, tuple(fields.values()), value)

    def __call__(self, record: Mapping[str, Any]) -> bool:
        """Return whether the condition holds for a record.

        Raises:
            FieldProblem: If the record lacks a field, or has a value that cannot be compared.
        """
        try:
            return bool(self.value(record))
        except (TypeError, ValueError):
            raise FieldProblem(
                "not comparable", f": a value is of a kind that {self.text!r} cannot compare"
            ) from None


def compile_node(node: ast.expr, fields: dict[str, Field]) -> Value:
    """Return a function from a record to the value of `node`, and add the fields that it reads."""
    match node:
        case ast.Constant(value=str() | int() | float() | None as constant):
            return lambda _: constant
        case ast.Name() | ast.Attribute() | ast.Subscript():
            name = ast.unparse(node)
            if not re.fullmatch(NAME, name):
                raise SyntaxError(f"{name[:80]!r} is not the name of a field")
            return fields.setdefault(name, Field.parse(name)).of
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            constants = [constant_of(part) for part in parts]
            return lambda _: constants
        case ast.UnaryOp(op=ast.USub()):
            number = constant_of(node)
            return lambda _: number
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = compile_node(operand, fields)
            return lambda record: not inner(record)
        case ast.BoolOp(op=operation, values=parts):
            values = [compile_node(part, fields) for part in parts]
            together = all if isinstance(operation, ast.And) else any
            return lambda record: together(value(record) for value in values)
        case ast.Compare(left=left, ops=operations, comparators=rights):
            return compile_comparison([left, *rights], operations, fields)
    raise SyntaxError(f"{ast.unparse(node)[:80]!r} is not allowed")


def constant_of(node: ast.expr) -> Any:
    """Return the value of a constant, which may have a minus sign."""
    match node:
        case ast.Constant(value=str() | int() | float() | None as constant):
            return constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    raise SyntaxError(f"{ast.unparse(node)[:80]!r} is not a constant")


def compile_comparison(nodes: list[ast.expr], operations: list[ast.cmpop], fields: dict[str, Field]) -> Value:
    """Return a function from a record to the result of a chain of comparisons, like `a < b <= c`."""
    values = [compile_node(node, fields) for node in nodes]
    if any(type(operation) not in COMPARISONS for operation in operations):
        raise SyntaxError("write == None instead of is None")
    comparisons = [COMPARISONS[type(operation)] for operation in operations]

    def compare(record: Mapping[str, Any]) -> bool:
        left = values[0](record)
        for comparison, value in zip(comparisons, values[1:], strict=True):
            right = value(record)
            if not comparison(left, right):
                return False
            left = right
        return True

    return compare


def alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Return both values, with text that is compared with a number as a number, or as None if it is blank.

    Raises:
        ValueError: If the text is not a number.
    """
    if isinstance(left, str) and isinstance(right, int | float):
        return (float(left) if left.strip() else None), right
    if isinstance(right, str) and isinstance(left, int | float):
        return left, (float(right) if right.strip() else None)
    return left, right


def equal(left: Any, right: Any) -> bool:
    """Return whether values are equal. Text that is not a number is not equal to any number."""
    try:
        left, right = alike(left, right)
    except ValueError:
        return False
    return bool(left == right)


def contained(left: Any, right: Any) -> bool:
    """Return whether a value is in a list, or is part of a text."""
    if right is None:
        return False
    if isinstance(right, list):
        return any(equal(left, item) for item in right)
    return left is not None and left in right


def ordered(comparison: Callable[[Any, Any], Any]) -> Comparison:
    """Return a comparison like `<` that is false for null."""

    def compare(left: Any, right: Any) -> bool:
        left, right = alike(left, right)
        return left is not None and right is not None and bool(comparison(left, right))

    return compare


COMPARISONS: dict[type[ast.cmpop], Comparison] = {
    ast.Eq: equal,
    ast.NotEq: lambda left, right: not equal(left, right),
    ast.Lt: ordered(operator.lt),
    ast.LtE: ordered(operator.le),
    ast.Gt: ordered(operator.gt),
    ast.GtE: ordered(operator.ge),
    ast.In: contained,
    ast.NotIn: lambda left, right: not contained(left, right),
}
