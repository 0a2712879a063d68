// Kafka's own Java client against a gateway: java -cp JARS JavaClient.java BOOTSTRAP. Fails, or prints what it saw.
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class JavaClient {
    static final int RECORDS = 100;

    static Map<String, Object> config(String bootstrap, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(more);
        config.put("bootstrap.servers", bootstrap);
        return config;
    }

    static KafkaProducer<String, String> producer(String bootstrap, Map<String, Object> more) {
        return new KafkaProducer<>(config(bootstrap, more), new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(String bootstrap, Map<String, Object> more) {
        Map<String, Object> config = config(bootstrap, more);
        config.put("auto.offset.reset", "earliest");
        config.put("isolation.level", "read_committed");
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    /** Reads all of java-in in a group and writes it to java-out, exactly once; then an aborted transaction. */
    static void copy(String bootstrap, String protocol) {
        try (var consumer = consumer(bootstrap, Map.of("group.id", "java-" + protocol, "group.protocol", protocol));
                var producer = producer(bootstrap, Map.of("transactional.id", "java-" + protocol))) {
            producer.initTransactions();
            consumer.subscribe(List.of("java-in"));
            long end = System.currentTimeMillis() + 30_000;
            int copied = 0;
            while (copied < RECORDS && System.currentTimeMillis() < end) {
                var records = consumer.poll(Duration.ofMillis(500));
                if (records.isEmpty()) continue;
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (var record : records) {
                    copied++;
                    producer.send(new ProducerRecord<>("java-out", record.key(), protocol + record.value()));
                    var place = new TopicPartition(record.topic(), record.partition());
                    offsets.put(place, new OffsetAndMetadata(record.offset() + 1));
                }
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                producer.commitTransaction();
            }
            check(copied == RECORDS, protocol + " read " + copied);
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("java-out", "x", "aborted"));
            producer.flush();
            producer.abortTransaction();
        }
    }

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        try (Admin admin = Admin.create(config(bootstrap, Map.of()))) {
            admin.createTopics(List.of(new NewTopic("java-in", 2, (short) 1), new NewTopic("java-out", 1, (short) 1)))
                    .all().get();
            try (var producer = producer(bootstrap, Map.of("linger.ms", 20))) {
                for (int n = 0; n < RECORDS; n++) producer.send(new ProducerRecord<>("java-in", "k" + n, "v" + n));
                producer.flush();
            }
            for (String protocol : List.of("classic", "consumer")) copy(bootstrap, protocol);
            Set<String> values = new HashSet<>();
            int count = 0;
            try (var consumer = consumer(bootstrap, Map.of())) {
                var place = new TopicPartition("java-out", 0);
                consumer.assign(List.of(place));
                long end = consumer.endOffsets(List.of(place)).get(place);
                while (consumer.position(place) < end) {
                    for (var record : consumer.poll(Duration.ofMillis(500))) {
                        count++;
                        values.add(record.value());
                    }
                }
            }
            check(count == 2 * RECORDS && values.size() == count && !values.contains("aborted"), "java-out has " + count);
            var states = new HashSet<String>();
            for (var listed : admin.listTransactions().all().get()) states.add(listed.state().toString());
            System.out.println(count + " records, each once; transactions " + states + "; groups "
                    + admin.listGroups().all().get().size());
            admin.deleteTopics(List.of("java-in", "java-out")).all().get();
        }
    }
}
