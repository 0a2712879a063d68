import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.TopologyConfig;
import org.apache.kafka.streams.kstream.GlobalKTable;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.Stores;

/**
 * Every kind of join, and windows that are told once when they close, exactly once, until it is killed.
 *
 * <p>orders: key is the customer, value "ORDER PRODUCT"; payments: key is the customer, value "ORDER"; customers: key
 * is the customer, value "NAME COUNTRY"; countries, read whole by each instance: key and name.
 */
public class StreamsJoins {
    private static final Duration WINDOW = Duration.ofSeconds(10);
    private static final Duration APART = Duration.ofSeconds(3);
    private static final Duration GRACE = Duration.ofSeconds(60); // one stream may run ahead while a gateway is away

    public static void main(String[] words) {
        Properties settings = StreamsRun.settings("joins", words[0], words[1]);
        settings.put(StreamsConfig.DEFAULT_DSL_STORE_CONFIG, StreamsConfig.IN_MEMORY);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);

        // Only a builder that knows of the settings keeps its state in memory.
        StreamsBuilder builder = new StreamsBuilder(new TopologyConfig(new StreamsConfig(settings)));
        KStream<String, String> orders = builder.stream("orders");
        KStream<String, String> payments = builder.stream("payments");
        KTable<String, String> customers = builder.table("customers");
        GlobalKTable<String, String> countries = builder.globalTable(
                "countries", Materialized.<String, String>as(Stores.inMemoryKeyValueStore("countries")));

        orders.groupByKey()
                .windowedBy(TimeWindows.ofSizeAndGrace(WINDOW, GRACE))
                .count(Materialized.with(Serdes.String(), Serdes.Long()))
                .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
                .toStream()
                .map((window, count) -> new org.apache.kafka.streams.KeyValue<>(
                        window.key(), window.window().start() + " " + count))
                .to("windows");

        Duration kept = APART.multipliedBy(2).plus(GRACE);
        orders.join(payments, (order, payment) -> order.split(" ")[0] + " " + payment,
                        JoinWindows.ofTimeDifferenceAndGrace(APART, GRACE),
                        StreamJoined.<String, String, String>with(
                                        Stores.inMemoryWindowStore("ordered", kept, APART.multipliedBy(2), true),
                                        Stores.inMemoryWindowStore("paid", kept, APART.multipliedBy(2), true))
                                .withKeySerde(Serdes.String())
                                .withValueSerde(Serdes.String())
                                .withOtherValueSerde(Serdes.String()))
                .to("pairs");

        orders.join(customers, (order, customer) -> order + " " + customer)
                .join(countries, (customer, row) -> row.split(" ")[3], (row, country) -> row + " " + country)
                .to("rows");

        orders.groupByKey()
                .reduce((before, order) -> order)
                .join(customers, (order, customer) -> order + " " + customer)
                .toStream()
                .to("lasts");

        StreamsRun.run(builder.build(), settings);
    }
}
