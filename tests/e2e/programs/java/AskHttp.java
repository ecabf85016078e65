// SPDX-License-Identifier: Apache-2.0

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;

/**
 * Asks a slow service with Java's own pooled HTTP client, each request in a span.
 *
 * <p>The calling thread waits for the client's executor, that for its selector thread, and that one in
 * epoll for the connection, which the client keeps. No OpenTelemetry SDK is among the packages that this
 * test may install, so the program exports its spans itself, as OTLP in JSON, as soon as it has asked; they
 * name the kernel's thread, because which one it was is not what this program is about.
 *
 * <p>Its truth is that of the Python programs (with_truth.py, metered.py): lines in the file that
 * TRUTH_FILE names, by its own clock and by what schedstat says of the calling thread.
 * Usage: AskHttp PORT WARM_UP LONG
 */
final class AskHttp {
    private static final Path SCHEDSTAT = Path.of("/proc/thread-self/schedstat");
    private static final int LONG_MS = 300;

    private final HttpClient client = HttpClient.newHttpClient();
    private final Path truth = Path.of(System.getenv("TRUTH_FILE"));
    private final long pid = ProcessHandle.current().pid();
    private final String tid;
    private final String port;
    private final List<String> spans = new ArrayList<>();
    private int asked;

    private AskHttp(String port) throws IOException {
        this.port = port;
        tid = Path.of("/proc/thread-self").toRealPath().getFileName().toString();
    }

    /** Nanoseconds: the clock, on a CPU, queued for one. */
    private record Reading(long wall, long onCpu, long queued) {
        /** All at one instant: a thread that left its CPU meanwhile reads again. */
        static Reading take() throws IOException {
            while (true) {
                String before = Files.readString(SCHEDSTAT).strip();
                long wall = System.nanoTime();
                String after = Files.readString(SCHEDSTAT).strip();
                String[] words = before.split(" ");
                if (after.split(" ")[2].equals(words[2])) {
                    return new Reading(wall, Long.parseLong(words[0]), Long.parseLong(words[1]));
                }
            }
        }
    }

    private static long unixNs() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000_000L + now.getNano();
    }

    private void ask(int milliseconds) throws IOException, InterruptedException {
        asked++;
        String traceId = String.format("%024x%08x", pid, asked);
        String spanId = String.format("%08x%08x", pid, asked);
        URI uri = URI.create("http://127.0.0.1:" + port + "/sleep/" + milliseconds + "/" + spanId);
        HttpRequest request = HttpRequest.newBuilder(uri).build();

        long start = unixNs();
        Reading begin = Reading.take();
        HttpResponse<Void> answer = client.send(request, HttpResponse.BodyHandlers.discarding());
        Reading end = Reading.take();
        long stop = unixNs();

        if (answer.statusCode() != 200) {
            throw new IOException(uri + ": " + answer.statusCode());
        }
        spans.add(String.format(
            "{\"traceId\":\"%s\",\"spanId\":\"%s\",\"name\":\"ask\",\"kind\":3,"
                + "\"startTimeUnixNano\":\"%d\",\"endTimeUnixNano\":\"%d\","
                + "\"attributes\":[{\"key\":\"thread.native_id\",\"value\":{\"intValue\":\"%s\"}}]}",
            traceId, spanId, start, stop, tid));
        String ids = traceId + " " + spanId;
        String lines = "span " + ids + " 1 " + start + " " + stop + " " + tid + " ask\n"
            + "wait " + ids + " ask " + (end.wall() - begin.wall()) + " "
            + (end.onCpu() - begin.onCpu()) + " " + (end.queued() - begin.queued()) + " 0 0\n";
        Files.writeString(truth, lines, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    private void export() throws IOException, InterruptedException {
        String body = "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\","
            + "\"value\":{\"stringValue\":\"" + System.getenv("OTEL_SERVICE_NAME") + "\"}}]},"
            + "\"scopeSpans\":[{\"scope\":{\"name\":\"ask-http\"},\"spans\":["
            + String.join(",", spans) + "]}]}]}";
        URI uri = URI.create(System.getenv("OTEL_EXPORTER_OTLP_ENDPOINT") + "/v1/traces");
        HttpRequest request = HttpRequest.newBuilder(uri)
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IOException(uri + ": " + answer.statusCode() + " " + answer.body());
        }
        spans.clear();
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        AskHttp program = new AskHttp(arguments[0]);
        for (int i = Integer.parseInt(arguments[1]); i > 0; i--) {
            program.ask(1);
        }
        for (int i = Integer.parseInt(arguments[2]); i > 0; i--) {
            program.ask(LONG_MS);
        }
        program.export();
        System.out.println("done");
        // Until the test closes it: a process that has ended has no threads to look at.
        while (System.in.read() >= 0) { }
    }
}
