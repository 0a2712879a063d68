"""LocalStack as a process of this machine, with three repairs that version 4.14 needs.

It keeps objects in a folder with a fixed name that it never removes: here they lie below TMPDIR. Hypercorn, the server
that binds only the address it was told to, is stopped from another thread, which its loop may not notice. And its
CloudFormation replaces the URL and the permissions of a function whenever the function changes: it makes them anew
under the same name, and then removes that name as the old one. On AWS they stay as they are.
"""

import tempfile
from pathlib import Path
from typing import Any

import localstack.services.s3.provider as s3_provider
from localstack.runtime.main import main
from localstack.runtime.server.hypercorn import HypercornRuntimeServer
from localstack.services.lambda_.resource_providers.aws_lambda_permission import LambdaPermissionProvider
from localstack.services.lambda_.resource_providers.aws_lambda_url import LambdaUrlProvider

told_to_stop = HypercornRuntimeServer.shutdown


def shutdown(self: Any) -> None:
    """Stop, and wake the loop so that it hears of it."""
    told_to_stop(self)
    self.loop.call_soon_threadsafe(self.loop.stop)


s3_provider.DEFAULT_S3_TMP_DIR = str(Path(tempfile.gettempdir()) / "s3")
HypercornRuntimeServer.shutdown = shutdown
for provider in (LambdaUrlProvider, LambdaPermissionProvider):
    provider.SCHEMA = {**provider.SCHEMA, "createOnlyProperties": []}
main()
