import java.util.HashMap;
import java.util.Map;

/** The options of all interop clients, each with its value behind it. */
final class Options {
    private final String mode;
    private final Map<String, String> values = new HashMap<>();

    Options(String[] arguments) {
        mode = arguments[0];
        for (int index = 1; index < arguments.length; index += 2) {
            if (index + 1 == arguments.length || !arguments[index].startsWith("--")) {
                throw new IllegalArgumentException(arguments[index]);
            }
            values.put(arguments[index], arguments[index + 1]);
        }
    }

    String mode() {
        return mode;
    }

    /** An empty text when it was not given. */
    String text(String name) {
        return values.getOrDefault(name, "");
    }

    private int number(String name, int otherwise) {
        return values.containsKey(name) ? Integer.parseInt(values.get(name)) : otherwise;
    }

    boolean has(String layer) {
        return java.util.List.of(text("--transport").split("-")).contains(layer);
    }

    String topic() {
        return text("--topic");
    }

    int seed() {
        return number("--seed", 0);
    }

    int first() {
        return number("--first", 1);
    }

    int count() {
        return number("--count", 0);
    }

    int deferredPerMille() {
        return number("--deferred-per-mille", 0);
    }

    int mpubPerMille() {
        return number("--mpub-per-mille", 0);
    }

    int requeuePerMille() {
        return number("--requeue-per-mille", 0);
    }

    int holdPerMillion() {
        return number("--hold-per-million", 0);
    }

    int maxInFlight() {
        return number("--max-in-flight", 200);
    }

    int msgTimeoutMs() {
        return number("--msg-timeout-ms", 5000);
    }
}
