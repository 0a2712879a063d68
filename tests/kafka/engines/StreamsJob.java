import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.Stores;

/** Counts words exactly once, by way of a repartition topic and a changelog, until it is killed. */
public class StreamsJob {
    public static void main(String[] words) {
        Properties settings = StreamsRun.settings("counts", words[0], words[1]);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0); // every count is told
        settings.put(StreamsConfig.NUM_STANDBY_REPLICAS_CONFIG, 1);

        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream("words")
                .selectKey((key, word) -> word)
                .groupByKey()
                .count(Materialized.<String, Long>as(Stores.inMemoryKeyValueStore("counts"))
                        .withKeySerde(Serdes.String())
                        .withValueSerde(Serdes.Long()))
                .toStream()
                .map((word, count) -> new org.apache.kafka.streams.KeyValue<>(word, word + " " + count))
                .to("counts");

        StreamsRun.run(builder.build(), settings);
    }
}
