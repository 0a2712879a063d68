"""The function ``console``: pages for people, by API key; see ``headwater.console``."""

from headwater.console.function import console

handler = console()
