"""Moments on a command line: a commit's number, or a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from headwater.cli.times import parse_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeType(click.ParamType[datetime]):
    """ISO 8601, or ``@ms``; without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        bare = text.removeprefix("@")
        # Digits alone might be a year, a commit or milliseconds: these are marked.
        found = None if bare == text and re.fullmatch(r"-?[0-9]+", text) else parse_time(bare)
        if found is None:
            self.fail(
                f"{value!r} is no time: write 2013-07-04, 2013-07-04T12:00:00Z or @1372939200000 (ms).", param, ctx
            )
        try:
            return _EPOCH + timedelta(milliseconds=found)
        except OverflowError:
            self.fail(f"{value!r} is beyond any calendar.", param, ctx)


class MomentType(TimeType):
    """A commit's number, or a time as ``TimeType`` takes it."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value).strip()
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else super().convert(value, param, ctx)
