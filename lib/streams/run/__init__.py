"""How jobs run: as workers of a group, alone, or until what is there is done.

``await headwater.streams.run(topology, url)`` is the entry for programs, and this package has that name, too. So the
package itself can be called, whichever of the two was imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """This package, which is called as ``app.run``."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        from headwater.streams.run.app import run

        return run(*args, **settings)


sys.modules[__name__].__class__ = _Callable
