r"""SQL over topics, by DuckDB: a topic is a table, and only tables that a statement names are opened.

    SELECT avg(dep_delay) FROM flights WHERE "timestamp" >= '2013-07-04'          typed columns of a schema
    SELECT decode(value) ->> '$.carrier', count(*) FROM raw GROUP BY 1            JSON values without one
    SELECT max("offset") FROM "orders.eu-1" WHERE partition = 3                   names with dots or dashes in quotes

Columns are ``partition``, ``offset`` (a word of SQL: in double quotes), ``timestamp``, ``key``, ``value``, ``headers``
and the typed ones. Conditions on partition, offset and timestamp decide which archive files are opened at all, those on
other columns which row groups are read, and only columns that are used are. Times without a zone are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from headwater.errors import Corrupt, HeadwaterError, InvalidRequest, NotFound, Unavailable
from headwater.replay.extras import extra

if TYPE_CHECKING:
    from headwater.replay.face import Cut

ROWS: Final = 65_536  # of one record batch of the answer
_READING: Final = "reading the stream registered as"  # how DuckDB begins what went wrong in a topic's files
_GONE: Final = re.compile(r"FileNotFoundError|No such file|is gone")
_DAMAGED: Final = re.compile(
    r"(?i)parquet|base64|thrift|decompress|crc|checksum|magic|corrupt|truncated|was cut|end of"
)


def query(cut: Cut, statement: str) -> pa.RecordBatchReader:
    """The answer of one SQL statement over the topics of ``cut``, as Arrow.

    Raises:
        ExtraMissing: DuckDB is not installed.
        InvalidRequest: the statement is wrong, or is several; the message is DuckDB's.
        NotFound: it names a table that is no topic: the message lists those there are. Or an archive file vanished.
        Corrupt: an archive file is damaged.

    Cost: of each topic that is named 1 GET for each page of files and the hot tail; then what its conditions leave.
    """
    duckdb = extra("duckdb", "sql")
    connection = duckdb.connect(config={"python_enable_replacements": False})  # variables of Python are no tables
    with _translated(duckdb, cut, statement):
        connection.execute("SET TimeZone = 'UTC'")
        for topic in _named(duckdb, connection, cut, statement):
            connection.register(topic, cut.to_dataset(topic))
        answer = connection.sql(statement)
        if answer is None:  # it gives no rows, as COPY does
            return pa.RecordBatchReader.from_batches(pa.schema([]), [])
        reader = answer.to_arrow_reader(ROWS)

    def batches() -> Iterator[pa.RecordBatch]:
        with connection, _translated(duckdb, cut, statement):
            yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _named(duckdb: Any, connection: Any, cut: Cut, statement: str) -> list[str]:
    """The topics that the statement names; SQL does not tell capital letters from small ones."""
    if len(connection.extract_statements(statement)) != 1:
        raise InvalidRequest("Give one SQL statement; this is none, or several.")
    if re.match(r"(?i)\s*show\s+(all\s+)?tables\b", statement):
        for topic in cut.topics:
            connection.register(topic, pa.table({"topic": []}))  # only its name is asked for
        return []
    try:
        wanted = {name.lower() for name in connection.get_table_names(statement)}
        found = [topic for topic in cut.topics if topic.lower() in wanted]
    except duckdb.BinderException:  # it looks for the columns of USING in tables that it does not have yet
        found = [topic for topic in cut.topics if topic.lower() in statement.lower()]
    twins = [topic for topic in found if [other.lower() for other in found].count(topic.lower()) > 1]
    if twins:
        raise InvalidRequest(f"SQL cannot tell the topics {', '.join(twins)} apart; replay them one by one.")
    return found


@contextmanager
def _translated(duckdb: Any, cut: Cut, statement: str) -> Iterator[None]:
    """What DuckDB and Arrow raise, as errors of ours."""
    try:
        yield
    except HeadwaterError:
        raise
    except duckdb.ParserException as error:
        raise InvalidRequest(f"{_first(error)}{_reserved(statement)}") from error
    except duckdb.CatalogException as error:
        raise NotFound(f"{_first(error)} {_there_are(cut.topics)}") from error
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise Unavailable(_first(error)) from error
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        text = str(error)
        if _GONE.search(text):
            raise NotFound(
                f"A file of the archive is missing: {_first(error)} If it was compacted meanwhile, the same statement "
                "works now; if not, run `headwater verify`."
            ) from error
        if _READING in text and _DAMAGED.search(text):
            raise Corrupt(f"A file of the archive is damaged: {_first(error)} Run `headwater verify`.") from error
        raise (Unavailable if _READING in text else InvalidRequest)(_first(error)) from error


def _first(error: Exception) -> str:
    """DuckDB's message: what is wrong, and its candidates, without the picture of the statement."""
    return " ".join(line.strip() for line in str(error).split("\n\nLINE ")[0].splitlines() if line.strip())


def _reserved(statement: str) -> str:
    """Help with the one column whose name is a word of SQL."""
    if re.search(r'(?i)(?<!")\boffset\b(?!")(?!\s+[0-9])', statement):
        return ' Write the column as "offset", in double quotes: the bare word is SQL\'s own.'
    return ""


def _there_are(topics: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' if re.search(r"\W", name) else name for name in topics[:20])
    more = f" and {len(topics) - 20} more" if len(topics) > 20 else ""
    return f"Topics are tables; there are: {shown or 'none'}{more}."
