"""Open namespaces of this process. Spark calls one method here and the next one there; opening takes a few requests.

Spark keeps its Python workers for task after task, so a namespace that was opened once serves them all. Workers are
forked before they load this, and whoever forks later finds another process id and opens anew.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Final

from headwater.limits import SPARK_SESSIONS_MAX
from headwater.replay.session import Session

_Key = tuple[int, str, str]
_OPEN: Final[OrderedDict[_Key, Session]] = OrderedDict()


def session(url: str, namespace: str) -> Session:
    """The open namespace, for any number of callers. What the store refuses is raised. Cost: once, an opening."""
    key = (os.getpid(), url, namespace)
    found = _OPEN.get(key)
    if found is None:
        found = _OPEN[key] = Session(url, namespace)
        while len(_OPEN) > SPARK_SESSIONS_MAX:
            _OPEN.popitem(last=False)  # it ends when nobody holds it
    _OPEN.move_to_end(key)
    return found
