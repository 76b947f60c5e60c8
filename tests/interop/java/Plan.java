import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** The plan of a run: a function of seed and message number alone, the same in all four languages (../README.md). */
final class Plan {
    private Plan() {}

    record Way(String name, int size, int delayMs) {}

    record Fate(int requeues, int delayMs, boolean hold) {}

    static int mix(int a, int b, int c) {
        int h = a ^ b * 0x9E3779B1 ^ c * 0x85EBCA77;
        h ^= h >>> 16;
        h *= 0x85EBCA6B;
        h ^= h >>> 13;
        h *= 0xC2B2AE35;
        return h ^ h >>> 16;
    }

    static int saltOf(String channel) {
        int h = 0x811C9DC5;
        for (byte one : channel.getBytes(StandardCharsets.UTF_8)) {
            h = (h ^ one & 0xFF) * 0x01000193;
        }
        return h;
    }

    static byte[] bodyOf(int seed, int number) {
        int h = mix(seed, number, 3);
        int length = 16 + Integer.remainderUnsigned(h, 400);
        String words = String.format("%08x", h).repeat(length / 8 + 1);
        return (number + ":" + words.substring(0, length)).getBytes(StandardCharsets.UTF_8);
    }

    static int numberOf(byte[] body) {
        String text = new String(body, StandardCharsets.UTF_8);
        return Integer.parseInt(text.substring(0, text.indexOf(':')));
    }

    static String sumOf(byte[] body) {
        try {
            byte[] sum = MessageDigest.getInstance("SHA-256").digest(body);
            StringBuilder text = new StringBuilder();
            for (int index = 0; index < 8; index++) {
                text.append(String.format("%02x", sum[index]));
            }
            return text.toString();
        } catch (NoSuchAlgorithmException missing) {
            throw new IllegalStateException(missing);
        }
    }

    /** How the command that begins with this message is sent. */
    static Way wayOf(Options options, int number) {
        int h = mix(options.seed(), number, 7);
        int r = Integer.remainderUnsigned(h, 1000);
        if (r < options.deferredPerMille()) {
            return new Way("dpub", 1, 50 + Integer.remainderUnsigned(h >>> 10, 1500));
        }
        if (r < options.deferredPerMille() + options.mpubPerMille()) {
            int left = options.first() + options.count() - number;
            return new Way("mpub", Math.min(2 + Integer.remainderUnsigned(h >>> 10, 49), left), 0);
        }
        return new Way("pub", 1, 0);
    }

    /** How often it is requeued, with what delay, and whether its first delivery is left to its timeout. */
    static Fate fateOf(Options options, int salt, int number) {
        int h = mix(options.seed(), number, salt);
        if (Integer.remainderUnsigned(h, 1000) < options.requeuePerMille()) {
            return new Fate(1 + (h >>> 10 & 1), new int[] {0, 0, 100, 500}[h >>> 12 & 3], false);
        }
        boolean hold = Integer.remainderUnsigned(mix(options.seed(), number, salt + 1), 1_000_000) < options.holdPerMillion();
        return new Fate(0, 0, hold);
    }
}
