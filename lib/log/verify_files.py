"""The archive's half of ``verify``: every file that present readers can reach, against what the log says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.errors import Corrupt, NotFound
from headwater.log import files, frame
from headwater.log.chain import Chain
from headwater.log.operations import File, FilePage
from headwater.log.state import Archive, Partition, State

if TYPE_CHECKING:
    from headwater.log.verify import Report
    from headwater.types import Progress


class Files:
    """Checks the archive of one state. Memory: one file, and one list of files."""

    def __init__(self, chain: Chain, final: State, report: Report, on_progress: Progress) -> None:
        self.chain = chain
        self.final = final
        self.report = report
        self.on_progress = on_progress

    async def check(self) -> None:
        """Files meet end to end from the log start to where chunks begin, and each holds what its entry says."""
        places = [
            (f"Topic {topic.name!r}, partition {number}", partition, partition.archive)
            for topic in self.final.topics.values()
            for number, partition in enumerate(topic.partitions)
            if partition.archive is not None
        ]
        self.report.count("files", 0)
        for done, (where, partition, archive) in enumerate(places):
            self.on_progress("archive", done, len(places))
            self._check_cover(where, partition, archive)
            for page in archive.pages:
                for file in await self._page(where, page):
                    await self._file(where, file)
            for file in archive.files:
                await self._file(where, file)

    def _check_cover(self, where: str, partition: Partition, archive: Archive) -> None:
        items: list[File | FilePage] = [*archive.pages, *archive.files]
        position = items[0].base if items else archive.end
        if position > partition.start and partition.start < archive.end:
            self._tell("archive", "", f"{where}: the log starts at {partition.start} and its first file at {position}.")
        for item in items:
            if item.base != position:
                what = f"offset {item.base} and should begin at {position}"
                self._tell("archive", item.key, f"{where}: the file, or list of files, begins at {what}.")
            position = item.end
        if position != archive.end:
            self._tell("archive", "", f"{where}: the last file ends at {position}, and chunks begin at {archive.end}.")
        if archive.end > partition.next:
            self._tell("archive", "", f"{where}: files reach to {archive.end} and the log to {partition.next}.")

    async def _page(self, where: str, page: FilePage) -> list[File]:
        data = await self._read(where, page.key)
        if data is None:
            return []
        self.report.count("file_pages")
        try:
            listed = files.decode(page, data)
        except Corrupt as error:
            self._tell("archive", page.key, f"{where}: {error}")
            return []
        position = page.base
        for file in listed:
            if file.base != position:
                self._tell("archive", page.key, f"{where}: it lists a hole or an overlap at offset {position}.")
            position = file.end
        sums = (sum(f.count for f in listed), sum(f.bytes for f in listed))
        times = (min(f.min for f in listed), max(f.max for f in listed))
        if sums != (page.count, page.bytes) or times != (page.min, page.max):
            self._tell("archive", page.key, f"{where}: its files hold {sums} records and bytes, at times {times}.")
        return listed

    async def _file(self, where: str, file: File) -> None:
        where = f"{where}, offsets [{file.base}, {file.end})"
        data = await self._read(where, file.key)
        if data is None:
            return
        self.report.count("files")
        self.report.count("file_bytes", len(data))
        if len(data) != file.bytes:
            self._tell("range", file.key, f"{where}: the file has {len(data)} bytes and should have {file.bytes}.")
            return
        if frame.checksum(data) != file.crc:
            self._tell("crc", file.key, f"{where}: the file fails its CRC32C.")
            return
        try:
            self._rows(where, file, _decoded(file, data))
        except Corrupt as error:
            self._tell("decode", file.key, f"{where}: {error}")

    def _rows(self, where: str, file: File, table: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.report.count("archived_records", table.num_rows)
        if not table.num_rows:
            return
        offsets: Any = table.column("offset").combine_chunks()
        low, high = offsets[0].as_py(), offsets[-1].as_py()
        ascending = pc.all(pc.greater(offsets[1:], offsets[:-1])).as_py() if table.num_rows > 1 else True
        if not (ascending and file.base <= low and high < file.end):
            self._tell("offsets", file.key, f"{where}: its offsets are not ascending, or not in that range.")
        found: Any = pc.min_max(table.column("timestamp").cast(pa.int64())).as_py()
        if (found["min"], found["max"]) != (file.min, file.max):
            times = (found["min"], found["max"])
            self._tell("times", file.key, f"{where}: timestamps are {times}, not {(file.min, file.max)}.")

    async def _read(self, where: str, key: str) -> bytes | None:
        await self.chain.clock.sleep(0)
        try:
            return (await self.chain.read(key, state=self.final)).data
        except NotFound:
            self._tell("missing", key, f"{where}: the object does not exist, and readers need it.")
        return None

    def _tell(self, kind: str, key: str, message: str) -> None:
        self.report.add(kind, key, message)


def _decoded(file: File, data: bytes) -> Any:
    """The offsets and times in a file, once its footer is right. Raises ``Corrupt``; also for a wrong count."""
    import pyarrow as pa

    from headwater.log import parquet

    footer = parquet.read_footer(data[-file.footer :], file)
    groups = range(footer.num_row_groups)
    return parquet.decode_row_groups(pa.BufferReader(data), footer, groups, ["offset", "timestamp"], file)
