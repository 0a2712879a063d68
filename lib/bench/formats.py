"""``bench formats``: Parquet or Arrow IPC for the files of the archive, decided by measurement.

The same records in three formats, as one file each, in pieces of about 8 MiB: Parquet as `log.parquet` writes it, and
Arrow IPC files with LZ4 and with Zstandard. Rates are MB of keys and values a second, of one core, between buffers in
memory; best of the rounds, and who goes first changes. A seek opens a file that nobody has read yet and reads the piece
that holds one offset in the middle. Reads that touch each other count as one request. IPC files have no statistics, so
IPC is told which piece it is; without an index of ours beside the file it would have to look for it.

With 32 MiB on a busy machine of two cores (Python 3.11, pyarrow 26, DuckDB 2.0, Polars 2.1; November 2026), in percent
of keys and values, MB/s, and MB of a seek:

                        size   write   replay   seek   read by
    100 B   Parquet     44.8     118      444    3.8   pyarrow, Polars, DuckDB
            IPC lz4     67.0     225      894    4.4   pyarrow, Polars
            IPC zstd    53.4     169      560    3.5   pyarrow, Polars
    1 KB    Parquet     50.3     142      423    4.3   pyarrow, Polars, DuckDB
            IPC lz4     52.3     376    2,467    4.3   pyarrow, Polars
            IPC zstd    50.7     244    2,648    4.1   pyarrow, Polars
    flights Parquet     11.8     167      320    1.0   pyarrow, Polars, DuckDB
            IPC lz4     25.6     213    1,113    2.0   pyarrow, Polars
            IPC zstd    13.9     182      462    1.1   pyarrow, Polars

Conclusion: Parquet. Its files are the smallest, by 16 % where records are small, and storage is what long retention
costs. DuckDB reads them as they lie, as Spark and Athena do; IPC it cannot read without an extension from elsewhere.
One column takes 0.3 % to 3 % of the file, and statistics find an offset or a time in it with no index of ours. IPC is
decoded faster, six times so where half of each value is noise. But Parquet decodes more on one core than one connection
to S3 carries (about 90 MB/s), so that what replay waits for is bytes, of which Parquet has fewer.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.bench import records
from headwater.clock import stopwatch_s
from headwater.limits import MIB
from headwater.log import parquet

ROUNDS: Final = 3
FORMATS: Final = ("parquet", "ipc lz4", "ipc zstd")
COLUMN: Final = "timestamp"  # the one that projection reads


def bench(mib: int = 8, rounds: int = ROUNDS) -> dict[str, Any]:
    """The report of ``headwater bench formats``. Ratios are Parquet's figure by that of IPC with Zstandard."""
    results = [row for kind in records.KINDS for row in _kind(kind, mib, rounds)]
    return {"bench": "formats", "mib": mib, "rounds": rounds, "ratios": _ratios(results), "results": results}


@dataclass(frozen=True, slots=True)
class _Format:
    """How one format is written and read."""

    write: Callable[[pa.Table], pa.Buffer]
    scan: Callable[[pa.NativeFile], pa.Table]
    project: Callable[[pa.NativeFile], pa.Table]
    seek: Callable[[pa.NativeFile, int], pa.Table]  # an offset → the piece that holds it


def _kind(kind: str, mib: int, rounds: int) -> list[dict[str, Any]]:
    table = records.placed(kind, mib * MIB)
    size = records.payload_bytes(table)
    formats = {"parquet": _parquet(), "ipc lz4": _ipc("lz4", table), "ipc zstd": _ipc("zstd", table)}
    files = {name: each.write(table) for name, each in formats.items()}
    best = {(name, what): float("inf") for name in FORMATS for what in ("write", "scan", "project")}
    for turn in range(rounds):
        for name in FORMATS[turn % 3 :] + FORMATS[: turn % 3]:
            for what, seconds in _timed(formats[name], files[name], table).items():
                best[name, what] = min(best[name, what], seconds)
    middle = table.num_rows // 2
    return [
        {
            "records": kind,
            "format": name,
            "size_percent": round(100 * files[name].size / size, 1),
            "write_mb_per_s": round(size / best[name, "write"] / 1e6),
            "replay_mb_per_s": round(size / best[name, "scan"] / 1e6),
            "project_mb_per_s": round(size / best[name, "project"] / 1e6),
            "project_percent_read": round(100 * _seen(files[name], formats[name].project)[1] / files[name].size, 1),
            **_sought(files[name], formats[name], middle),
            **_readers(files[name], name, table.num_rows),
        }
        for name in FORMATS
    ]


def _timed(each: _Format, data: pa.Buffer, table: pa.Table) -> dict[str, float]:
    start_s = stopwatch_s()
    each.write(table)
    written_s = stopwatch_s()
    scanned = each.scan(pa.BufferReader(data))
    scanned_s = stopwatch_s()
    projected = each.project(pa.BufferReader(data))
    projected_s = stopwatch_s()
    assert table.num_rows == scanned.num_rows == projected.num_rows, "every record is read"
    return {"write": written_s - start_s, "scan": scanned_s - written_s, "project": projected_s - scanned_s}


def _ratios(results: list[dict[str, Any]]) -> dict[str, Any]:
    """For each figure the least favourable of all kinds of records to Parquet."""
    by = {(row["records"], row["format"]): row for row in results}

    def worst(name: str, pick: Callable[[list[float]], float]) -> float:
        return round(
            pick([by[kind, "parquet"][name] / max(by[kind, "ipc zstd"][name], 1e-9) for kind in records.KINDS]), 2
        )

    return {
        "size": worst("size_percent", max),
        "write": worst("write_mb_per_s", min),
        "replay": worst("replay_mb_per_s", min),
        "project": worst("project_mb_per_s", min),
        "seek_bytes": worst("seek_bytes", max),
    }


# -- the formats --------------------------------------------------------------------------------------


def _parquet() -> _Format:
    def write(table: pa.Table) -> pa.Buffer:
        builder = parquet.FileBuilder()
        builder.add(table)
        return builder.finish().data

    def seek(source: pa.NativeFile, offset: int) -> pa.Table:
        opened = pq.ParquetFile(source, pre_buffer=True)
        meta = opened.metadata
        statistics: list[Any] = [meta.row_group(i).column(0).statistics for i in range(meta.num_row_groups)]
        return opened.read_row_group(next(i for i, each in enumerate(statistics) if offset <= each.max))

    return _Format(
        write=write,
        scan=lambda source: pq.ParquetFile(source).read(use_threads=False),
        project=lambda source: pq.ParquetFile(source, pre_buffer=True).read([COLUMN], use_threads=False),
        seek=seek,
    )


def _ipc(codec: Literal["lz4", "zstd"], table: pa.Table) -> _Format:
    rows = max(1, min(parquet.ROW_GROUP_ROWS, table.num_rows * parquet.ROW_GROUP_BYTES // max(table.nbytes, 1)))
    writing = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)

    def write(rows_of_it: pa.Table) -> pa.Buffer:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows_of_it.schema, options=writing) as writer:
            writer.write_table(rows_of_it.combine_chunks(), max_chunksize=rows)
        return sink.getvalue()

    def opened(source: pa.NativeFile, fields: list[int] | None = None) -> pa.ipc.RecordBatchFileReader:
        return pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields))

    return _Format(
        write=write,
        scan=lambda source: opened(source).read_all(),
        project=lambda source: opened(source, [table.schema.get_field_index(COLUMN)]).read_all(),
        seek=lambda source, offset: pa.Table.from_batches([opened(source).get_batch(offset // rows)]),
    )


# -- what is read of a file ------------------------------------------------------------------------------


class _Counting(io.RawIOBase):
    """Bytes that note which parts of them were read."""

    def __init__(self, data: pa.Buffer) -> None:
        self._data = data
        self._at = 0
        self.reads: list[tuple[int, int]] = []

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._data.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._data.size if size < 0 else min(self._at + size, self._data.size)
        self.reads.append((self._at, end))
        found = self._data[self._at : end].to_pybytes()
        self._at = end
        return found


def _seen(data: pa.Buffer, read: Callable[[pa.NativeFile], object]) -> tuple[int, int]:
    """How many requests the reading takes, where one ends as the next one begins, and how many bytes."""
    counting = _Counting(data)
    read(pa.PythonFile(counting, "r"))
    requests, size, before = 0, 0, -1
    for low, high in counting.reads:
        requests += low != before
        size += high - low
        before = high
    return requests, size


def _sought(data: pa.Buffer, each: _Format, offset: int) -> dict[str, int]:
    def read(source: pa.NativeFile) -> None:
        offsets = each.seek(source, offset).column("offset")
        assert offsets[0].as_py() <= offset <= offsets[-1].as_py(), "the piece holds the offset"

    requests, size = _seen(data, read)
    return {"seek_requests": requests, "seek_bytes": size}


# -- who reads it ------------------------------------------------------------------------------------------


def _readers(data: pa.Buffer, name: str, rows: int) -> dict[str, str]:
    """Each reader that is installed is given the file, as it lies in a directory."""
    kind = name.partition(" ")[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file.{'arrow' if kind == 'ipc' else kind}"
        path.write_bytes(data)
        readers = {"pyarrow": _read_pyarrow, "polars": _read_polars, "duckdb": _read_duckdb}
        return {reader: _tried(read, str(path), kind, rows) for reader, read in readers.items()}


def _tried(read: Callable[[str, str], int], path: str, kind: str, rows: int) -> str:
    try:
        return "yes" if read(path, kind) == rows else "no"
    except ImportError:
        return "not installed"
    except Exception:  # whatever a reader raises of a file that it does not understand
        return "no"


def _read_pyarrow(path: str, kind: str) -> int:
    import pyarrow.dataset as ds

    found: Any = ds.dataset(path, format="parquet" if kind == "parquet" else "ipc")
    return int(found.to_table().num_rows)


def _read_polars(path: str, kind: str) -> int:
    import polars as pl

    frame: Any = pl.scan_parquet(path) if kind == "parquet" else pl.scan_ipc(path)
    return int(frame.collect().height)


def _read_duckdb(path: str, kind: str) -> int:
    import duckdb

    function = "read_parquet" if kind == "parquet" else "read_arrow"
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        connection.execute("SET enable_progress_bar = false")
        found = connection.execute(
            f"SELECT count(*) FROM {function}(?) WHERE octet_length(value) >= 0", [path]
        ).fetchone()
    return int(found[0]) if found else 0
