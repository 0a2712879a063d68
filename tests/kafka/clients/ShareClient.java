// Kafka's own share consumer against gateways over one bucket: java -cp JARS ShareClient.java BOOTSTRAP [BOOTSTRAP].
// Fails, or prints what it saw.
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

public class ShareClient {
    static final int RECORDS = 100;

    static Map<String, Object> config(String bootstrap, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(more);
        config.put("bootstrap.servers", bootstrap);
        return config;
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    static ShareConsumer<String, String> consumer(String bootstrap, String group, Map<String, Object> more) {
        Map<String, Object> config = config(bootstrap, more);
        config.put("group.id", group);
        var consumer = new KafkaShareConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of("shared"));
        return consumer;
    }

    static void produce(String bootstrap, String prefix, int count) {
        try (var producer = new KafkaProducer<>(config(bootstrap, Map.of("linger.ms", 5)),
                new StringSerializer(), new StringSerializer())) {
            for (int n = 0; n < count; n++) producer.send(new ProducerRecord<>("shared", prefix + n));
            producer.flush();
        }
    }

    static void fromTheBeginning(Admin admin, String group) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        var op = new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(op))).all().get();
    }

    /** Reads with implicit acknowledgement until it has seen so many; what it saw, with how often it came. */
    static Map<String, Integer> read(String bootstrap, String group, int wanted) {
        Map<String, Integer> seen = new HashMap<>();
        try (var consumer = consumer(bootstrap, group, Map.of())) {
            long end = System.currentTimeMillis() + 30_000;
            while (seen.size() < wanted && System.currentTimeMillis() < end) {
                for (var record : consumer.poll(Duration.ofMillis(300))) seen.merge(record.value(), 1, Integer::sum);
            }
            consumer.commitSync().forEach((place, error) -> check(error.isEmpty(), "commit: " + error));
        }
        return seen;
    }

    static String implicit(String bootstrap) {
        var seen = read(bootstrap, "implicit", RECORDS);
        check(seen.size() == RECORDS, "implicit saw " + seen.size());
        check(seen.values().stream().allMatch(times -> times == 1), "twice: " + seen);
        return "implicit " + seen.size();
    }

    static String explicit(String bootstrap) {
        Map<String, List<Integer>> came = new TreeMap<>();
        Set<String> rejected = new TreeSet<>();
        Set<String> accepted = new TreeSet<>();
        Map<String, Object> config = Map.of("share.acknowledgement.mode", "explicit", "max.poll.records", 10,
                "share.acquire.mode", "record_limit");
        try (var consumer = consumer(bootstrap, "explicit", config)) {
            long end = System.currentTimeMillis() + 30_000;
            while (accepted.size() + rejected.size() < RECORDS && System.currentTimeMillis() < end) {
                var records = consumer.poll(Duration.ofMillis(300));
                check(records.count() <= 10, "record_limit gave " + records.count());
                for (var record : records) {
                    int count = record.deliveryCount().get();
                    came.computeIfAbsent(record.value(), v -> new ArrayList<>()).add(count);
                    int number = Integer.parseInt(record.value().substring(1));
                    if (number % 10 == 0 && count == 1) consumer.acknowledge(record, AcknowledgeType.RELEASE);
                    else if (number % 10 == 5) { consumer.acknowledge(record, AcknowledgeType.REJECT); rejected.add(record.value()); }
                    else { consumer.acknowledge(record, AcknowledgeType.ACCEPT); accepted.add(record.value()); }
                }
                consumer.commitSync().forEach((place, error) -> check(error.isEmpty(), "commit: " + error));
            }
        }
        check(rejected.size() == RECORDS / 10, "rejected " + rejected);
        check(accepted.size() == RECORDS - RECORDS / 10, "accepted " + accepted.size());
        came.forEach((value, counts) -> {
            boolean again = Integer.parseInt(value.substring(1)) % 10 == 0;
            check(counts.equals(again ? List.of(1, 2) : List.of(1)), value + " came " + counts);
        });
        return "explicit " + accepted.size() + " accepted, " + rejected.size() + " rejected";
    }

    /** Two consumers of one partition, at different gateways if there are two: each record comes to one of them. */
    static String shared(List<String> bootstraps) throws Exception {
        Map<String, Integer> seen = new ConcurrentHashMap<>();
        List<Integer> shares = Collections.synchronizedList(new ArrayList<>());
        var pool = Executors.newFixedThreadPool(2);
        List<Future<?>> tasks = new ArrayList<>();
        long end = System.currentTimeMillis() + 40_000;
        for (int n = 0; n < 2; n++) {
            String bootstrap = bootstraps.get(n % bootstraps.size());
            tasks.add(pool.submit(() -> {
                int mine = 0;
                try (var consumer = consumer(bootstrap, "two", Map.of("max.poll.records", 5, "share.acquire.mode", "record_limit"))) {
                    while (seen.size() < 4 * RECORDS && System.currentTimeMillis() < end) {
                        for (var record : consumer.poll(Duration.ofMillis(200))) {
                            seen.merge(record.value(), 1, Integer::sum);
                            mine++;
                        }
                        try { Thread.sleep(5); } catch (InterruptedException error) { return; }
                    }
                    consumer.commitSync();
                }
                shares.add(mine);
            }));
        }
        while (seen.size() < RECORDS && System.currentTimeMillis() < end) Thread.sleep(50);
        produce(bootstraps.get(0), "w", 3 * RECORDS);
        for (var task : tasks) task.get();
        pool.shutdown();
        check(seen.size() == 4 * RECORDS, "two saw " + seen.size());
        check(seen.values().stream().allMatch(times -> times == 1), "twice: " + seen);
        check(shares.stream().allMatch(mine -> mine > 0), "one got all: " + shares);
        return "two consumers " + seen.size();
    }

    public static void main(String[] arguments) throws Exception {
        List<String> bootstraps = List.of(arguments);
        String first = bootstraps.get(0);
        try (Admin admin = Admin.create(config(first, Map.of()))) {
            admin.createTopics(List.of(new NewTopic("shared", 1, (short) 1))).all().get();
            produce(first, "v", RECORDS);
            for (String group : List.of("implicit", "explicit", "two", "late")) fromTheBeginning(admin, group);
            System.out.println(implicit(first));
            System.out.println(explicit(first));
            System.out.println(shared(bootstraps));
            var listed = new TreeSet<String>();
            for (var group : admin.listGroups(ListGroupsOptions.forShareGroups()).all().get()) listed.add(group.groupId());
            check(listed.equals(new TreeSet<>(List.of("explicit", "implicit", "two"))), "groups " + listed);
            var described = admin.describeShareGroups(List.of("two")).all().get().get("two");
            check(described.groupState() == GroupState.EMPTY, "two is " + described);
            var place = new TopicPartition("shared", 0);
            var spec = new ListShareGroupOffsetsSpec();
            var offset = admin.listShareGroupOffsets(Map.of("two", spec)).partitionsToOffsetInfo("two").get().get(place);
            check(offset.startOffset() == 4 * RECORDS, "two is at " + offset);
            admin.alterShareGroupOffsets("two", Map.of(place, (long) 4 * RECORDS - 7)).all().get();
            var again = read(first, "two", 7);
            check(again.size() == 7, "after the reset " + again);
            admin.deleteShareGroupOffsets("two", Set.of("shared")).all().get();
            admin.deleteShareGroups(List.of("two")).all().get();
            System.out.println("admin done");
        }
    }
}
