import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;

/** The jobs of the benchmark in Kafka Streams. Names come from the environment. */
public final class OrdersJob {
    private static final double AMOUNT_MIN = 100.0;
    private static final ObjectMapper MAPPER = new ObjectMapper();

    /** The input. */
    public static final class Order {
        public String user;
        public long order;
        public double amount;
        public long ts;
        public String product;
    }

    /** What the filter puts out. */
    public record Kept(String user, long order, double amount) {}

    /** What is held per user and window. */
    public record Totals(double total, long orders) {}

    /** What the window puts out. */
    public record Result(
            String user, long window_start, long window_end, double total, long orders) {}

    private static <T> Serde<T> json(Class<T> type) {
        ObjectReader reader = MAPPER.readerFor(type);
        ObjectWriter writer = MAPPER.writerFor(type);
        return Serdes.serdeFrom(
                (topic, value) -> {
                    try {
                        return value == null ? null : writer.writeValueAsBytes(value);
                    } catch (IOException error) {
                        throw new UncheckedIOException(error);
                    }
                },
                (topic, bytes) -> {
                    try {
                        return bytes == null ? null : reader.readValue(bytes);
                    } catch (IOException error) {
                        throw new UncheckedIOException(error);
                    }
                });
    }

    /** Sixteen bytes: state need not be JSON. */
    private static Serde<Totals> totals() {
        return Serdes.serdeFrom(
                (topic, value) ->
                        value == null
                                ? null
                                : ByteBuffer.allocate(16)
                                        .putDouble(value.total())
                                        .putLong(value.orders())
                                        .array(),
                (topic, bytes) -> {
                    if (bytes == null) {
                        return null;
                    }
                    ByteBuffer buffer = ByteBuffer.wrap(bytes);
                    return new Totals(buffer.getDouble(), buffer.getLong());
                });
    }

    private static void filter(KStream<String, Order> orders, String output) {
        orders.filter((user, order) -> order.amount >= AMOUNT_MIN)
                .mapValues(order -> new Kept(order.user, order.order, order.amount))
                .to(output, Produced.with(Serdes.String(), json(Kept.class)));
    }

    /** The topic is keyed by user, so nothing has to be repartitioned. */
    private static void window(KStream<String, Order> orders, String output) {
        orders.groupByKey()
                .windowedBy(
                        TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofSeconds(1)))
                .aggregate(
                        () -> new Totals(0, 0),
                        (user, order, sum) ->
                                new Totals(sum.total() + order.amount, sum.orders() + 1),
                        Materialized.with(Serdes.String(), totals()))
                .toStream()
                .map(
                        (window, sum) ->
                                KeyValue.pair(
                                        window.key(),
                                        new Result(
                                                window.key(),
                                                window.window().start(),
                                                window.window().end(),
                                                sum.total(),
                                                sum.orders())))
                .to(output, Produced.with(Serdes.String(), json(Result.class)));
    }

    private static Properties settings() {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, System.getenv("BENCH_JOB"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, System.getenv("BENCH_BROKER"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("BENCH_STATE"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        String commitMs = System.getenv("BENCH_COMMIT_MS");
        if (commitMs != null) {
            settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Long.parseLong(commitMs));
        }
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64L * 1024 * 1024);
        settings.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.consumerPrefix("max.poll.records"), 5_000);
        settings.put(StreamsConfig.consumerPrefix("max.partition.fetch.bytes"), 4 * 1024 * 1024);
        settings.put(StreamsConfig.producerPrefix("batch.size"), 128 * 1024);
        settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        return settings;
    }

    public static void main(String[] arguments) {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Order> orders =
                builder.stream(
                        System.getenv("BENCH_INPUT"),
                        Consumed.with(Serdes.String(), json(Order.class))
                                .withTimestampExtractor(
                                        (record, before) -> ((Order) record.value()).ts));
        String output = System.getenv("BENCH_OUTPUT");
        if (System.getenv("BENCH_TOPOLOGY").equals("window")) {
            window(orders, output);
        } else {
            filter(orders, output);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings());
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
