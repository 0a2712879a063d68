"""Every bound of the system, with its unit and its reason.

Units come last in a name; ``_max`` is the greatest value that is still allowed.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# -- records and batches ------------------------------------------------------------------------

RECORD_BYTES_MAX = 8 * MIB  # one record, key and value and headers; larger things belong in objects of their own
BATCH_BYTES_MAX = 16 * MIB  # one record batch as stored; a reader holds at least one of these
BATCH_RECORDS_MAX = 1 << 20  # a batch is decoded as a whole, so its record count is bounded too
SMALL_RECORDS_MAX = 64  # built without Arrow: at about 2 us each, against 110 to 180 ms of CPU for importing pyarrow
SMALL_BYTES_MAX = MIB  # … and of at most so many bytes: larger ones are worth compressing

# -- objects -------------------------------------------------------------------------------------

SNAPSHOT_PLAIN_MAX = MIB  # a larger state is compressed
STATE_BYTES_MAX = 1024 * MIB  # a state as JSON; at 64 MiB compressed it ends anyway
OBJECT_BYTES_MAX = 64 * MIB  # any object that we write: one PUT, never multipart, so one answer decides it
SEGMENT_BYTES_TARGET = 8 * MIB  # a writer closes a segment here: large enough to amortise a PUT, small enough to retry
INLINE_BYTES_MAX = 512 * KIB  # payload that rides in a manifest; every tailing process downloads it
HEADER_BYTES_MAX = 16 * MIB  # the JSON line of an object; a longer one is refused before it is parsed
MANIFEST_BYTES_MAX = 4 * MIB  # header and inline payload: bounds the memory of catching up
MANIFEST_INTENTS_MAX = 4_096  # intents in one manifest; the rest waits for the next one
INTENT_BYTES_MAX = 2 * MIB  # an intent as JSON, without its records: several must fit a manifest
INTENT_APPENDS_MAX = 10_000  # appends of one intent: a transaction over 10,000 partitions
INTENT_OPS_MAX = 10_000  # other operations of one intent
PAYLOAD_ALIGN = 64  # payloads start on a multiple of this, as Arrow likes its buffers

# -- the commit protocol ---------------------------------------------------------------------------

WINDOW = 512  # R4: an intent made at tip t is void in manifests above t + WINDOW; also the memory of intent ids (R3)
SNAPSHOT_EVERY = 256  # manifests between snapshots
SNAPSHOT_BYTES = 32 * MIB  # … or manifest bytes between snapshots: bounds what a cold start downloads
STALE_AFTER_S = 3_600.0  # R5: knowledge of the tip older than this is checked against the boundary
MANIFEST_KEEP_S = 86_400.0  # R5: a manifest younger than this is never deleted; must exceed STALE_AFTER_S by far
CATCH_UP_PARALLEL_MAX = 16  # manifests fetched at once during catch-up
CATCH_UP_AHEAD_MAX = 256  # … and ahead of one that is slow to come
COMMIT_TIMEOUT_S = 120.0  # after this a commit that is still undecided is reported as Indeterminate
STORE_RETRY_S = 60.0  # how long reads and unconditional writes are retried against a silent or throttling store
BACKOFF_MS_MIN = 20
BACKOFF_MS_MAX = 5_000

# -- the state ---------------------------------------------------------------------------------------

TOPIC_NAME_MAX = 249  # as in Kafka
PARTITIONS_MAX = 100_000  # partitions of one namespace
PARTITION_MAX = 10_000  # partitions of one topic
PRODUCER_BATCHES = 5  # sequences remembered for each producer and partition, as in Kafka
PRODUCERS_MAX = 100_000  # producers remembered; the one idle longest goes first
PRODUCER_IDLE_MS = 7 * 86_400_000  # a producer silent for this long is forgotten (Kafka: producer.id.expiration.ms)
METADATA_BYTES_MAX = 4_096  # metadata string of a committed offset, as in Kafka
NAME_BYTES_MAX = 512  # group names, transactional ids, principals
SUBSCRIBED_MAX = 10_000  # topics that one group member subscribes to
MEMBERS_MAX = 1_000  # members of one group: the fold computes an assignment for all of them at once
OFFSETS_RETENTION_MS = 7 * 86_400_000  # offsets of a group without members are kept this long, as in Kafka
SESSION_MS_MIN, SESSION_MS_MAX = 6_000, 1_800_000  # Kafka: group.min/max.session.timeout.ms
SESSION_MS = 45_000  # a member's session where it does not say (session.timeout.ms)
REBALANCE_MS = 300_000  # how long a member may hold on to what it is to release, likewise (max.poll.interval.ms)
HEARTBEAT_MS = 15_000  # a lease is renewed this often: 4 PUTs a minute, three tries in a session of 45 s
HEARTBEAT_FLUX_MS = 1_000  # … but who waits for a partition, or is to give one up, asks this often: 1 GET each
GROUP_POLL_MS_MIN, GROUP_POLL_MS_MAX = 50, 1_000  # pauses of a classic member that waits for others: 1 GET each
GROUP_BURY_S = 5.0  # whoever describes a group looks for dead members at most this often: 1 LIST
LEASE_ORPHAN_MS = SESSION_MS_MAX + 3_600_000  # a lease of no member is deleted at this age: no joiner is that slow
LEASES_KNOWN_MAX = 10_000  # members whose last renewal one process remembers; others cost it a HEAD
SHARE_DELIVERIES_MAX = 10  # of one record to a share group (Kafka: group.share.max.delivery.count.limit)
SHARE_SPANS_MAX = 4_096  # runs of offsets of one share-partition that the state tells apart, 20 bytes each
SHARE_LEASE_MS = 15_000  # a process that hands out records is gone when its lease is this old, and others go on …
SHARE_LEASE_SAFE = 0.8  # … so it stops at this part of it: stores stamp objects by the second
SHARE_LOOK_S = 5.0  # a process looks this often whether another one that holds records lives: 1 HEAD
SHARE_TICK_S = 2.5  # locks whose time is up reach the log this late, and leases are renewed at every other tick
SHARE_STOP_S = 10.0  # a process that ends tries for so long to give back what it holds; then its lease tells others
SHARE_IDLE_S = 10.0  # records that nobody has asked for this long are given back: 1 commit
SHARE_CLAIM_MIN = 100  # offsets that one claim takes at least, if there are as many: less is a commit a record
GROUP_CONFIGS_MAX = 10_000  # groups with configs of their own
SCHEMA_BYTES_MAX = 64 * KIB  # a topic schema as it was given
SCHEMAS_MAX = 100  # versions of one topic's schema; all are kept, since old values are written by old ones
COLUMNS_MAX = 1_000  # typed columns of one topic
COLUMN_TYPE_MAX = 65_536  # characters of a column's type, all its fields in it
COLUMN_DEPTH_MAX = 16  # types inside one another in one column: far below what Arrow's and our recursion bear
COLUMN_FIELDS_MAX = 10_000  # fields of one column at all depths: each is a column of the archive's files
FILES_MAX = 256  # files of one partition that the state lists itself; older ones are listed by pages
FILE_PAGES_MAX = 4_096  # such pages of one partition: at 4,096 files each, 16 million files
ACLS_MAX = 10_000  # rules of one namespace; each request looks through those of its resource type
KEYS_MAX = 10_000  # API keys of one namespace
SCRAM_USERS_MAX = 10_000  # users of one namespace with a password for SCRAM
QUOTAS_MAX = 10_000  # principals with a quota of their own
ONCE_MAX = 16_384  # idempotency keys remembered, the newest ones; about 100 bytes each in a snapshot
ONCE_KEEP_MS = 3_600_000  # … and for this long; in any case for WINDOW manifests
DELETE_KEYS = 1_000  # objects deleted by one request, as many as S3 takes
DELETES_MAX = 4  # such requests at once
COLLECT_EVERY_MS = 3_600_000  # a namespace is swept at most this often: a sweep lists everything
COLLECT_GRACE_MS = 3 * 86_400_000 + 4 * COLLECT_EVERY_MS  # beyond history.retention.ms, until what is dead is deleted
INDEX_FANOUT = 8  # index pages of one level that are merged into one page of the next
INDEX_PAGE_ENTRIES_MAX = 1 << 18  # a page this large is merged no further
HISTORY_STATES_MAX = 4  # past states kept, for readers that go through the log as of one commit
HISTORY_FOLD_MAX = 8_192  # manifests folded for a past state; snapshots lie SNAPSHOT_EVERY apart while they are kept

# -- memory ------------------------------------------------------------------------------------------

CATCH_UP_BYTES_MAX = 64 * MIB  # manifests in flight while catching up; a quarter more may wait for an earlier one
INLINE_CACHE_BYTES = 32 * MIB  # manifests with payload that were just folded, kept for readers
READ_AHEAD_BYTES_MAX = 64 * MIB  # chunks in flight for one reader
WRITE_BUFFER_BYTES_MAX = 64 * MIB  # bytes that a writer holds before append() waits
ARCHIVE_MEMORY_BYTES = 384 * MIB  # chunks and files of one archiver on their way: two files of the largest size
COMPACT_MEMORY_BYTES = 128 * MIB  # keys whose latest offsets are kept at once (log.cleaner.dedupe.buffer.size)
PUBLISHED_MAX = 3  # segments of intents that one writer has published and nobody has committed
HEDGE_STRAGGLERS_MAX = 4  # slower sendings of manifests that are decided: with so many, none is sent twice
UPLOADS_MAX = 8  # segments uploading at once from one writer
READS_MAX = 16  # range requests in flight for one reader

# -- HTTP ----------------------------------------------------------------------------------------------

FRAME_HEADER_BYTES_MAX = 4 * MIB  # the header of a frame: 10,000 batches of 300 bytes of JSON
HTTP_BODY_BYTES_MAX = 32 * MIB  # a request's body, also once decompressed: two batches of the largest size
HTTP_BODIES_BYTES_MAX = 256 * MIB  # bodies that the development server holds at once; others come back later
HTTP_PATH_BYTES_MAX = 8 * KIB  # path and query as sent, each
HTTP_QUERY_FIELDS_MAX = 32  # no route knows more than ten
HTTP_COMPRESS_BYTES_MIN = KIB  # a smaller answer fits one packet anyway
HTTP_WAIT_MS_MAX = 30_000  # one long poll; proxies on the way cut connections that are silent for a minute
HTTP_FETCH_BYTES_MAX = 64 * MIB  # what one fetch may ask for
ANSWER_BYTES_MAX = 4_500_000  # a function's answer may have 6 MiB, and base64 makes four bytes of three
NAMESPACES_LISTED_MAX = 1_000  # namespaces that one run of maintenance finds by a pattern: 1 LIST each
NAMESPACES_OPEN_MAX = 64  # namespaces that one serving process keeps warm
HTTP_HEADER_BYTES_MAX = 16 * KIB  # one header line of a request to the development server
HTTP_SLOW_S = 30.0  # a client of the development server that sends nothing for this long is let go

# -- transactions of several requests, and uploads -----------------------------------------------------

DOCUMENT_BYTES_MAX = 4 * MIB  # a document as JSON: the intent that it becomes has at most INTENT_BYTES_MAX
DEFERRED_KEEP_MS = 8 * 86_400_000  # … a Kafka producer's after more than PRODUCER_IDLE_MS: nobody comes back to it then
DOCUMENT_KEEP_MS = 86_400_000  # a document untouched for so long is swept, open or not: its bytes are collectable too
TRANSACTION_MS_MAX = 900_000  # Kafka: transaction.max.timeout.ms; far below the day after which staged bytes may go
RESERVING_TRIES_MAX = 3  # how often a transaction's step is tried that others of its producer overtook
SURELY_TRIES_MAX = 3  # how often the outcome of a commit is asked for before its caller hears that it is unknown
TRANSACTION_OFFSETS_MAX = 10_000  # offsets that one transaction moves: they are kept in the state until it ends
TRANSACTION_ADDS_MAX = 10_000  # requests that add to one transaction; each leaves its id, so none counts twice
UPLOAD_MS = 3_600_000  # from the presigned PUT to its commit; afterwards the bytes belong to the collector
PRESIGN_S = 900  # a presigned URL is good for this long: time for 64 MiB at 80 KiB/s, and not for much else
SWEEP_MAX = 1_000  # old documents deleted by one sweep

# -- authentication --------------------------------------------------------------------------------------

AUTH_FRESH_S = 5.0  # a revoked API key stops working within this time, also in a process that is otherwise idle
AUTH_RETRY_S = 2.0  # refused credentials make a process look for new keys at most this often
AUTH_HEADER_BYTES_MAX = 4 * KIB  # an Authorization header; a longer one is refused unread
SIGV4_SKEW_S = 300.0  # between the clock of who signed and ours, as for AWS
SIGV4_SEEN_MAX = 1 << 18  # signatures remembered against replay, about 40 MB: 400 changes a second

# -- the service ---------------------------------------------------------------------------------------

ACCESS_STALE_S = 30.0  # access rules, keys and quotas are not trusted for longer without a look at the tip
AUDIT_RETENTION_MS = 90 * 86_400_000  # records of administration are kept this long
CONFIGS_MAX = 100  # configs of one topic
CONFIG_BYTES_MAX = 4_096  # one config's value
SCOPES_MAX = 100  # rules that narrow one API key
QUOTA_BURST_S = 1.0  # what a principal may have saved up, in seconds of its rate
QUOTA_BUCKETS_MAX = 10_000  # token buckets that one process keeps; full ones, which say nothing, go first
QUOTA_WAIT_MS_MAX = 3_600_000  # the longest time to come back after that a refusal names
RANGES_MAX = 1_000  # presigned URLs in one answer; each takes a signature and about 600 bytes
FETCH_WAIT_MS_MAX = 300_000  # a longer long poll is cut to this; edges cut it shorter

# -- consumer instances of the REST dialect ---------------------------------------------------------------

CONSUMER_IDLE_MS = 300_000  # an instance that nobody asked for this long is gone (consumer.instance.timeout.ms)
CONSUMER_TOUCH_MS = 60_000  # an empty poll notes this often that it was there: 1 PUT a minute
CONSUMER_SESSION_MS = 300_000  # … and as long it holds its partitions between polls, as max.poll.interval.ms has it
CONSUMER_WAIT_MS = 1_000  # a poll that names no timeout, of an instance that names none (consumer.request.timeout.ms)
CONSUMER_PLACES_MAX = 10_000  # partitions of one instance: its document stays below a MiB
CONSUMER_READS_MAX = 4  # partitions that one poll reads at once; they share what its answer may hold
CONSUMER_READ_BYTES_MIN = 64 * KIB  # … but each of them is worth a read for at least so much
CONSUMER_CHANGES_KEPT = 64  # ids of an instance's last changes, for whoever lost an answer: a KiB of its document
CONSUMER_TRIES_MAX = 8  # how often a poll begins anew because another one moved the instance
PATTERN_CHARS_MAX = 4_096  # a topic pattern: a list of names, as often as not

# -- clients ----------------------------------------------------------------------------------------------

CLIENT_REQUEST_BYTES_MAX = 4 * MIB  # one request to a service: a function takes 6 MB, of which base64 leaves 4.5
CLIENT_DIRECT_BYTES_MAX = 32 * MIB  # one append straight to a bucket: half of the writer's buffer
CLIENT_ANSWER_BYTES_MAX = 4 * HTTP_BODY_BYTES_MAX  # far above what a service answers; a wrong one must not fill us
CLIENT_TRIES_MAX = 6  # of one HTTP request; callers with a deadline of their own go on after that
CLIENT_FETCHES_MAX = 32  # fetches at once of one consumer; with more partitions than this they take turns
CLIENT_ROWS_MAX = 1 << 18  # rows of a table that a producer puts into one batch
CLIENT_KEYS_CACHED_MAX = 1 << 14  # keys of one topic whose partition a producer remembers
CLIENT_UNSEEN_MAX = 1_024  # failures that nobody has looked at and that a producer's flush remembers
CLIENT_METADATA_AGE_S = 300.0  # a producer looks a topic up again after this, as in Kafka
CLIENT_BLOCK_S = 60.0  # how long a send waits to learn of its topic from a silent or throttling service (max.block.ms)
CLIENT_COMMIT_S = 60.0  # how long a consumer tries to commit offsets against a silent or throttling service

# -- replay ------------------------------------------------------------------------------------------------

REPLAY_BYTES = 256 * MIB  # what one replay holds of decoded records and bytes on their way, if nobody says otherwise
REPLAY_BYTES_MIN = MIB  # less than this holds no record of the largest size
REPLAY_PIECE_BYTES = 24 * MIB  # row groups that are decoded at once: few enough to stay in a processor's cache
REPLAY_PART_BYTES = 16 * MIB  # ranges of a file that is read whole, fetched side by side
REPLAY_PIECES_MAX = 32  # row groups of one replay that are read or decoded at once
REPLAY_FILES_AHEAD = 8  # files whose footers are read ahead of their records
REPLAY_HOLE_BYTES = 128 * KIB  # bytes between two wanted ranges that cost less to read than one more request
REPLAY_WHOLE_BYTES = MIB  # a file up to this is read by one request, footer and all
REPLAY_HOT_BYTES = 8 * MIB  # chunks of the hot tail that one step of a replay fetches

# -- tables of others --------------------------------------------------------------------------------------

ICEBERG_FILES_MAX = 1_000  # files that one Iceberg snapshot adds, each described in about 5 KB; swaps stay together
ICEBERG_FOOTERS_MAX = 32  # footers of files read at once
ICEBERG_EXPIRED_MIN = 100  # snapshots that are too old before they are dropped, which is a commit of the table
ICEBERG_TRIES_MAX = 10  # how often a sync looks again because another one changed the table first
EXPORT_PART_OFFSETS = 1 << 20  # offsets of one file of an export into a folder; what an interruption costs at most
COPY_BYTES = 8 * MIB  # records that one transaction of a replay into a topic carries, before compression
COPY_TRIES_MAX = 5  # how often it asks for the outcome of a commit that the store did not answer

# -- stream processing ---------------------------------------------------------------------------------

STREAMS_BATCH_BYTES = 4 * MIB  # stored bytes that one micro-batch of a task takes; decoded a few times as much
STREAMS_BATCH_RECORDS = 1 << 18  # … and records: a step of 250,000 rows lasts about as long as a commit
STREAMS_LANE_BYTES = 8 * MIB  # read ahead of one partition: two micro-batches, so that reading hides behind computing
STREAMS_BUFFER_BYTES = 64 * MIB  # … and of all partitions of one worker; each may hold one chunk in any case
STREAMS_APPEND_BYTES = 8 * MIB  # rows of one appended batch before compression: half of what a batch may take
STREAMS_WAITING_ROWS = 1 << 21  # rows that a window holds before it sums them up: 100 MB of most
STREAMS_FRAME_BYTES = 4 * MIB  # of one frame in a record before compression: half of what a record may take
STREAMS_CHANGELOG_BYTES_MIN = 8 * MIB  # deltas outweigh a smaller snapshot only from here on: restore reads so much
STREAMS_CHANGELOG_COMMIT_BYTES = 16 * KIB  # a commit's deltas weigh at least this: restore pays a GET for each
STREAMS_SNAPSHOT_BYTES = 32 * MIB  # pieces of a snapshot that one intent carries: what a snapshot holds in memory
STREAMS_TRIM_BYTES = 8 * MIB  # consumed bytes of a repartition topic that one trim takes away
STREAMS_TICK_MS = 1_000  # wall-clock timers and silent partitions are looked after this often
STREAMS_POLL_MS = 10_000  # one long poll of a task for new records: at rest 1 GET a second for the whole worker
STREAMS_RECENT_ROWS_MIN = 1 << 16  # rows of a store that are put before they are merged into its pages
STREAMS_RESTORE_ROWS = 1 << 20  # … and that are restored first if memory has no bound: they are sorted once
STREAMS_PAGES_MIN = 16  # pages that a store's memory holds at least: what one page goes above its bound
STREAMS_PAGE_BYTES_MIN = 64 * KIB  # a page is not cut below this: a file a page, read and written at once
STREAMS_PAIRS_MAX = 1 << 20  # pairs that a join of streams puts out in one frame, so that a hot key costs no memory
STREAMS_LEVEL_ROWS_MIN = 1 << 15  # rows: smaller levels of a buffer are copied, since a search of one takes 1 ms
STREAMS_LEVELS_MAX = 4  # levels of a buffer of about one size, which then become one; each more to search takes 1 ms
STREAMS_QUERY_ROWS_MAX = 100_000  # rows of one answer to an interactive query
STREAMS_STEPS_MAX = 8  # steps that one worker computes at once: each holds a decoded micro-batch
STREAMS_TIMER_CALLS_MAX = 1_000  # calls of one event-time timer in one step: time may jump by years
STREAMS_STATE_PIECE_ROWS = 1 << 16  # rows of a processor's state in one piece of a snapshot
STREAMS_TOLD_MS = 10_000  # a task tells its figures in its own state so often at most: some 60 bytes an operator
STREAMS_FIGURES_BYTES = 8 * KIB  # … of one task: a hundred operators; they are in every snapshot of the state
STREAMS_PICTURE_BYTES = 64 * KIB  # of a job's topology, told once: some hundreds of nodes
STREAMS_STANDBYS_MAX = 8  # standby copies of one task; each costs the memory of its state
DEMO_LOOK_S = 0.2  # how often the demonstration's bars look at how far a job has come: 5 times a second looks smooth
DEMO_RUNS_MAX = 8  # runs of one job of the demonstration: the second or third finds nothing left to do

# -- Spark -----------------------------------------------------------------------------------------------

SPARK_SPLIT_RECORDS = 500_000  # records of one task: at 5 M records/s little beside what Spark spends on a task
SPARK_SPLITS_MAX = 10_000  # tasks of one scan or micro-batch; with more records each takes more of them
SPARK_SESSIONS_MAX = 8  # namespaces that one Python worker of Spark holds open
SPARK_READ_BYTES = 64 * MIB  # records that one task holds: a machine runs as many tasks as it has cores
SPARK_STAGE_BYTES = 16 * MIB  # rows that a writing task gathers before it stores them: what it holds in memory
SPARK_CHUNK_BYTES = 8 * MIB  # rows of one batch before compression: half of what a batch may take
SPARK_COMMIT_TRIES_MAX = 5  # how often a commit is asked for its outcome, or meets another writer of the same stream

# -- the Kafka gateway -----------------------------------------------------------------------------------

KAFKA_FRAME_BYTES_MAX = 100 * MIB  # one request, as in Kafka (socket.request.max.bytes)
KAFKA_READ_BYTES = 64 * KIB  # what one read of a socket takes at most, unless a larger frame is on its way
KAFKA_PIPELINE_MAX = 64  # requests of one connection that are begun and not answered; then its socket is not read
KAFKA_HELD_BYTES_MAX = 512 * MIB  # requests of all connections in memory; then no socket is read for a while
KAFKA_LINGER_MS = 25.0  # a commit waits so long for batches of other clients: less is more requests to the store
KAFKA_LINGER_MS_MAX = 250.0  # beyond that, waiting costs more than a request saves
KAFKA_HEDGE_MS_MAX = 10_000.0  # a PUT that takes longer than this is no slow one but a lost one
KAFKA_CACHE_BYTES = 256 * MIB  # chunks as clients get them, so that the bucket sends each byte once a gateway
KAFKA_READ_AHEAD_BYTES = 8 * MIB  # what one miss reads of a partition: 1 request to the store for many fetches
KAFKA_FETCH_BYTES_MAX = 64 * MIB  # records of one answer, whatever the client asks for
KAFKA_FETCH_AHEAD_BYTES = 64 * MIB  # what one Fetch reads of its partitions at once, with what is read ahead …
KAFKA_FETCH_READS_MAX = 256  # … of at most so many of them
KAFKA_HELD_BACK_S = 10.0  # who is over its quota waits so long: clients give up after 30 (request.timeout.ms)
KAFKA_IDLE_S = 600.0  # a silent connection is closed, as in Kafka (connections.max.idle.ms)
KAFKA_SLOW_S = 30.0  # a frame that has begun must grow within this
KAFKA_CONNECTIONS_MAX = 10_000  # of one gateway; about 10 KiB each
KAFKA_TICK_S = 5.0  # how often silent and slow connections are looked for
KAFKA_STOP_S = 10.0  # requests in flight get this long when the gateway stops
KAFKA_ADMIN_AT_ONCE = 64  # topics of one admin request that are changed at once: their commits share manifests
KAFKA_GROUP_STALE_MS = 500  # how old the knowledge may be by which a heartbeat is answered: 2 GETs a second in all
KAFKA_REBALANCE_DELAY_MS = 200  # an empty group waits so long for a second member (group.initial.rebalance.delay.ms)
KAFKA_HEARTBEAT_MS_MIN = 1_000  # members of the consumer protocol ask this often, and so hear soon of a rebalance …
KAFKA_HEARTBEAT_MS_MAX = 5_000  # … or this, as in Kafka, at a gateway with many connections: …
KAFKA_HEARTBEAT_EACH_MS = 5  # … so long for each of them, so that heartbeats take it less than 2 % of a core
KAFKA_PATTERNS_MAX = 256  # subscriptions by pattern whose topics a gateway remembers, for each namespace
KAFKA_MEMBER_PENDING_MS = 300_000  # a member id is good for a first join this long, and gateways' clocks so far apart
KAFKA_SASL_TRIES_MAX = 3  # wrong secrets of one connection; then its other tries are refused unread
KAFKA_SASL_DELAY_S = 0.1  # a wrong secret is answered so late, as in Kafka: guessing gets slow, typing does not
KAFKA_STRANGER_BYTES_MAX = 512 * KIB  # a request before the client has said who it is (sasl.server.max.receive.size)
KAFKA_SASL_BYTES_MAX = 16 * KIB  # one SASL message: tokens are about 100 bytes, SCRAM's messages less than 1 KiB
SCRAM_ITERATIONS_MIN = 4_096  # of a SCRAM password's hash, as RFC 7677 asks for
SCRAM_SALT_MAX = 1_024  # characters of base64; Kafka's own tools make salts of 40
SCRAM_ITERATIONS_MAX = 16_384  # as in Kafka: clients compute them at every connection
KAFKA_CARD_RENEW_S = 5.0  # a gateway's card is renewed, and looked for by others, this often …
KAFKA_CARD_DEAD_MS = 16_000  # … and no client is sent to one that has not been for so long: two renewals may fail
KAFKA_CARD_LOOK_S = 0.5  # how often cards are looked for while gateways have just come or gone, and clients ask
KAFKA_CARD_KEEP_MS = 600_000  # a card of somebody who died goes after this
KAFKA_CARD_BYTES_MAX = 64 * KIB  # a gateway's listeners, with the namespaces that they lead to
KAFKA_LED_MAX = 256  # coordinators in other zones that one connection was told; beyond it the oldest is forgotten
KAFKA_LONELY_LOOK_S = 60.0  # a gateway that knows of no other looks for one this often
KAFKA_GATEWAYS_MAX = 1_000  # that know of each other: one page of a LIST
KAFKA_EXPIRE_MAX = 100  # overdue transactions that a gateway ends at each tick, by 1 commit each
KAFKA_TRANSACTIONS_MAX = 10_000  # producers that began a transaction here and reserved nothing yet; a hint, see its use

# -- the schema registry -----------------------------------------------------------------------------------

REGISTRY_SCHEMA_BYTES_MAX = MIB  # one schema as text, as in Confluent's own
REGISTRY_VERSIONS_MAX = 100_000  # of all subjects: they are in memory, and an id is looked for among them
REGISTRY_BYTES_MAX = 256 * MIB  # … and all their texts, for the same reason
REGISTRY_DEPTH_MAX = 100  # levels of a schema; what walks one calls itself about four times for each
REGISTRY_REFERENCES_MAX = 200  # schemas that one refers to, and those refer to
REGISTRY_SUBJECT_MAX = 249  # characters of a subject's name, as of a topic's
REGISTRY_PARSED_MAX = 1_024  # definitions that a process keeps parsed
REGISTRY_PROBLEMS_MAX = 100  # reasons that a refusal names
REGISTRY_STEPS_MAX = 20_000  # pairs of types that one comparison looks at, 20 us each: unions in unions have any number
REGISTRY_TRIES_MAX = 20  # writes that others were faster than; each try is one of them gone
REGISTRY_READ_BYTES = 4 * MIB  # what one read of the topic takes
KAFKA_SHARE_SESSIONS_MAX = 2_000  # share sessions of one gateway and namespace (Kafka: group.share.max.share.sessions)
KAFKA_SESSIONS_MAX = 1_000  # fetch sessions that one gateway remembers, as in Kafka
KAFKA_SESSION_IDLE_S = 120.0  # one that was not asked for so long makes room for another, as in Kafka

# -- what a process says of itself ---------------------------------------------------------------------------

METER_NAMESPACES_MAX = 64  # namespaces with figures of their own, as many as are kept open; others share one
METER_TOPICS_MAX = 500  # … topics: at about ten numbers each, a scrape has a MiB
METER_GROUPS_MAX = 1_000  # … groups
METER_OPERATORS_MAX = 500  # … operators of stream jobs, by their names
METER_LAGS_MAX = 5_000  # pairs of group and topic whose lag is told: half a MiB of a scrape
METER_LAG_PARTITIONS_MAX = 20_000  # … and partitions looked at for it: 20 ms in which nobody is served
METRICS_CONNECTIONS_MAX = 16  # of who scrapes: two Prometheus servers and a few people
METRICS_SLOW_S = 10.0  # one scrape from its first byte to its last; Prometheus itself gives up after 10 s
METRICS_HEADER_BYTES_MAX = 8_190  # one header line of a scrape, and its path

# -- the doctor ----------------------------------------------------------------------------------------------

DOCTOR_SLOW_MS = 500  # a PUT that takes longer makes every commit slow
DOCTOR_SKEW_MS = 5_000  # clocks may be so far apart before it is worth a word
DOCTOR_PATIENCE_S = 5.0  # for an answer of a service or a gateway
DOCTOR_OVERDUE_MS = 120_000  # a transaction past its deadline is ended by whoever comes by, at the latest by maintain
DOCTOR_HOT_TIMES = 4  # so often archive.bytes may wait for the archive before somebody should have come
DOCTOR_TAIL_MANIFESTS = 4_096  # behind the newest snapshot; they are taken far more often
DOCTOR_NAMED = 3  # topics, groups or producers that one sentence names

# -- top -----------------------------------------------------------------------------------------------------

TOP_ROWS_MAX = 200  # rows of each table: more are not read, and redrawing them takes time
TOP_PATIENCE_S = 3.0  # a store that is silent for longer is said to be, while the next look tries again
TOP_HISTORY = 120  # looks whose rates are drawn

# -- the console ---------------------------------------------------------------------------------------------

CONSOLE_ROWS = 100  # of a list on one page
CONSOLE_COMMITS = 50  # of the chain on one page: each that was not read before is a GET
CONSOLE_FLOW_COMMITS = 200  # whose times and bytes the overview draws
CONSOLE_COMMITS_KEPT = 2_000  # summaries that a process keeps of each namespace, about 1 KB each
CONSOLE_RECORDS = 50  # of a topic on one page
CONSOLE_FETCH_BYTES = MIB  # what one page of records reads of each partition, at the most
CONSOLE_FILTERED = 5_000  # records that a filter looks at before it asks whether to go on
CONSOLE_CELL_BYTES = 4 * KIB  # of a key, a value or a header: the rest is counted, not shown
CONSOLE_DECODE_BYTES = 16 * KIB  # of a value that is decoded by a schema: its work and depth are bounded by its bytes
CONSOLE_RECURSIVE_BYTES = KIB  # … by an Avro schema that contains itself: each byte may be a level of C's stack
CONSOLE_ARROW_BYTES = 8 * MIB  # of a value that is an Arrow stream, also decoded: one record at its largest
CONSOLE_ARROW_ROWS = 20  # of a value that is an Arrow stream
CONSOLE_TIMED_PARTITIONS = 256  # of a topic whose offsets are reset to a time: each is a search of 1 to 3 GETs
CONSOLE_VERIFY_OBJECTS = 5_000  # up to which the storage page looks for orphans as `headwater verify` does …
CONSOLE_VERIFY_BYTES = 256 * MIB  # … and bytes, all of which that reads
CONSOLE_FORM_FIELDS_MAX = 64  # fields of a form; the largest has a dozen
CONSOLE_ORPHANS_MAX = 1_000_000  # objects that one search for orphans lists

# -- lines of the log of a process, and traces -----------------------------------------------------------------

LINE_TEXT_MAX = 500  # characters of one field: names and messages are shorter, what a client makes up need not be
LINE_INTENTS_MAX = 16  # intents of one request that its line lists; the rest is counted
LINE_BYTES_MAX = 16 * KIB  # one line: a pipe keeps up to 4 KiB whole, CloudWatch takes 256 KiB
REQUEST_ID_MAX = 128  # characters of an id that a client gives its request
TRACE_LINKS_MAX = 32  # spans that one span is linked to; the specification's own bound is 128
TRACE_HEADER_BYTES_MAX = 512  # W3C Trace Context: a tracestate that is longer need not be carried on
