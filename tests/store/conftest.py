"""The stores' own tests run without the machine's AWS settings, as the contract's do."""

from __future__ import annotations

from tests.contract.conftest import aws_environment

__all__ = ["aws_environment"]
