"""The service: every verb over a namespace, for one principal, with its access rules and quotas.

    names and numbers ─► fresh enough rules ─► request quota ─► access ─► byte quota ─► the log ─► clean errors

No rule of the log lives here: what is appended, fenced, assigned or refused is the fold's to decide. What lives here
is who may ask, how much, and what they are told. The verbs lie in one module for each subject.
"""

from __future__ import annotations

from headwater.api.service_admin import AdminVerbs
from headwater.api.service_groups import GroupVerbs
from headwater.api.service_read import ReadVerbs
from headwater.api.service_staged import StagedVerbs
from headwater.api.service_topics import TopicVerbs

__all__ = ["Service"]


class Service(TopicVerbs, GroupVerbs, StagedVerbs, ReadVerbs, AdminVerbs):
    """``Verbs`` over a ``Namespace`` for one principal. See ``ServiceBase`` for how to make one.

    ``scopes`` narrow what the principal may do (an API key's; none: no narrowing). ``quotas`` are the buckets of this
    process, and without them nothing is bounded; ``host`` goes into audit records.
    """
