import com.sproutsocial.nsq.Client;
import com.sproutsocial.nsq.Config;
import com.sproutsocial.nsq.DirectSubscriber;
import com.sproutsocial.nsq.Message;
import com.sproutsocial.nsq.Subscriber;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import sun.misc.Signal;

final class Consumer {
    // Finished and requeued messages wait so long in the library; its default of two seconds only makes runs longer.
    private static final int FLUSH_MS = 250;

    private final Options options;
    private final Main.Records records;
    private final int salt;
    private final Map<Integer, Integer> before = new HashMap<>();
    private int order;

    private Consumer(Options options, Main.Records records) {
        this.options = options;
        this.records = records;
        salt = Plan.saltOf(options.text("--channel"));
    }

    static void run(Options options, Main.Records records) throws Exception {
        CountDownLatch stop = new CountDownLatch(1);
        for (String name : new String[] {"TERM", "INT"}) {
            Signal.handle(new Signal(name), signal -> stop.countDown());
        }
        Logger library = Logger.getLogger("com.sproutsocial.nsq");
        Handler troubles = new Troubles(records);
        library.addHandler(troubles);
        // Messages are handled in the order in which they come.
        Client.getDefaultClient().setExecutor(Executors.newSingleThreadExecutor());
        Config config = Main.configOf(options);
        config.setMsgTimeout(options.msgTimeoutMs());
        String lookup = options.text("--lookupd-http-address");
        Subscriber subscriber =
                lookup.isEmpty() ? new DirectSubscriber(1, options.text("--nsqd-tcp-address")) : new Subscriber(1, lookup.split(","));
        subscriber.setConfig(config);
        subscriber.setMaxFlushDelayMillis(FLUSH_MS);
        Consumer consumer = new Consumer(options, records);
        subscriber.subscribe(options.topic(), options.text("--channel"), options.maxInFlight(), consumer::handle);
        // The driver ends consumers when the node has nothing left to deliver.
        stop.await();
        library.removeHandler(troubles);
    }

    private void handle(Message message) {
        long at = Main.wallNs();
        int number = Plan.numberOf(message.getData());
        Plan.Fate fate = Plan.fateOf(options, salt, number);
        String action = "fin";
        if (fate.requeues() > 0 || fate.hold()) {
            int earlier = before.merge(number, 1, Integer::sum) - 1;
            if (earlier < fate.requeues()) {
                action = "req";
            } else if (fate.hold() && earlier == 0) {
                action = "hold";
            }
        }
        Map<String, Object> record = new LinkedHashMap<>();
        record.put("order", ++order);
        record.put("connection", options.text("--name"));
        record.put("node", "");
        record.put("id", message.getId());
        record.put("timestamp", Long.toString(message.getTimestamp()));
        record.put("attempts", message.getAttempts());
        record.put("body", number);
        record.put("sum", Plan.sumOf(message.getData()));
        record.put("at", at);
        record.put("do", action);
        record.put("delay_ms", action.equals("req") ? fate.delayMs() : 0);
        records.write(record);
        switch (action) {
            case "fin" -> message.finish();
            case "req" -> message.requeue(fate.delayMs());
            default -> {}
        }
    }

    /** Takes the library's warnings and errors: none belongs into a run without kills. */
    private static final class Troubles extends Handler {
        private final Main.Records records;

        Troubles(Main.Records records) {
            this.records = records;
            setLevel(Level.WARNING);
        }

        @Override
        public void publish(LogRecord record) {
            if (isLoggable(record)) {
                records.trouble(record.getLevel() + " " + record.getMessage() + (record.getThrown() == null ? "" : " " + record.getThrown()));
            }
        }

        @Override
        public void flush() {}

        @Override
        public void close() {}
    }
}
