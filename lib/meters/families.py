"""Every metric that exists: its name, meaning, labels, and how many values of each label are kept.

Names follow Prometheus's advice (prometheus.io/docs/practices/naming) and OpenMetrics 1.0: base units, the unit last;
the text format adds ``_total`` to counters.
"""

from __future__ import annotations

from typing import Final

from headwater import limits
from headwater.meters.cells import COUNTS, Family

# How many values of a label a process keeps; further ones count under "other".
KEPT: Final = {
    "namespace": limits.METER_NAMESPACES_MAX,
    "topic": limits.METER_TOPICS_MAX,
    "group": limits.METER_GROUPS_MAX,
    "kind": 16,
    "object": 32,  # kinds of objects: folders of a namespace
    "outcome": 32,
}

# -- the store -------------------------------------------------------------------------------------------

STORE_REQUESTS: Final = Family(
    "headwater_store_requests",
    "counter",
    "Requests to the object store, failed ones too, as they are billed: a LIST for each 1,000 keys.",
    ("kind", "object", "outcome"),
)
STORE_SECONDS: Final = Family(
    "headwater_store_request_seconds",
    "histogram",
    "Time until the store answered one request, or it was given up.",
    ("kind",),
    "seconds",
)
STORE_RECEIVED: Final = Family(
    "headwater_store_received_bytes", "counter", "Bytes of objects read from the store.", ("object",), "bytes"
)
STORE_SENT: Final = Family(
    "headwater_store_sent_bytes", "counter", "Bytes of objects sent to the store.", ("object",), "bytes"
)
STORE_DOLLARS: Final = Family(
    "headwater_store_cost_dollars",
    "counter",
    "What the requests cost at S3 Standard's list price in us-east-1; storage and traffic are not in it.",
    ("kind",),
    "dollars",
)

# -- commits ---------------------------------------------------------------------------------------------

COMMITS: Final = Family("headwater_commits", "counter", "Manifests that this process wrote.", ("namespace",))
COMMITS_LOST: Final = Family(
    "headwater_commit_attempts_lost",
    "counter",
    "Manifests that this process sent to a slot which another one had filled: contention.",
    ("namespace",),
)
COMMIT_INTENTS: Final = Family(
    "headwater_commit_intents",
    "histogram",
    "Intents in each manifest that this process wrote, those of others included.",
    ("namespace",),
    "",
    COUNTS,
)
COMMIT_SECONDS: Final = Family(
    "headwater_commit_seconds",
    "histogram",
    "Time of an intent of this process from its call to its outcome.",
    ("namespace",),
    "seconds",
)

# -- producing and fetching ------------------------------------------------------------------------------

PRODUCED_RECORDS: Final = Family(
    "headwater_produce_records",
    "counter",
    "Records that this process appended and that were acknowledged.",
    ("namespace", "topic"),
)
PRODUCED_BYTES: Final = Family(
    "headwater_produce_bytes", "counter", "Bytes of those records, as stored.", ("namespace", "topic"), "bytes"
)
PRODUCE_SECONDS: Final = Family(
    "headwater_produce_seconds",
    "histogram",
    "Time of one append (batches for any number of partitions) from its call to its acknowledgement.",
    ("namespace",),
    "seconds",
)
FETCHED_RECORDS: Final = Family(
    "headwater_fetch_records",
    "counter",
    "Records in the chunks that this process read for its clients.",
    ("namespace", "topic"),
)
FETCHED_BYTES: Final = Family(
    "headwater_fetch_bytes", "counter", "Bytes of those chunks, as stored.", ("namespace", "topic"), "bytes"
)
FETCH_SECONDS: Final = Family(
    "headwater_fetch_seconds",
    "histogram",
    "Time to look up and read what one fetch of a partition found; waiting for new records is not in it.",
    ("namespace",),
    "seconds",
)

# -- the state, looked at when somebody asks -----------------------------------------------------------------

CHAIN_COMMIT: Final = Family(
    "headwater_chain_commit", "gauge", "The newest manifest that this process has folded.", ("namespace",)
)
CHAIN_AGE: Final = Family(
    "headwater_chain_age_seconds",
    "gauge",
    "How long ago this process last made sure that this was the newest manifest.",
    ("namespace",),
    "seconds",
)
GROUPS: Final = Family("headwater_groups", "gauge", "Consumer groups of the namespace.", ("namespace",))
GROUP_LAG: Final = Family(
    "headwater_group_lag_records",
    "gauge",
    "Offsets between what the group has committed and where readers stop, over all partitions of the topic.",
    ("namespace", "group", "topic"),
)

ALL: Final = tuple(family for family in list(globals().values()) if isinstance(family, Family))
