"""LocalStack as a process of this machine, with two repairs that its host mode needs.

It keeps objects in a folder with a fixed name that it never removes: here they lie below TMPDIR. And hypercorn, the
server that binds only the address it was told to, is stopped from another thread, which its loop may not notice.
"""

import tempfile
from pathlib import Path
from typing import Any

import localstack.services.s3.provider as s3_provider
from localstack.runtime.main import main
from localstack.runtime.server.hypercorn import HypercornRuntimeServer

told_to_stop = HypercornRuntimeServer.shutdown


def shutdown(self: Any) -> None:
    """Stop, and wake the loop so that it hears of it."""
    told_to_stop(self)
    self.loop.call_soon_threadsafe(self.loop.stop)


s3_provider.DEFAULT_S3_TMP_DIR = str(Path(tempfile.gettempdir()) / "s3")
HypercornRuntimeServer.shutdown = shutdown
main()
