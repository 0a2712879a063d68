// A running sum per key, exactly once; its arguments are BOOTSTRAP CHECKPOINTS COUNT. It fails once, half way.
import java.io.*;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.common.state.*;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.*;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.*;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

public class FlinkJob {
    /**
     * Lines are "key n"; it answers "key n sum". The first attempt fails at a number, between two checkpoints.
     *
     * No subtask is at the end of its input by then: Flink 2.0 would commit what such a one has written since the last
     * checkpoint as soon as it hears that this checkpoint is complete (FLINK-37605), and then write it once more.
     */
    public static class Sum extends KeyedProcessFunction<String, String, String> {
        private final int failAt;
        private transient ValueState<Long> sum;
        private int seen;

        Sum(int failAt) {
            this.failAt = failAt;
        }

        @Override
        public void open(OpenContext context) {
            sum = getRuntimeContext().getState(new ValueStateDescriptor<>("sum", Types.LONG));
        }

        @Override
        public void processElement(String line, Context context, Collector<String> out) throws Exception {
            String[] words = line.split(" ");
            int n = Integer.parseInt(words[1]);
            long total = n + (sum.value() == null ? 0 : sum.value());
            sum.update(total);
            out.collect(words[0] + " " + n + " " + total);
            if (++seen % 5 == 0) Thread.sleep(40); // so that several checkpoints fall into the run, at each subtask
            boolean isFirst = getRuntimeContext().getTaskInfo().getAttemptNumber() == 0;
            if (isFirst && n == failAt) throw new IllegalStateException("the failure that was asked for");
            if (isFirst && n > failAt + failAt / 2) Thread.sleep(Long.MAX_VALUE); // till the failure interrupts it
        }
    }

    public static void main(String[] args) throws Exception {
        int count = Integer.parseInt(args[2]);
        Configuration config = new Configuration();
        config.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        config.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + args[1]);
        config.set(RestartStrategyOptions.RESTART_STRATEGY, "fixed-delay");
        config.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_ATTEMPTS, 3);
        config.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_DELAY, Duration.ofMillis(500));
        var job = StreamExecutionEnvironment.createLocalEnvironment(2, config);
        job.enableCheckpointing(500);
        var source = KafkaSource.<String>builder()
                .setBootstrapServers(args[0])
                .setTopics("numbers")
                .setGroupId("flink")
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setBounded(OffsetsInitializer.latest())
                .setProperty("isolation.level", "read_committed")
                .setValueOnlyDeserializer(new SimpleStringSchema())
                .build();
        var sink = KafkaSink.<String>builder()
                .setBootstrapServers(args[0])
                .setRecordSerializer(KafkaRecordSerializationSchema.<String>builder()
                        .setTopic("sums")
                        .setValueSerializationSchema(new SimpleStringSchema())
                        .build())
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix("flink-sums")
                .setProperty("transaction.timeout.ms", "60000")
                .build();
        job.fromSource(source, WatermarkStrategy.noWatermarks(), "numbers")
                .keyBy(line -> line.split(" ")[0], Types.STRING)
                .process(new Sum(count / 2))
                .sinkTo(sink);
        var result = job.execute("sums");
        System.out.println("done in ms " + result.getNetRuntime());
    }
}
