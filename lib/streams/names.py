"""What topics of a job are called. Here, since those who only look at jobs need nothing else of a plan."""

from __future__ import annotations


def changelog_topic(job: str) -> str:
    """The topic that a job's state lies in."""
    return f"{job}-changelog"


def repartition_topic(job: str, node: str) -> str:
    """The topic through which a repartition sends its rows."""
    return f"{job}-{node}-repartition"
