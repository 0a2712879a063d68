"""The terminal: a line of totals, what flowed in the last minutes, topics, groups. It looks at the log now and then.

While the store does not answer the last view stays, and a line says since when and why; it goes on by itself.
"""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Footer, Input, Sparkline, Static

from headwater.errors import HeadwaterError
from headwater.limits import TOP_HISTORY, TOP_ROWS_MAX
from headwater.log.namespace import Namespace
from headwater.top.text import (
    GROUP_COLUMNS,
    ORDERS,
    TOPIC_COLUMNS,
    group_cells,
    groups_in,
    headline,
    topic_cells,
    topics_in,
)
from headwater.top.view import Sample, View, sample, view_of
from headwater.words import span

BUSY_SHARE: Final = 10  # looking takes at most this part of the time, however large the namespace is


class Top(App[None]):
    """``q`` ends it; it writes nothing."""

    CSS = """
    #totals { height: 3; padding: 1 1 0 1; }
    #flow { height: 3; margin: 0 1 1 1; }
    #flow Sparkline { width: 1fr; margin: 0 1 0 0; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    #trouble { display: none; background: $error; color: $text; padding: 0 1; }
    #trouble.shown { display: block; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("p", "pause", "Pause"),
        Binding("o", "order", "Order"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "all", "All", show=False),
    ]

    def __init__(self, namespace: Namespace, *, every_s: float, where: str = "") -> None:
        super().__init__()
        self.namespace = namespace
        self.every_s = every_s
        self.where = where
        self.view_now: View | None = None
        self.paused = False
        self.order = ORDERS[0]
        self.wanted = ""
        self._samples: deque[Sample] = deque(maxlen=2)
        self._records: deque[float] = deque([0.0] * TOP_HISTORY, maxlen=TOP_HISTORY)
        self._bytes: deque[float] = deque([0.0] * TOP_HISTORY, maxlen=TOP_HISTORY)
        self._silent_since_s = 0.0

    def compose(self) -> ComposeResult:
        yield Static(id="trouble", markup=False)
        yield Static(id="totals")
        with Horizontal(id="flow"):
            yield Sparkline(list(self._records), id="records", summary_function=max)
            yield Sparkline(list(self._bytes), id="bytes", summary_function=max)
        yield Input(placeholder="Topics and groups whose name holds …", id="filter")
        for name, columns in (("topics", TOPIC_COLUMNS), ("groups", GROUP_COLUMNS)):
            table: DataTable[Text] = DataTable(id=name, cursor_type="row", zebra_stripes=True)
            table.add_columns(*columns)
            yield table
        yield Footer()

    def on_mount(self) -> None:
        self.title = self.where
        self.query_one("#topics").focus()
        self.run_worker(self._watch(), exclusive=True)

    async def _watch(self) -> None:
        clock = self.namespace.chain.clock
        while True:
            start_s = clock.elapsed_s()
            if not self.paused:
                await self.look()
            took_s = clock.elapsed_s() - start_s
            await clock.sleep(max(self.every_s - took_s, took_s * BUSY_SHARE, 0.05))

    async def look(self) -> None:
        """One look at the log, and what it changes on the screen."""
        clock = self.namespace.chain.clock
        try:
            state = await self.namespace.refresh()
        except HeadwaterError as error:
            self._trouble(error)
            return
        self._trouble(None)
        now = sample(state, clock.elapsed_s())
        self._samples.append(now)
        self.view_now = view_of(state, now, self._samples[0], now_ms=clock.wall_ms())
        self._records.append(self.view_now.overview.records_per_s)
        self._bytes.append(self.view_now.overview.bytes_per_s)
        self._show()

    def _trouble(self, error: HeadwaterError | None) -> None:
        line, now_s = self.query_one("#trouble", Static), self.namespace.chain.clock.elapsed_s()
        line.set_class(error is not None, "shown")
        if error is None:
            self._silent_since_s = now_s
            return
        line.update(f"No answer for {span(now_s - self._silent_since_s)}; trying again. {error}")

    def _show(self) -> None:
        if self.view_now is None:
            return
        pairs = headline(self.view_now.overview, self.namespace.chain.clock.wall_ms())
        totals = Text.assemble((f"{self.where}  ", "bold"), ("paused  " if self.paused else "", "reverse"))
        for name, value in pairs:
            totals.append(f"{name} ", "dim").append(f"{value}   ", "bold")
        self.query_one("#totals", Static).update(totals)
        for name, values in (("records", self._records), ("bytes", self._bytes)):
            self.query_one(f"#{name}", Sparkline).data = list(values)
        self._fill("#topics", topics_in(self.view_now, self.order, self.wanted), topic_cells)
        self._fill("#groups", groups_in(self.view_now, self.order, self.wanted), group_cells)

    def _fill(self, which: str, rows: list[Any], cells: Any) -> None:
        table: DataTable[Text] = self.query_one(which, DataTable)
        at, top = table.cursor_row, table.scroll_y
        table.clear()
        for row in rows[:TOP_ROWS_MAX]:
            first, *rest = cells(row)
            table.add_row(Text(first), *(Text(cell, justify="right") for cell in rest))
        if len(rows) > TOP_ROWS_MAX:
            table.add_row(Text(f"… and {len(rows) - TOP_ROWS_MAX:,} more: filter by name", style="dim"))
        table.move_cursor(row=min(at, max(0, table.row_count - 1)), animate=False)
        table.scroll_to(y=top, animate=False)

    # -- keys --------------------------------------------------------------------------------------------

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self.paused = not self.paused
        self._show()

    def action_order(self) -> None:
        """The next order of rows."""
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self.notify(f"By {self.order}")
        self._show()

    def action_filter(self) -> None:
        """Type part of a name."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.focus()

    def action_all(self) -> None:
        """Everything again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.remove_class("shown")
        self.query_one("#topics").focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as the name is typed."""
        self.wanted = event.value.strip()
        self._show()

    def on_input_submitted(self) -> None:
        """Back to the rows."""
        self.query_one("#topics").focus()
