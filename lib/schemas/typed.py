"""The typed columns of a topic's values, and the check of values that are to be written.

    check(topic.schemas, values)                    on the way in: no pyarrow for JSON
    typed(topic.schemas, values, strict=False)      for the archive, and for whoever reads chunks

A check goes by the newest version that its process knows, and others may add a version before the batch is committed.
That is no race: a version only widens, so the values still have their place in it (``log.columns``); a JSON value lacks
the new columns, which may be null, and a datum names its version, or is of version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.log.state import Schema
from headwater.schemas import datums, framing, texts
from headwater.schemas.misfit import Misfit

if TYPE_CHECKING:
    import pyarrow as pa


def check(
    schemas: Schema | Sequence[Schema],
    values: Sequence[bytes | None],
    *,
    where: str = "",
    offsets: Sequence[int] | None = None,
) -> None:
    """Refuse values that are not as the newest version says, or as the one that a datum names.

    Args:
        schemas: all versions, oldest first; JSON needs the newest alone.
        values: None is a tombstone, and fits always.
        where: how the error calls the batch, as in ``of batch 2, for topic 'flights'``.
        offsets: of the values, where they have any.

    Raises:
        InvalidRequest: names the first row that does not fit, its field, and what is wrong with it.
    """
    versions = [schemas] if isinstance(schemas, Schema) else schemas
    try:
        if versions[-1].format == "avro":
            datums.check(versions, values)
        elif framing.bound(versions):
            for version, numbers, texted in framing.grouped(versions, values):
                _check_texts(version, numbers, texted)
        else:
            texts.check(versions[-1], values)
    except Misfit as misfit:
        offset = None if offsets is None else offsets[misfit.row]
        raise misfit.refusal(versions[-1].version, where=where, offset=offset) from None


def typed(
    schemas: Schema | Sequence[Schema],
    values: pa.Array[Any] | pa.ChunkedArray[Any],
    *,
    strict: bool = False,
    offsets: Sequence[int] | None = None,
) -> pa.RecordBatch:
    """The columns of the newest version, in their order, one row for each of ``values`` (binary).

    Every column may be null: a tombstone is null in all of them, and so is, unless ``strict``, a value that does not
    fit. A column that came later is null in older values. The values themselves are untouched, so nothing is lost.

    Raises:
        InvalidRequest: ``strict``, and a value does not fit (see ``check``); or an Avro reader is needed and missing.

    Cost: about 3.3 µs for a JSON value of 20 fields, 13 µs for an Avro one of 20 unions, in C.
    """
    import pyarrow as pa

    from headwater.schemas import build

    versions = [schemas] if isinstance(schemas, Schema) else list(schemas)
    newest = versions[-1]
    items: list[bytes | None] = values.to_pylist()
    if strict:
        check(versions, items, offsets=offsets)
    if newest.format == "avro":
        made = _of_datums(versions, items, strict=strict)
    else:
        items = framing.unframed(versions, items) if framing.bound(versions) else items
        made = build.of_texts(newest.columns, texts.fitting(newest.columns, items))
    return pa.RecordBatch.from_arrays(made.flatten(), schema=build.nullable(newest.columns))


def _check_texts(version: Schema | None, numbers: Sequence[int], values: Sequence[bytes]) -> None:
    """Check JSON values by the version that they name, if any. Raises ``Misfit`` with the row among all values."""
    if version is None:
        return
    try:
        texts.check(version, values)
    except Misfit as misfit:
        raise Misfit(numbers[misfit.row], misfit.field, misfit.what) from None


def _of_datums(versions: Sequence[Schema], items: Sequence[bytes | None], *, strict: bool) -> Any:
    """Each version's values are read by it, and then take their place in the newest one's columns."""
    import pyarrow as pa

    from headwater.schemas import build

    newest = versions[-1]
    struct = pa.struct(list(build.nullable(newest.columns)))
    places: list[int | None] = [None] * len(items)
    parts: list[Any] = []
    count = 0
    for version, numbers, encoded in datums.grouped(versions, items):
        if version is None:
            continue
        rows = _rows(version, encoded)
        made, unheld = build.of_rows(version.columns, rows)
        if strict and unheld:
            try:
                build.refuse_unheld(version.columns, rows)
            except Misfit as misfit:
                raise Misfit(numbers[misfit.row], misfit.field, misfit.what).refusal(newest.version) from None
        parts.append(made if made.type == struct else made.cast(struct))
        for place, row in enumerate(numbers):
            places[row] = count + place
        count += len(numbers)
    return pa.concat_arrays([*parts, pa.array([], struct)]).take(pa.array(places, pa.int64()))


def _rows(version: Schema, encoded: Sequence[bytes]) -> list[dict[str, Any] | None]:
    try:
        return list(datums.decode(version.definition, encoded))
    except datums.UNFIT:
        unfit = datums.misfits(version, encoded)
        fits = datums.decode(version.definition, [d for place, d in enumerate(encoded) if place not in unfit])
        rest = iter(fits)
        return [None if place in unfit else next(rest) for place in range(len(encoded))]
