"""LocalStack as a process of this machine, with three repairs that version 4.14 needs.

It keeps objects in a folder with a fixed name that it never removes: here they lie below TMPDIR. Hypercorn, the server
that binds only the address it was told to, is stopped from another thread, which its loop may not notice. And its
CloudFormation replaces an alias and its URL whenever their function changes: it makes them anew under the same name,
and then removes that name as the old one. So no function with an alias could be deployed twice.
"""

import tempfile
from pathlib import Path
from typing import Any

import localstack.services.s3.provider as s3_provider
from localstack.runtime.main import main
from localstack.runtime.server.hypercorn import HypercornRuntimeServer
from localstack.services.cloudformation.resource_provider import OperationStatus, ProgressEvent
from localstack.services.lambda_.resource_providers.aws_lambda_permission import LambdaPermissionProvider
from localstack.services.lambda_.resource_providers.aws_lambda_url import LambdaUrlProvider
from localstack.services.lambda_.resource_providers.lambda_alias import LambdaAliasProvider

told_to_stop = HypercornRuntimeServer.shutdown


def shutdown(self: Any) -> None:
    """Stop, and wake the loop so that it hears of it."""
    told_to_stop(self)
    self.loop.call_soon_threadsafe(self.loop.stop)


def move_alias(self: Any, request: Any) -> Any:
    """Point an alias that is there at the version that the template names."""
    wanted, aliases = request.desired_state, request.aws_client_factory.lambda_
    moved = aliases.update_alias(**{name: wanted[name] for name in ("FunctionName", "Name", "FunctionVersion")})
    return ProgressEvent(
        status=OperationStatus.SUCCESS,
        resource_model={**wanted, "Id": moved["AliasArn"]},
        custom_context=request.custom_context,
    )


s3_provider.DEFAULT_S3_TMP_DIR = str(Path(tempfile.gettempdir()) / "s3")
HypercornRuntimeServer.shutdown = shutdown
LambdaAliasProvider.update = move_alias
for provider in (LambdaAliasProvider, LambdaUrlProvider, LambdaPermissionProvider):
    provider.SCHEMA = {**provider.SCHEMA, "createOnlyProperties": []}  # nothing of them makes a replacement necessary
main()
