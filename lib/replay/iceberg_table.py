"""The pyiceberg side of ``replay.iceberg``: catalog, table, schema, and one snapshot for each change. Blocks.

Our files know their columns by name and carry no partition column, as files of a Hive table do. Iceberg has a rule
for each (specification, "Column Projection"): a name mapping gives columns their ids, and the value of a column with
an identity partition comes from the table's metadata.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import pyarrow as pa

from headwater.errors import Conflict, HeadwaterError, Indeterminate, InvalidRequest, NotFound, Unavailable
from headwater.log.codec_schema import PLACED_SCHEMA
from headwater.log.operations import File
from headwater.replay.extras import extra

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table, Transaction

BASE_SCHEMA: Final = PLACED_SCHEMA.insert(0, pa.field("partition", pa.int32()))
LEFT_OUT: Final = "headwater.left-out"  # table property: columns of the files that the table cannot have
COMMIT: Final = "headwater.commit"  # snapshot property: the commit of the namespace whose files these are
DIGEST: Final = "headwater.files"  # snapshot property: a fingerprint of the names of all files
_UNSIGNED: Final = ("uint32", "uint64")  # Iceberg has no type that reads the bytes of one right
_SPARE_IDS: Final = 1_000_000  # ids of columns that are in files and not in the table; no table has as many columns
_PROPERTIES: Final = {
    "format-version": "2",
    # The files belong to the log: only its collector deletes them.
    "gc.enabled": "false",
    # pyiceberg would append the same files again on top of another's append. We look again instead.
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Which table, in which catalog. ``marks`` are properties that say whose it is."""

    catalog: str
    properties: Mapping[str, str]
    identifier: tuple[str, ...]
    location: str
    marks: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A file of the archive where others see it, with its footer."""

    path: str
    partition: int
    file: File
    footer: FileMetaData


class Lost(Conflict):
    """Somebody else changed the table first. Look again."""


def load(spec: Spec, *, create: bool) -> Table:
    """The table, made if need be and if ``create``.

    Raises:
        NotFound: there is no such table, or no such catalog.
        Conflict: a table of that name is there, and it is not for this topic.
        Unavailable: the catalog does not answer.
    """
    extra("pyiceberg", "iceberg")
    with translated():
        catalog = _catalog(spec)
        return _checked(_found_or_made(catalog, spec, create), spec)


def known_commit(table: Table) -> int:
    """The commit of the namespace whose files the table has; 0 before the first sync."""
    return int(_summary(table).get(COMMIT, 0))


def known_digest(table: Table) -> str:
    """The fingerprint of the files that the newest snapshot has; empty if that is not one of ours."""
    return str(_summary(table).get(DIGEST, ""))


def live_files(table: Table) -> dict[str, DataFile]:
    """The data files of the newest snapshot, by path. Cost: 1 GET for each Iceberg manifest."""
    with translated():
        snapshot = table.current_snapshot()
        if snapshot is None:
            return {}
        manifests = snapshot.manifests(table.io)
        entries = (entry for m in manifests for entry in m.fetch_manifest_entry(table.io, discard_deleted=True))
        return {entry.data_file.file_path: entry.data_file for entry in entries}


def evolve(table: Table, files: Sequence[Placed]) -> Table:
    """Give the table every column that the files have. A column that Iceberg cannot widen as we did is left out.

    Raises:
        InvalidRequest: Iceberg has no type for a column, so that the files cannot be in an Iceberg table.
        Lost: somebody else changed the table first.
    """
    left_out = set(left_out_of(table))
    fields = {str(field): field for file in files for field in file.footer.schema.to_arrow_schema()}
    added, gone = _changes(table, list(fields.values()), left_out)
    if not added and gone <= left_out:
        return table
    with translated(), table.transaction() as transaction:
        with transaction.update_schema(allow_incompatible_changes=True) as update:
            update.union_by_name(pa.schema(added))
            for name in gone & set(table.schema().column_names) - left_out:
                update.delete_column(name)
        unknown = [field for field in fields.values() if field.name in gone - left_out]
        _remember(transaction, sorted(gone | left_out), unknown)
    return table


def left_out_of(table: Table) -> list[str]:
    """Columns of the files that the table cannot have."""
    names: list[str] = json.loads(table.properties.get(LEFT_OUT, "[]"))
    return names


def commit(table: Table, removed: Sequence[DataFile], added: Sequence[Placed], properties: Mapping[str, str]) -> Table:
    """One snapshot without ``removed`` and with ``added``.

    Raises:
        Lost: somebody else changed the table first: nothing was done.
        Indeterminate: the catalog fell silent; the next sync finds out what became of it.
    """
    with translated():
        data = [_data_file(table, each) for each in added]
        with table.transaction() as transaction:
            update = transaction.update_snapshot(snapshot_properties=dict(properties))
            with update.overwrite() if removed else update.merge_append() as snapshot:
                for old in removed:
                    snapshot.delete_data_file(old)
                for new in data:
                    snapshot.append_data_file(new)
    return table


@contextmanager
def translated() -> Iterator[None]:
    """What pyiceberg and what it stands on raise, as errors of ours."""
    from pyiceberg import exceptions as theirs

    try:
        yield
    except (HeadwaterError, AssertionError):
        raise
    except theirs.CommitFailedException as error:
        raise Lost(f"The Iceberg table was changed by somebody else meanwhile: {error}") from error
    except theirs.CommitStateUnknownException as error:
        raise Indeterminate(f"The Iceberg catalog did not say whether it committed: {error}") from error
    except theirs.NoSuchTableError as error:
        raise NotFound(f"The Iceberg catalog has no such table: {error}") from error
    except Exception as error:
        raise _as_ours(error) from error


def _as_ours(error: Exception) -> HeadwaterError:
    """Of what a catalog may raise: SQLite, a REST service, Hive, Glue.

    SQLite turns away whoever comes while another one writes or makes the tables; that is like coming second.
    """
    from pyiceberg.exceptions import ValidationError

    text = str(error)
    if "locked" in text or "already exists" in text or type(error).__name__ == "IntegrityError":
        return Lost(f"Somebody else is changing the Iceberg catalog: {error}")
    if isinstance(error, ValueError | TypeError | NotImplementedError | ValidationError):
        return InvalidRequest(f"pyiceberg refused: {error}")
    return Unavailable(f"The Iceberg catalog or its warehouse failed ({type(error).__name__}): {error}")


# -- the table ----------------------------------------------------------------------------------------------


def _catalog(spec: Spec) -> Catalog:
    from pyiceberg.catalog import load_catalog

    uri = spec.properties.get("uri", "")
    if uri.startswith("sqlite:///"):
        Path(unquote(uri.removeprefix("sqlite:///"))).parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("pyiceberg.io").setLevel(logging.WARNING)  # it tells which FileIO it loads, each time
    return load_catalog(spec.catalog, **spec.properties)


def _found_or_made(catalog: Catalog, spec: Spec, create: bool) -> Table:
    from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError, TableAlreadyExistsError

    try:
        return catalog.load_table(spec.identifier)
    except NoSuchTableError:
        if not create:
            raise
    try:
        catalog.create_namespace(spec.identifier[:-1])
    except NamespaceAlreadyExistsError:
        pass
    try:
        with catalog.create_table_transaction(
            spec.identifier,
            BASE_SCHEMA,
            location=spec.location or None,
            properties={**_PROPERTIES, **spec.marks},
        ) as transaction:
            with transaction.update_spec() as update:
                update.add_identity("partition")
            _remember(transaction, [], [])
    except (TableAlreadyExistsError, NoSuchTableError):
        pass  # another one made it just now
    return catalog.load_table(spec.identifier)


def _checked(table: Table, spec: Spec) -> Table:
    """The table, if it is for this topic, with the properties that it must have."""
    found = table.properties
    for name, wanted in spec.marks.items():
        if found.get(name) != wanted:
            raise Conflict(
                f"The Iceberg table {'.'.join(spec.identifier)!r} is there and has {name} = {found.get(name)!r}, not "
                f"{wanted!r}: it is not for this topic. Name another table, or drop this one.",
            )
    needed = {name: value for name, value in _PROPERTIES.items() if name in ("gc.enabled", "commit.retry.num-retries")}
    if any(found.get(name) != value for name, value in needed.items()):
        with table.transaction() as transaction:
            transaction.set_properties(needed)
    return table


def _remember(transaction: Transaction, left_out: list[str], unknown: list[pa.Field[Any]]) -> None:
    """Set the name mapping, which has every column of the files, and the list of those that the table cannot have."""
    from pyiceberg.table.name_mapping import NameMapping, create_mapping_from_schema

    metadata = transaction.table_metadata
    present = metadata.name_mapping()
    mapped = list(present) if present is not None else list(create_mapping_from_schema(metadata.schema()))
    names = {name for field in mapped for name in field.names}
    spare = [field for field in unknown if field.name not in names]
    if spare:
        mapped += list(create_mapping_from_schema(_numbered(spare, len(left_out))))
    document = NameMapping(mapped).model_dump_json()
    transaction.set_properties({"schema.name-mapping.default": document, LEFT_OUT: json.dumps(left_out)})


def _numbered(fields: list[pa.Field[Any]], many: int) -> Any:
    from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
    from pyiceberg.schema import assign_fresh_schema_ids

    unique = {field.name: field for field in fields}
    ids = itertools.count(_SPARE_IDS * (1 + many))
    return assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(pa.schema(unique.values())), lambda: next(ids))


def _changes(table: Table, fields: list[pa.Field[Any]], left_out: set[str]) -> tuple[list[pa.Field[Any]], set[str]]:
    """Columns to add or widen, and the names of those that the table cannot have."""
    known: dict[str, Any] = {field.name: field.field_type for field in table.schema().fields}
    added: dict[str, pa.Field[Any]] = {}
    gone = set(left_out)
    for field in fields:
        kind = _iceberg_type(field)
        if field.name in gone or str(field.type) in _UNSIGNED:
            gone.add(field.name)
        elif field.name not in known or _becomes(known[field.name], kind):
            known[field.name] = kind
            added[field.name] = field.with_nullable(True)
        elif not (kind == known[field.name] or not kind.is_primitive or _becomes(kind, known[field.name])):
            gone.add(field.name)
    return [field for name, field in added.items() if name not in gone], gone


def _iceberg_type(field: pa.Field[Any]) -> Any:
    from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException, _pyarrow_to_schema_without_ids

    try:
        return _pyarrow_to_schema_without_ids(pa.schema([field])).fields[0].field_type
    except (UnsupportedPyArrowTypeException, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"Column {field.name!r} has the type {field.type}, which Iceberg does not have ({error}). These files "
            "cannot be in an Iceberg table; `headwater sql` and the replay library read them."
        ) from error


def _becomes(old: Any, new: Any) -> bool:
    """Whether Iceberg may widen the type ``old`` to ``new`` (and they differ)."""
    from pyiceberg.exceptions import ResolveError
    from pyiceberg.schema import promote

    if old == new or not (old.is_primitive and new.is_primitive):
        return False
    try:
        promote(old, new)
    except ResolveError:
        return False
    return True


# -- files --------------------------------------------------------------------------------------------------


def _data_file(table: Table, placed: Placed) -> DataFile:
    """The file as Iceberg describes one; statistics come from its footer."""
    from pyiceberg.io.pyarrow import (
        MetricModeTypes,
        MetricsMode,
        StatisticsCollector,
        compute_statistics_plan,
        data_file_statistics_from_parquet_metadata,
        parquet_path_to_id_mapping,
    )
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record
    from pyiceberg.types import BinaryType

    schema = table.schema()
    plan = compute_statistics_plan(schema, table.properties)
    # Columns that the table does not have count as one, of which nothing is kept.
    plan[0] = StatisticsCollector(0, BinaryType(), MetricsMode(MetricModeTypes.NONE), "")
    paths = _OrNone(parquet_path_to_id_mapping(schema))
    found = data_file_statistics_from_parquet_metadata(placed.footer, plan, paths).to_serialized_dict()
    found["column_sizes"].pop(0, None)
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=placed.path,
        file_format=FileFormat.PARQUET,
        partition=Record(placed.partition),
        file_size_in_bytes=placed.file.bytes,
        sort_order_id=None,
        spec_id=table.metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **found,
    )


class _OrNone(dict[str, int]):
    """A dictionary that answers 0 for what it does not have."""

    def __missing__(self, key: str) -> int:
        return 0


def _summary(table: Table) -> Mapping[str, str]:
    snapshot = table.current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return {}
    return snapshot.summary.additional_properties
