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
    "job": limits.METER_JOBS_MAX,
    "api": limits.METER_NAMES_MAX,  # Kafka's request kinds: about 50 are answered
    "route": limits.METER_NAMES_MAX,  # patterns of paths, not paths
    "error": limits.METER_NAMES_MAX,
    "method": 16,
    "status": 64,
    "kind": 16,
    "object": 32,  # kinds of objects: folders of a namespace
    "outcome": 32,
    "reason": 32,
    "version": 4,
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
STORE_RETRIES: Final = Family(
    "headwater_store_retries",
    "counter",
    "Requests that were sent again, by the error that the one before met.",
    ("reason",),
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
    "Time of an intent of this process from being queued to its outcome.",
    ("namespace",),
    "seconds",
)
INTENTS: Final = Family(
    "headwater_intents",
    "counter",
    "Intents of this process by what became of them: ok, a refusal of the fold, or the error that ended them.",
    ("namespace", "outcome"),
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
TOPICS: Final = Family("headwater_topics", "gauge", "Topics of the namespace.", ("namespace",))
TOPIC_PARTITIONS: Final = Family(
    "headwater_topic_partitions", "gauge", "Partitions of the topic.", ("namespace", "topic")
)
TOPIC_APPENDED: Final = Family(
    "headwater_topic_appended_records",
    "counter",
    "Offsets that were given out in all partitions of the topic, whoever appended.",
    ("namespace", "topic"),
)
TOPIC_HOT: Final = Family(
    "headwater_topic_unarchived_records",
    "gauge",
    "Offsets of the topic that are not in the archive yet and not deleted.",
    ("namespace", "topic"),
)
GROUPS: Final = Family("headwater_groups", "gauge", "Consumer groups of the namespace.", ("namespace",))
GROUP_MEMBERS: Final = Family("headwater_group_members", "gauge", "Members of the group.", ("namespace", "group"))
GROUP_LAG: Final = Family(
    "headwater_group_lag_records",
    "gauge",
    "Offsets between what the group has committed and where readers stop, over all partitions of the topic.",
    ("namespace", "group", "topic"),
)

# -- HTTP ------------------------------------------------------------------------------------------------

HTTP_REQUESTS: Final = Family(
    "headwater_http_requests", "counter", "HTTP requests that were answered.", ("method", "route", "status")
)
HTTP_SECONDS: Final = Family(
    "headwater_http_request_seconds",
    "histogram",
    "Time from a whole request to its answer; a long poll's waiting is in it.",
    ("route",),
    "seconds",
)
HTTP_RECEIVED: Final = Family("headwater_http_received_bytes", "counter", "Bytes of bodies of requests.", (), "bytes")
HTTP_SENT: Final = Family("headwater_http_sent_bytes", "counter", "Bytes of bodies of answers.", (), "bytes")

# -- the Kafka gateway -----------------------------------------------------------------------------------

KAFKA_CONNECTIONS: Final = Family("headwater_kafka_connections", "gauge", "Connections that are open.")
KAFKA_ACCEPTED: Final = Family(
    "headwater_kafka_connections_accepted",
    "counter",
    "Connections that were taken, by what became of them.",
    ("outcome",),
)
KAFKA_REQUESTS: Final = Family(
    "headwater_kafka_requests",
    "counter",
    "Kafka requests by API and by the first error in the answer.",
    ("api", "error"),
)
KAFKA_SECONDS: Final = Family(
    "headwater_kafka_request_seconds",
    "histogram",
    "Time from a whole request to its answer; a fetch's waiting is in it.",
    ("api",),
    "seconds",
)
KAFKA_RECEIVED: Final = Family("headwater_kafka_received_bytes", "counter", "Bytes of requests.", (), "bytes")
KAFKA_SENT: Final = Family("headwater_kafka_sent_bytes", "counter", "Bytes of answers.", (), "bytes")
KAFKA_HELD: Final = Family(
    "headwater_kafka_held_bytes", "gauge", "Bytes of requests that are begun and not answered.", (), "bytes"
)
KAFKA_PAUSES: Final = Family(
    "headwater_kafka_pauses",
    "counter",
    "How often a socket was not read for a while because too much was held: back-pressure.",
    ("reason",),
)
KAFKA_THROTTLED: Final = Family(
    "headwater_kafka_throttle_seconds", "counter", "Time that clients were told to wait by quotas.", (), "seconds"
)
KAFKA_SHELF: Final = Family(
    "headwater_kafka_shelf_lookups", "counter", "Looks for chunks on the gateway's shelf: hit or miss.", ("outcome",)
)
KAFKA_SHELF_BYTES: Final = Family("headwater_kafka_shelf_bytes", "gauge", "Bytes on the shelf.", (), "bytes")

# -- maintenance -----------------------------------------------------------------------------------------

UPKEEP_RUNS: Final = Family(
    "headwater_maintenance_runs",
    "counter",
    "Runs of maintenance: rested (nothing to do), done, left (time was over), failed (a chore met an error).",
    ("namespace", "outcome"),
)
UPKEEP_SECONDS: Final = Family(
    "headwater_maintenance_seconds", "histogram", "Time of one run of maintenance.", ("namespace",), "seconds"
)
UPKEEP_LAST: Final = Family(
    "headwater_maintenance_last_success_timestamp_seconds",
    "gauge",
    "When a run last ended without an error, in seconds since 1970.",
    ("namespace",),
    "seconds",
)
UPKEEP_FAILURES: Final = Family(
    "headwater_maintenance_failures", "counter", "Chores that an error broke off.", ("namespace", "reason")
)
UPKEEP_DONE: Final = Family(
    "headwater_maintenance_done",
    "counter",
    "What maintenance did, in pieces: partitions trimmed, files archived, merged and compacted, objects collected, ….",
    ("namespace", "kind"),
)
ARCHIVED_BYTES: Final = Family(
    "headwater_archived_bytes", "counter", "Bytes of archive files that were written.", ("namespace",), "bytes"
)
COLLECTED_BYTES: Final = Family(
    "headwater_collected_bytes", "counter", "Bytes of dead objects that were deleted.", ("namespace",), "bytes"
)

# -- stream processing -----------------------------------------------------------------------------------

JOB_RECORDS: Final = Family("headwater_job_records", "counter", "Records that tasks of the job have read.", ("job",))
JOB_ROWS_OUT: Final = Family("headwater_job_rows_out", "counter", "Records that they have appended.", ("job",))
JOB_ROWS_LATE: Final = Family("headwater_job_rows_late", "counter", "Rows that came behind the watermark.", ("job",))
JOB_COMMITS: Final = Family("headwater_job_commits", "counter", "Micro-batches that were committed.", ("job",))
JOB_TASKS: Final = Family("headwater_job_tasks", "gauge", "Tasks of the job in this process.", ("job",))
JOB_LAG: Final = Family("headwater_job_lag_records", "gauge", "Records that its tasks have yet to read.", ("job",))
JOB_WATERMARK: Final = Family(
    "headwater_job_watermark_timestamp_seconds",
    "gauge",
    "The earliest watermark of its operators, in seconds since 1970.",
    ("job",),
    "seconds",
)
JOB_STATE_ROWS: Final = Family("headwater_job_state_rows", "gauge", "Rows of state in its operators.", ("job",))
JOB_STATE_BYTES: Final = Family("headwater_job_state_bytes", "gauge", "Bytes of state in memory.", ("job",), "bytes")
JOB_BUFFERED: Final = Family(
    "headwater_job_buffered_bytes", "gauge", "Bytes read ahead and not computed.", ("job",), "bytes"
)

# -- the process -------------------------------------------------------------------------------------------

BUILD: Final = Family("headwater_build_info", "gauge", "Always 1; the version is a label.", ("version",))

ALL: Final = tuple(family for family in list(globals().values()) if isinstance(family, Family))
