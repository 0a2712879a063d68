"""From method and path to a route: exact segments before ``{…}`` ones, 404 and 405 told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headwater.api.messages import SLASH, HttpError, Route


@dataclass(slots=True)
class _Node:
    """A segment of paths: what may follow it, and the routes that end here, by method."""

    exact: dict[str, _Node] = field(default_factory=dict)
    any: _Node | None = None
    routes: dict[str, Route] = field(default_factory=dict)


class Router:
    """Routes, found by path. Two routes of one method and one pattern are a mistake of ours."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        for route in self.routes:
            self._add(route)

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route and the values of its ``{…}`` segments. HEAD is served by GET.

        Raises:
            HttpError: 404 for a path without a route, 405 (with ``allow``) for one that has no such method.
        """
        segments = path.split("/")[1:]
        ends = list(_ends(self._root, segments, 0))
        for node in ends:
            route = node.routes.get("GET" if method == "HEAD" else method)
            if route is not None:
                return route, _values(route, segments)
        if not ends:
            raise HttpError(404, "There is nothing at this path.")
        allowed = sorted({name for node in ends for name in node.routes})
        allow = ", ".join([*allowed, *(["HEAD"] if "GET" in allowed else [])])
        raise HttpError(405, f"This path takes {allow}.", allow=allow)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.pattern.split("/")[1:]:
            if segment.startswith("{"):
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.exact.setdefault(segment, _Node())
        assert route.method not in node.routes, f"two routes for {route.method} {route.pattern}"
        node.routes[route.method] = route


def _ends(node: _Node, segments: list[str], at: int) -> Iterable[_Node]:
    if at == len(segments):
        if node.routes:
            yield node
        return
    exact = node.exact.get(segments[at])
    if exact is not None:
        yield from _ends(exact, segments, at + 1)
    if node.any is not None:
        yield from _ends(node.any, segments, at + 1)


def _values(route: Route, segments: list[str]) -> dict[str, str]:
    pairs = zip(route.pattern.split("/")[1:], segments, strict=True)
    return {name[1:-1]: value.replace(SLASH, "/") for name, value in pairs if name.startswith("{")}
