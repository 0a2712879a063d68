"""The console as a function with its own URL.

    # app.py of the function
    from headwater.console.function import console
    handler = console()

A browser cannot sign requests as IAM asks for, so anybody reaches the URL and must show an API key's token, which the
console keeps in a cookie: HEADWATER_AUTH of the other functions does not concern this one. All else is as in
``headwater.api.runtime``: commits end before the answer does, and nothing goes on when the process is frozen. The live
tail asks once a second and waits for nothing, so a browser that follows a topic never holds an invocation open.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from headwater.api.runtime import Function
from headwater.console.app import ConsoleApp
from headwater.console.render import check_installed

if TYPE_CHECKING:
    from headwater.store.base import ObjectStore

NAME: Final = "console"


def console(*, environment: Mapping[str, str] | None = None, store: ObjectStore | None = None) -> Function:
    """The handler of the console. Cost: its imports, now; the store and the namespace come on first use.

    ``store`` stands for the one that the environment names.

    Raises:
        HeadwaterError: Jinja is not there.
    """
    check_installed()
    given = dict(environment) if environment is not None else os.environ
    return Function(NAME, ChainMap({"HEADWATER_AUTH": "token"}, given), store, kind=ConsoleApp)
