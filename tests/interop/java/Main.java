import com.google.gson.Gson;
import com.sproutsocial.nsq.Client;
import com.sproutsocial.nsq.Config;
import java.io.BufferedWriter;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Interop client with nsq-j: a producer and a consumer that write down what they did and saw (../README.md). */
final class Main {
    private Main() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        try (Records records = new Records(Path.of(options.text("--out")))) {
            switch (options.mode()) {
                case "producer" -> Producer.run(options, records);
                case "consumer" -> Consumer.run(options, records);
                default -> throw new IllegalArgumentException(options.mode());
            }
        }
        // Threads of the library may still wait: they have nothing to do any more.
        Runtime.getRuntime().halt(0);
    }

    static Config configOf(Options options) throws GeneralSecurityException, IOException {
        Config config = new Config();
        config.setTlsV1(options.has("tls"));
        config.setSnappy(options.has("snappy"));
        config.setDeflate(options.has("deflate"));
        if (options.has("tls")) {
            KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
            store.load(null, null);
            try (InputStream pem = new FileInputStream(options.text("--tls-root-ca-file"))) {
                store.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(pem));
            }
            TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trust.init(store);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, trust.getTrustManagers(), null);
            Client.getDefaultClient().setSSLSocketFactory(context.getSocketFactory());
        }
        return config;
    }

    static long wallNs() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000_000L + now.getNano();
    }

    /** Writes one JSON object a line, from any thread. */
    static final class Records implements AutoCloseable {
        private final BufferedWriter file;
        private final Gson gson = new Gson();

        Records(Path path) throws IOException {
            file = Files.newBufferedWriter(path);
        }

        synchronized void write(Map<String, Object> record) {
            try {
                file.write(gson.toJson(record));
                file.newLine();
            } catch (IOException failed) {
                throw new UncheckedIOException(failed);
            }
        }

        void trouble(String text) {
            Map<String, Object> record = new LinkedHashMap<>();
            record.put("error", text);
            record.put("at", wallNs());
            write(record);
        }

        @Override
        public synchronized void close() throws IOException {
            file.close();
        }
    }
}
