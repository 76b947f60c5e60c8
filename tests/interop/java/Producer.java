import com.sproutsocial.nsq.Config;
import com.sproutsocial.nsq.NSQException;
import com.sproutsocial.nsq.Publisher;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** A publisher of nsq-j waits for each answer: several of them keep several commands under way. */
final class Producer {
    private static final int PUBLISHERS = 8;

    private final Options options;
    private final Main.Records records;
    private int number;

    private Producer(Options options, Main.Records records) {
        this.options = options;
        this.records = records;
        number = options.first();
    }

    private record Command(int number, Plan.Way way) {}

    static void run(Options options, Main.Records records) throws Exception {
        Config config = Main.configOf(options);
        Producer producer = new Producer(options, records);
        List<Thread> threads = new ArrayList<>();
        for (int index = 0; index < PUBLISHERS; index++) {
            Publisher publisher = new Publisher(options.text("--nsqd-tcp-address"));
            publisher.setConfig(config);
            Thread thread = new Thread(() -> producer.publishAll(publisher));
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
    }

    /** Null when all is taken. */
    private synchronized Command next() {
        if (number == options.first() + options.count()) {
            return null;
        }
        Command command = new Command(number, Plan.wayOf(options, number));
        number += command.way().size();
        return command;
    }

    private void publishAll(Publisher publisher) {
        for (Command command = next(); command != null; command = next()) {
            List<byte[]> bodies = new ArrayList<>();
            for (int index = 0; index < command.way().size(); index++) {
                bodies.add(Plan.bodyOf(options.seed(), command.number() + index));
            }
            long sent = Main.wallNs();
            long sentMono = System.nanoTime();
            String outcome = "OK";
            try {
                switch (command.way().name()) {
                    case "pub" -> publisher.publish(options.topic(), bodies.get(0));
                    case "mpub" -> publisher.publish(options.topic(), bodies);
                    default -> publisher.publishDeferred(options.topic(), bodies.get(0), command.way().delayMs(), TimeUnit.MILLISECONDS);
                }
            } catch (NSQException failed) {
                outcome = failed.toString();
            }
            long answerMono = System.nanoTime();
            for (int index = 0; index < bodies.size(); index++) {
                Map<String, Object> record = new LinkedHashMap<>();
                record.put("body", command.number() + index);
                record.put("sum", Plan.sumOf(bodies.get(index)));
                record.put("bytes", bodies.get(index).length);
                record.put("way", command.way().name());
                record.put("delay_ms", command.way().delayMs());
                record.put("sent", sent);
                record.put("sent_mono", sentMono);
                record.put("answer_mono", answerMono);
                record.put("outcome", outcome);
                records.write(record);
            }
        }
    }
}
