"""A topology as a picture: sub-topologies as boxes, data flowing from top to bottom. Plain SVG, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from headwater.streams.cards import Card

WIDTH: Final = 210
HEIGHT: Final = 54
GAP_X: Final = 28
GAP_Y: Final = 44
MARGIN: Final = 28
LANE: Final = 24  # beside the boxes, for edges that pass some
NOTE_MAX: Final = 34

STYLE: Final = """
  .page { fill: #ffffff } .stage { fill: #f6f7f9; stroke: #d5d9e0 } .edge { stroke: #7b8494; fill: none }
  .tip { fill: #7b8494 } .node { fill: #ffffff; stroke: #9aa3b2 } .topic { fill: #e3f0ff; stroke: #4a90d9 }
  .state { fill: #fff4e0; stroke: #d99a2b } text { font: 12px system-ui, sans-serif; fill: #1d2430 }
  .kind { font-size: 10px; fill: #667085 } .note { font-size: 10px; fill: #667085 } .title { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #14171c } .stage { fill: #1b2027; stroke: #343c48 } .edge { stroke: #8a94a6 }
    .tip { fill: #8a94a6 } .node { fill: #232a33; stroke: #5b6678 } .topic { fill: #16304d; stroke: #4a90d9 }
    .state { fill: #3a2d14; stroke: #d99a2b } text { fill: #e6e9ee } .kind, .note { fill: #9aa5b5 }
  }
"""


@dataclass(frozen=True, slots=True)
class Box:
    """Where a node is drawn: its centre at the top."""

    x: float
    y: float


def drawn(job: str, cards: Sequence[Card], *, styled: bool = True) -> str:
    """The picture as a document of its own; not ``styled``, as a part of a page that has the styles.

    Parents come before those that read them. Every text is escaped, wherever ``cards`` come from.
    """
    nodes = {card.name: card for card in cards}
    rows = _rows(nodes)
    places = _placed(rows, nodes)
    around = [(parent, card.name) for card in cards for parent in card.parents
              if _is_hidden(places[parent], places[card.name], places.values())]  # fmt: skip
    width = max(len(row) for row in rows) * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN + (LANE if around else 0)
    height = len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN + 24
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    label = f'role="img" aria-label="Topology of job {escape(job)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>',
        *([f"<style>{STYLE}</style>"] if styled else []),
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="title" x="{MARGIN}" y="20">{escape(job)}</text>',
    ]
    stages = sorted({card.stage for card in cards})
    parts += [_stage([card.name for card in cards if card.stage == stage], places) for stage in stages]
    for card in cards:
        for parent in card.parents:
            drawn_as = _lane if (parent, card.name) in around else _edge
            parts.append(drawn_as(places[parent], places[card.name]))
    parts += [_node(card, places[card.name]) for card in cards]
    return "\n".join([*parts, "</svg>", ""])


def _rows(nodes: Mapping[str, Card]) -> list[list[str]]:
    """Nodes by their longest way from a source."""
    depth: dict[str, int] = {}
    for name, node in nodes.items():
        depth[name] = max((depth[parent] + 1 for parent in node.parents), default=0)
    # A table is drawn just above what it joins, not far up among the sources.
    for name, node in nodes.items():
        if node.is_source:
            below = [depth[child] for child, other in nodes.items() if name in other.parents]
            depth[name] = min(below, default=1) - 1
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in nodes:
        rows[depth[name]].append(name)
    return rows


def _placed(rows: Sequence[Sequence[str]], nodes: Mapping[str, Card]) -> dict[str, Box]:
    """Each node as near to the middle of its parents as its neighbours allow."""
    places: dict[str, Box] = {}
    widest = max(len(row) for row in rows)
    for number, row in enumerate(rows):
        wanted = {name: _middle(name, nodes, places, widest) for name in row}
        ordered = sorted(row, key=lambda name: wanted[name])
        xs: list[float] = []
        for name in ordered:
            low = xs[-1] + WIDTH + GAP_X if xs else MARGIN + WIDTH / 2
            xs.append(max(low, wanted[name]))
        over = (xs[-1] + WIDTH / 2) - (MARGIN + widest * (WIDTH + GAP_X) - GAP_X)
        shift = max(0.0, over)
        for at, name in enumerate(ordered):
            floor = MARGIN + WIDTH / 2 + at * (WIDTH + GAP_X)
            places[name] = Box(max(floor, xs[at] - shift), MARGIN + 16 + number * (HEIGHT + GAP_Y))
    return places


def _middle(name: str, nodes: Mapping[str, Card], places: Mapping[str, Box], widest: int) -> float:
    known = [places[parent].x for parent in nodes[name].parents if parent in places]
    return sum(known) / len(known) if known else MARGIN + WIDTH / 2


def _stage(names: Sequence[str], places: Mapping[str, Box]) -> str:
    left = min(places[name].x for name in names) - WIDTH / 2 - 10
    right = max(places[name].x for name in names) + WIDTH / 2 + 10
    top = min(places[name].y for name in names) - 10
    bottom = max(places[name].y for name in names) + HEIGHT + 10
    return (
        f'<rect class="stage" x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" '
        f'height="{bottom - top:.0f}" rx="10"/>'
    )


def _edge(parent: Box, child: Box) -> str:
    top, bottom = parent.y + HEIGHT, child.y
    middle = (top + bottom) / 2
    path = f"M {parent.x:.0f} {top:.0f} C {parent.x:.0f} {middle:.0f} {child.x:.0f} {middle:.0f} "
    tip = f"{child.x - 4:.0f},{bottom - 7:.0f} {child.x + 4:.0f},{bottom - 7:.0f} {child.x:.0f},{bottom:.0f}"
    return f'<path class="edge" d="{path}{child.x:.0f} {bottom - 6:.0f}"/><polygon class="tip" points="{tip}"/>'


def _is_hidden(parent: Box, child: Box, boxes: Iterable[Box]) -> bool:
    """Whether a straight edge would run behind boxes of the rows between."""
    between = (box for box in boxes if parent.y < box.y < child.y)
    return any(
        min(parent.x, child.x) - WIDTH / 2 < box.x < max(parent.x, child.x) + WIDTH / 2
        and abs(box.x - (parent.x + (child.x - parent.x) * (box.y - parent.y) / (child.y - parent.y))) < WIDTH / 2
        for box in between
    )


def _lane(parent: Box, child: Box) -> str:
    """An edge that leaves and comes in at the right, so that it is seen beside what lies between."""
    top, bottom = parent.y + HEIGHT / 2, child.y + HEIGHT / 2
    begin, end = parent.x + WIDTH / 2, child.x + WIDTH / 2
    lane = max(begin, end) + LANE
    path = f"M {begin:.0f} {top:.0f} C {lane:.0f} {top:.0f} {lane:.0f} {top:.0f} {lane:.0f} {top + LANE:.0f} "
    path += f"V {bottom - LANE:.0f} C {lane:.0f} {bottom:.0f} {lane:.0f} {bottom:.0f} {end + 6:.0f} {bottom:.0f}"
    tip = f"{end + 7:.0f},{bottom - 4:.0f} {end + 7:.0f},{bottom + 4:.0f} {end:.0f},{bottom:.0f}"
    return f'<path class="edge" d="{path}"/><polygon class="tip" points="{tip}"/>'


def _node(card: Card, box: Box) -> str:
    radius = HEIGHT / 2 if card.shape == "topic" else 6
    left = box.x - WIDTH / 2
    shape = f'x="{left:.0f}" y="{box.y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="{radius:.0f}"'
    lines = [
        f'<g><title>{escape(_tooltip(card))}</title><rect class="{escape(card.shape)}" {shape}/>',
        _line("kind", box, 15, card.kind),
        _line("title", box, 30, card.name),
    ]
    if card.note:
        lines.append(_line("note", box, 45, card.note))
    return "".join([*lines, "</g>"])


def _line(css: str, box: Box, down: int, text: str) -> str:
    short = text if len(text) <= NOTE_MAX else text[: NOTE_MAX - 1] + "…"
    return f'<text class="{css}" x="{box.x:.0f}" y="{box.y + down:.0f}" text-anchor="middle">{escape(short)}</text>'


def _tooltip(card: Card) -> str:
    columns = "\n".join(f"{name}: {dtype}" for name, dtype in card.columns)
    return f"{card.kind} {card.name}\n{card.note}\n{columns}"
