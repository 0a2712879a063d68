"""``headwater doctor``: what is wrong with a store, a namespace or a deployment, in plain words, and what to do."""

from headwater.doctor.findings import Finding, Level, worst

__all__ = ["Finding", "Level", "worst"]
