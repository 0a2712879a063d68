"""How a job fails: errors that name the operator and the task, and say where the job will go on."""

from __future__ import annotations

from headwater.errors import HeadwaterError


class OperatorFailed(HeadwaterError):
    """An operator could not take its input. Nothing of this micro-batch was committed."""

    what_now = (
        "The job resumes at its committed offsets. Correct the function or the data, or give the topology a "
        "dead-letter topic (dead_letters=…), which takes the records that a function refuses."
    )


class IncompatibleTopology(HeadwaterError):
    """The state that a job has left cannot serve this topology. Nothing was changed."""

    status = 409
    what_now = (
        "Give the changed operator a new name, which starts with an empty state; or start a new job, "
        "or `headwater streams reset` this one."
    )
