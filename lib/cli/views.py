"""Objects for people: the plain data of ``objects.describe`` as a tree of lines and tables."""

from __future__ import annotations

from typing import Any

import click

from headwater.cli.output import amount, moment, print_table, size

TEXT_MAX = 100  # characters of a key or value
ROWS_MAX = 50


def show(document: dict[str, Any]) -> None:
    """Print it; what is wrong comes first, on standard error."""
    for problem in document["problems"]:
        click.echo(f"damaged: {problem}", err=True)
    click.echo(f"{document['key']}  {size(document['bytes'])}, stored {moment(document['modified_ms'])}")
    if "name" in document:
        name = document["name"]
        click.echo(f"  segment {name['number']} of writer {name['writer']}, made at tip {name['tip']}")
    for key, value in document.get("header", {}).items():
        click.echo(f"  {key}: {f'{value} ({moment(value)})' if key == 'time' else value}")
    if "snapshot" in document:
        click.echo(f"  names snapshot {document['snapshot']}")
    if "named_by" in document:
        seqs = sorted(set(document["named_by"]))
        click.echo(f"  named by manifest {', '.join(map(str, seqs))}" if seqs else "  no manifest names it")
    for intent in document.get("intents", []):
        _show_intent(intent)
    if "runs" in document:
        _show_runs(document["runs"])
    if "state" in document:
        _show_state(document["state"])
    if document.get("text"):
        click.echo(f"  text: {document['text']}")


def _show_intent(intent: dict[str, Any]) -> None:
    click.echo(f"\nintent {intent['id']}, made at tip {intent['tip']}")
    for op in intent["ops"]:
        fields = ", ".join(f"{name} {value}" for name, value in op.items() if name != "op")
        click.echo(f"  {op['op']}: {fields}")
    if not intent["appends"]:
        return
    columns = ["topic id", "partition", "records", "codec", "bytes", "at byte", "from", "to", "CRC32C", "in"]
    rows = [
        [
            str(chunk["topic"]),
            chunk["partition"],
            chunk["count"],
            chunk["codec"],
            chunk["len"],
            chunk["pos"],
            moment(chunk["min"]),
            moment(chunk["max"]),
            {True: "right", False: "WRONG", None: "–"}[chunk.get("intact")],
            chunk["obj"] or "this object",
        ]
        for chunk in intent["appends"]
    ]
    print_table(columns, rows, left=("codec", "CRC32C", "in"))
    for chunk in intent["appends"]:
        if chunk.get("records"):
            click.echo(f"  topic id {chunk['topic']}, partition {chunk['partition']}:")
            for record in chunk["records"]:
                key, value = _short(record["key"]), _short(record["value"])
                click.echo(f"    {moment(record['timestamp'])}  {key}: {value}")


def _show_runs(runs: list[dict[str, Any]]) -> None:
    columns = ["topic id", "partition", "chunks", "from offset", "to", "newest record", "bytes"]
    rows: list[list[object]] = [
        [str(r["topic"]), r["partition"], r["rows"], r["base"], r["end"], moment(r["max_ms"]), r["len"]]
        for r in runs[:ROWS_MAX]
    ]
    print_table(columns, rows)
    _more(len(runs))
    for run in runs:
        for entry in run.get("entries", []):
            where = entry["obj"] or f"manifest {entry['seq']}"
            click.echo(
                f"  topic id {run['topic']}, partition {run['partition']}: offset {entry['base']}, "
                f"{amount(entry['count'], 'record')}, {amount(entry['len'], 'byte')} at {entry['pos']} of {where}"
            )


def _show_state(state: dict[str, Any]) -> None:
    click.echo(f"  state after manifest {state['seq']}, {moment(state['time_ms'])}")
    click.echo(
        f"  {amount(len(state['topics']), 'topic')}, {amount(len(state['producers']), 'producer')}, "
        f"{amount(len(state['groups']), 'group')}, {amount(len(state['recent']), 'intent id')}, "
        f"{amount(len(state['pages']), 'index page')} up to manifest {state['paged']}"
    )
    topics = [
        [
            topic["name"],
            str(topic["id"]),
            len(topic["partitions"]),
            sum(place["next"] - place["start"] for place in topic["partitions"]),
            sum(len(place["tail"]) for place in topic["partitions"]),
        ]
        for topic in state["topics"].values()
    ]
    if topics:
        print_table(["topic", "id", "partitions", "records", "chunks in the tail"], topics[:ROWS_MAX])
        _more(len(topics))
    for name, group in list(state["groups"].items())[:ROWS_MAX]:
        places = sum(len(partitions) for partitions in group["offsets"].values())
        click.echo(f"  group {name}: generation {group['generation']}, {amount(places, 'committed offset')}")


def _more(count: int) -> None:
    if count > ROWS_MAX:
        click.echo(f"… and {count - ROWS_MAX:,} more")


def _short(text: str | None) -> str:
    if text is None:
        return "null"
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"
