"""Objects of the bucket as plain data: header, chunks and state, with whatever is wrong beside what can be read."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from headwater.cli import formats
from headwater.errors import Corrupt, NotFound
from headwater.limits import WINDOW
from headwater.log import batch, frame, index, keys, snapshot
from headwater.log.intents import Intent, decode_manifest, decode_segment
from headwater.log.operations import Chunk
from headwater.log.state import State
from headwater.store.base import ObjectStore

RAW_CHARS = 2_000  # of a line that cannot be decoded


async def describe(store: ObjectStore, key: str, payload: int | None) -> dict[str, Any]:
    """The object as plain data; with ``payload`` the first so many records of each chunk.

    ``problems`` says what is wrong with it. Raises ``NotFound``.
    """
    blob = await store.get(key)
    kind = key.partition("/")[0]
    document: dict[str, Any] = {
        "key": key,
        "kind": kind,
        "bytes": len(blob.data),
        "modified_ms": blob.stat.modified_ms,
        "problems": [],
    }
    build = {"manifest": _manifest, "segment": _segment, "snapshot": _snapshot, "index": _index, "latest": _latest}
    try:
        if kind in build:
            await build[kind](store, document, blob.data, payload)
        else:
            document["text"] = blob.data[:RAW_CHARS].decode("utf-8", "replace")
    except Corrupt as error:
        document["problems"].append(str(error))
        _salvage(document, blob.data)
    return document


async def _manifest(store: ObjectStore, document: dict[str, Any], data: bytes, payload: int | None) -> None:
    manifest = decode_manifest(data, keys.parse_numbered_key(document["key"]))
    document |= {"header": {**msgspec.to_builtins(manifest), "intents": len(manifest.intents)}}
    held: dict[str, bytes] = {}
    intents = []
    for intent in manifest.intents:
        for chunk in intent.appends:
            if payload is not None and chunk.obj and chunk.obj not in held:
                held[chunk.obj] = await _read(store, chunk.obj, document)
        intents.append(_intent(document, intent, {"": data, **held}, payload))
    document["intents"] = intents


async def _segment(store: ObjectStore, document: dict[str, Any], data: bytes, payload: int | None) -> None:
    name = keys.parse_segment_key(document["key"])
    document["name"] = {"tip": name.tip, "writer": name.writer, "number": name.number, "tag": name.tag}
    try:
        header = decode_segment(data)
    except Corrupt as error:
        header = decode_segment(data, whole=False)  # cut or padded behind its header
        document["problems"].append(str(error))
    document["header"] = {**msgspec.to_builtins(header), "intents": len(header.intents)}
    document["intents"] = [_intent(document, intent, {"": data}, payload) for intent in header.intents]
    if not header.intents:
        # Staged bytes have no directory of their own: the manifest that names them does.
        await _find_naming(store, document, data, name.tip, payload)


async def _find_naming(
    store: ObjectStore, document: dict[str, Any], data: bytes, tip: int, payload: int | None
) -> None:
    left = len(data) - frame.header_bytes(data)
    document["named_by"] = []
    for seq in range(tip + 1, tip + WINDOW + 1):
        try:
            found = decode_manifest((await store.get(keys.manifest_key(seq))).data, seq)
        except NotFound:
            return
        except Corrupt as error:
            document["problems"].append(f"{keys.manifest_key(seq)} cannot be read: {error}")
            continue
        for intent in found.intents:
            mine = [chunk for chunk in intent.appends if chunk.obj == document["key"]]
            if mine:
                document["named_by"].append(seq)
                part = msgspec.structs.replace(intent, appends=mine)
                document["intents"].append(_intent(document, part, {document["key"]: data}, payload))
                left -= sum(chunk.len for chunk in mine)
        if left <= 0:
            return


async def _snapshot(store: ObjectStore, document: dict[str, Any], data: bytes, payload: int | None) -> None:
    del store, payload
    state: State = snapshot.decode(data, keys.parse_numbered_key(document["key"]))
    document["state"] = msgspec.to_builtins(state, str_keys=True)


async def _index(store: ObjectStore, document: dict[str, Any], data: bytes, payload: int | None) -> None:
    del store
    header, base = index.decode_header(data)
    document["header"] = {"v": header.v, "first": header.first, "last": header.last}
    document["runs"] = []
    for run in header.runs:
        names = ("topic", "partition", "rows", "base", "end", "max_ms", "pos", "len", "crc")
        row: dict[str, Any] = {name: getattr(run, name) for name in names}
        try:
            entries = index.decode_run(run, data[base + run.pos : base + run.pos + run.len])
            row["entries"] = [_fields(entry) for entry in entries[:payload]] if payload is not None else []
        except Corrupt as error:
            document["problems"].append(str(error))
        document["runs"].append(row)


async def _latest(store: ObjectStore, document: dict[str, Any], data: bytes, payload: int | None) -> None:
    del payload
    document["snapshot"] = snapshot.decode_latest(data)
    try:
        await store.head(keys.snapshot_key(document["snapshot"]))
    except NotFound:
        document["problems"].append(f"{keys.snapshot_key(document['snapshot'])} does not exist.")


def _fields(entry: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


async def _read(store: ObjectStore, key: str, document: dict[str, Any]) -> bytes:
    try:
        return (await store.get(key)).data
    except NotFound:
        document["problems"].append(f"{key} does not exist.")
        return b""


def _intent(document: dict[str, Any], intent: Intent, held: dict[str, bytes], payload: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {"id": intent.id, "tip": intent.tip, "ops": msgspec.to_builtins(intent.ops)}
    found["appends"] = [_chunk(document, chunk, held.get(chunk.obj), payload) for chunk in intent.appends]
    return found


def _chunk(document: dict[str, Any], chunk: Chunk, data: bytes | None, payload: int | None) -> dict[str, Any]:
    found = _fields(chunk)
    if data is None:  # in another object, which was not asked for
        return found
    where = f"The chunk of topic {chunk.topic}, partition {chunk.partition} at byte {chunk.pos}"
    body = data[chunk.pos : chunk.pos + chunk.len]
    found["intact"] = len(body) == chunk.len and frame.checksum(body) == chunk.crc
    if not found["intact"]:
        wrong = "fails its CRC32C" if len(body) == chunk.len else f"ends {chunk.len - len(body)} bytes too early"
        document["problems"].append(f"{where} {wrong}.")
    elif payload is not None:
        try:
            rows = batch.decode(chunk.codec, body, 0).slice(0, payload)
            found["records"] = [_record(record) for record in batch.records_of("", chunk.partition, rows)]
        except Corrupt as error:
            document["problems"].append(f"{where}: {error}")
    return found


def _record(record: Any) -> dict[str, Any]:
    found = formats.as_dict(record)
    return {name: found[name] for name in found if name not in ("topic", "partition", "offset")}


def _salvage(document: dict[str, Any], data: bytes) -> None:
    """What can be read of a line that fails its check: its JSON if it is still JSON, else its text."""
    line = data.split(b"\n", 1)[0]
    try:
        document["header"] = json.loads(line)
        document["problems"].append("The header is shown as it stands, unchecked.")
    except ValueError:
        document["text"] = line[:RAW_CHARS].decode("utf-8", "replace")
