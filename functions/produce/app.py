"""The function ``produce``; see ``headwater.api.routes`` for what it serves."""

from headwater.api.runtime import function

handler = function("produce")
