"""A value that does not fit its schema."""

from __future__ import annotations

from headwater.errors import InvalidRequest


class Misfit(Exception):
    """Row ``row`` does not fit, because of ``field`` (empty: the value as a whole). It stays inside this package."""

    def __init__(self, row: int, field: str, what: str) -> None:
        super().__init__(what)
        self.row = row
        self.field = field
        self.what = what.rstrip(".")

    def refusal(self, version: int, *, where: str = "", offset: int | None = None) -> InvalidRequest:
        """The error for whoever sent the values. ``where`` names the batch, as in ``of batch 2 for topic 'a'``."""
        row = f"Row {self.row}{f' {where}' if where else ''}{'' if offset is None else f' (offset {offset})'}"
        field = f"field {self.field!r}: " if self.field else ""
        return InvalidRequest(
            f"{row} does not fit version {version} of the topic's schema: {field}{self.what}.",
            row=self.row,
            field=self.field,
            schema_version=version,
        )
