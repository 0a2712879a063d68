"""What a parameter of a deployed stack is: ``parameter.py STACK NAME``. Prints nothing where there is no such stack."""

from __future__ import annotations

import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def parameter_of(stack: str, name: str) -> str:
    """Its value; empty if the stack does not exist, or has no such parameter yet. Cost: 1 request."""
    try:
        (found,) = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":  # which is how CloudFormation says that there is none
            return ""
        raise
    given = {each["ParameterKey"]: each.get("ParameterValue", "") for each in found.get("Parameters", ())}
    return str(given.get(name, ""))


if __name__ == "__main__":
    try:
        print(parameter_of(*sys.argv[1:3]))
    except (BotoCoreError, ClientError) as problem:
        sys.exit(f"parameter.py: {problem}")
