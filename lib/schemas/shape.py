"""What a definition says of a value: a column's type, and what only the check of a value needs.

Values of a ``Shape`` are msgspec's: its types decode JSON in C and say in their errors where a value does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

from headwater.errors import InvalidRequest
from headwater.log.columns import Field, Type, plain_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of an object. One that is not nullable is required; one that is may be, so that it is there as null."""

    name: str
    shape: Shape
    nullable: bool = True
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A type of ``log.columns`` with constraints: ``choices`` (an enum), ``bounds`` (of ``msgspec.Meta``).

    ``members`` are those of a struct; a list has the one member ``item``, a map the one member ``value``. A ``closed``
    struct has no others.
    """

    kind: str
    params: tuple[int, ...] = ()
    members: tuple[Member, ...] = ()
    choices: tuple[str | int, ...] = ()
    bounds: dict[str, Any] = field(default_factory=dict)
    closed: bool = False

    @classmethod
    def of(cls, found: Type) -> Shape:
        """The shape that is no more than a type."""
        members = tuple(
            Member(name=each.name, shape=cls.of(each.type), nullable=each.nullable) for each in found.fields
        )
        return cls(kind=found.kind, params=found.params, members=members)

    def type(self) -> Type:
        """The column's type."""
        fields = tuple(Field(name=each.name, type=each.shape.type(), nullable=each.nullable) for each in self.members)
        return Type(kind=self.kind, params=self.params, fields=fields)


def refuse(path: str, what: str) -> NoReturn:
    """Raise ``InvalidRequest`` for a definition, with the path to what it is about."""
    raise InvalidRequest(f"The schema cannot be used, at {path or 'its root'}: {what}", field=path)


def check_member(path: str, name: str) -> None:
    """Raises ``InvalidRequest`` for a nested name that a type cannot spell."""
    if not plain_name(name) or not spelled(name):
        refuse(path, f"a nested name has 1 to 249 characters without '<', '>', ',' and ':'; {name[:40]!r} does not.")


def spelled(name: str) -> bool:
    """Whether a name is one that decoders know: msgspec's have no quotes, backslashes and control characters."""
    return name.isprintable() and '"' not in name and "\\" not in name
