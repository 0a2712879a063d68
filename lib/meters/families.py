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
    "route": 256,  # patterns of the route tables
    "method": 16,
    "status": 8,  # 1xx to 5xx
    "api": 128,  # of Kafka's protocol
    "error": 160,  # names of Kafka's error codes
    "chore": 16,
    "what": 32,
    "streams_job": 64,  # not "job", which Prometheus says of every target
    "operator": limits.METER_OPERATORS_MAX,
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
COMMITS_HEDGED: Final = Family(
    "headwater_commits_hedged",
    "counter",
    "Manifests that this process sent twice, since the store took longer than hedge_ms to answer.",
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

# -- HTTP ------------------------------------------------------------------------------------------------

HTTP_REQUESTS: Final = Family(
    "headwater_http_requests",
    "counter",
    "Requests over HTTP by the pattern of their path and the class of the answer's status, as 2xx.",
    ("route", "method", "status"),
)
HTTP_SECONDS: Final = Family(
    "headwater_http_request_seconds",
    "histogram",
    "Time from a request over HTTP to its answer; a long poll's wait is in it.",
    ("route", "method"),
    "seconds",
)

# -- the gateway for Kafka clients ------------------------------------------------------------------------

KAFKA_REQUESTS: Final = Family(
    "headwater_kafka_requests",
    "counter",
    "Requests of Kafka clients by the answer's error, which is none if all went well; errors of single partitions are "
    "in headwater_kafka_partition_errors.",
    ("api", "error"),
)
KAFKA_SECONDS: Final = Family(
    "headwater_kafka_request_seconds",
    "histogram",
    "Time from a request of a Kafka client to its answer; the wait of a Fetch for new records is in it.",
    ("api",),
    "seconds",
)
KAFKA_PARTITION_ERRORS: Final = Family(
    "headwater_kafka_partition_errors",
    "counter",
    "Partitions in the answers to Produce and Fetch that have an error.",
    ("api", "error"),
)
KAFKA_CONNECTIONS: Final = Family("headwater_kafka_connections", "gauge", "Kafka clients that are connected.")
KAFKA_PAUSED: Final = Family(
    "headwater_kafka_paused_connections",
    "gauge",
    "Kafka clients that are not read from for now, since they or all together have sent more than they may.",
)
KAFKA_DISCONNECTS: Final = Family(
    "headwater_kafka_disconnects",
    "counter",
    "Kafka clients that the gateway let go of because of what they did, or of an error of its own; its log says why.",
)
KAFKA_RECEIVED: Final = Family(
    "headwater_kafka_received_bytes", "counter", "Bytes that Kafka clients have sent.", (), "bytes"
)
KAFKA_SENT: Final = Family(
    "headwater_kafka_sent_bytes", "counter", "Bytes of answers that were given to Kafka clients' sockets.", (), "bytes"
)
KAFKA_HELD: Final = Family(
    "headwater_kafka_held_bytes", "gauge", "Bytes of requests that are in memory until they are answered.", (), "bytes"
)
KAFKA_THROTTLE_SECONDS: Final = Family(
    "headwater_kafka_throttle_seconds",
    "histogram",
    "How long a request was held back because its client had used up its quota.",
    ("api",),
    "seconds",
)
SHELF_HITS: Final = Family(
    "headwater_kafka_shelf_hits", "counter", "Chunks that Kafka clients were sent out of memory.", ("namespace",)
)
SHELF_MISSES: Final = Family(
    "headwater_kafka_shelf_misses",
    "counter",
    "Times that a Fetch had to wait for the bucket, since what it asked for was not in memory.",
    ("namespace",),
)
SHELF_BYTES: Final = Family(
    "headwater_kafka_shelf_bytes", "gauge", "Bytes of chunks in memory for Kafka clients.", ("namespace",), "bytes"
)

# -- maintenance -----------------------------------------------------------------------------------------

MAINTAIN_ROUNDS: Final = Family(
    "headwater_maintenance_rounds",
    "counter",
    "Rounds of maintenance: rested (there was nothing to do), done, left (time was up, the next one goes on), failed "
    "(a chore did), unreadable (the namespace could not be read).",
    ("namespace", "outcome"),
)
MAINTAIN_SECONDS: Final = Family(
    "headwater_maintenance_round_seconds", "histogram", "Time of one round of maintenance.", ("namespace",), "seconds"
)
MAINTAIN_CHORES: Final = Family(
    "headwater_maintenance_chores",
    "counter",
    "Chores of maintenance that were done, by ok or the error that broke them off.",
    ("namespace", "chore", "outcome"),
)
MAINTAIN_SUCCESS: Final = Family(
    "headwater_maintenance_last_success_timestamp_seconds",
    "gauge",
    "When the last round of maintenance ended in which no chore failed, in seconds since 1970 UTC.",
    ("namespace",),
    "seconds",
)
MAINTAIN_ITEMS: Final = Family(
    "headwater_maintenance_items",
    "counter",
    "What maintenance did: files_archived, files_merged, files_compacted, objects_collected, members_expelled, …, as "
    "`headwater maintain --json` calls them.",
    ("namespace", "what"),
)
MAINTAIN_BYTES: Final = Family(
    "headwater_maintenance_bytes",
    "counter",
    "Bytes that maintenance archived (of chunks) and collected (of objects).",
    ("namespace", "what"),
    "bytes",
)

# -- jobs of stream processing -----------------------------------------------------------------------------

STREAMS_ROWS_IN: Final = Family(
    "headwater_streams_rows_in", "counter", "Rows that came into an operator.", ("namespace", "streams_job", "operator")
)
STREAMS_ROWS_OUT: Final = Family(
    "headwater_streams_rows_out", "counter", "Rows that an operator put out.", ("namespace", "streams_job", "operator")
)
STREAMS_ROWS_LATE: Final = Family(
    "headwater_streams_rows_late",
    "counter",
    "Rows that came after their window was closed, and were dropped.",
    ("namespace", "streams_job", "operator"),
)
STREAMS_BATCH_SECONDS: Final = Family(
    "headwater_streams_batch_seconds",
    "histogram",
    "Time to compute one micro-batch of a task, without its reading and its commit.",
    ("namespace", "streams_job"),
    "seconds",
)
STREAMS_COMMIT_SECONDS: Final = Family(
    "headwater_streams_commit_seconds",
    "histogram",
    "Time to commit one micro-batch, while the next one is computed.",
    ("namespace", "streams_job"),
    "seconds",
)
STREAMS_RECORDS: Final = Family(
    "headwater_streams_records", "counter", "Records that a job has read.", ("namespace", "streams_job")
)
STREAMS_LAG: Final = Family(
    "headwater_streams_lag_records",
    "gauge",
    "Offsets between what a job's tasks in this process have read and where readers stop.",
    ("namespace", "streams_job", "topic"),
)
STREAMS_WATERMARK: Final = Family(
    "headwater_streams_watermark_lag_seconds",
    "gauge",
    "How far an operator's watermark is behind the clock, in the slowest task of this process.",
    ("namespace", "streams_job", "operator"),
    "seconds",
)
STREAMS_STATE: Final = Family(
    "headwater_streams_state_bytes",
    "gauge",
    "State of an operator in this process, in memory and spilled.",
    ("namespace", "streams_job", "operator"),
    "bytes",
)
STREAMS_TASKS: Final = Family(
    "headwater_streams_tasks",
    "gauge",
    "Tasks of a job in this process: running, restoring, or standby.",
    ("namespace", "streams_job", "what"),
)
STREAMS_STARTS: Final = Family(
    "headwater_streams_task_starts",
    "counter",
    "Tasks that began in this process: at its start, as others came and left, and again after an error.",
    ("namespace", "streams_job"),
)
STREAMS_ENDS: Final = Family(
    "headwater_streams_task_ends",
    "counter",
    "Tasks that ended in this process: ok if they were given up, else by the error's name.",
    ("namespace", "streams_job", "outcome"),
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
