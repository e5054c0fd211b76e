import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.Map;
import org.apache.sshd.client.SshClient;
import org.apache.sshd.client.channel.ChannelExec;
import org.apache.sshd.client.channel.ChannelShell;
import org.apache.sshd.client.channel.ClientChannel;
import org.apache.sshd.client.channel.ClientChannelEvent;
import org.apache.sshd.client.keyverifier.AcceptAllServerKeyVerifier;
import org.apache.sshd.client.session.ClientSession;
import org.apache.sshd.client.session.forward.PortForwardingTracker;
import org.apache.sshd.common.channel.PtyMode;
import org.apache.sshd.common.keyprovider.FileKeyPairProvider;
import org.apache.sshd.common.util.net.SshdSocketAddress;
import org.apache.sshd.sftp.client.SftpClient;
import org.apache.sshd.sftp.client.SftpClientFactory;

/** Talks to a target through the proxy with Apache MINA SSHD, and prints what it got as JSON. */
public final class Client {
    private static final Duration LONG = Duration.ofSeconds(60);

    private Client() {}

    /** Arguments: PROXY USER KEY TARGET LOGIN DIRECTORY FORWARD. */
    public static void main(String[] arguments) throws Exception {
        SshdSocketAddress proxy = address(arguments[0]);
        SshdSocketAddress target = address(arguments[3]);
        try (SshClient client = client(arguments[2])) {
            client.start();
            try (ClientSession outer = login(client, arguments[1], proxy);
                    PortForwardingTracker tunnel = outer.createLocalPortForwardingTracker(
                            new SshdSocketAddress("127.0.0.1", 0), target);
                    // The host certificate of the target is for the name that was asked for.
                    ClientSession inner = login(client, arguments[4],
                            new SshdSocketAddress("localhost", tunnel.getBoundAddress().getPort()))) {
                System.out.println("{\"exec\": " + execute(inner) + ", \"pty\": " + terminal(inner)
                        + ", \"copied\": " + copied(inner, arguments[5])
                        + ", \"greeting\": " + quoted(greeting(inner, address(arguments[6]))) + "}");
            }
        }
        System.exit(0);
    }

    static SshClient client(String key) {
        SshClient client = SshClient.setUpDefaultClient();
        client.setServerKeyVerifier(AcceptAllServerKeyVerifier.INSTANCE);
        client.setKeyIdentityProvider(new FileKeyPairProvider(Path.of(key)));
        return client;
    }

    static SshdSocketAddress address(String text) {
        int colon = text.lastIndexOf(':');
        return new SshdSocketAddress(text.substring(0, colon), Integer.parseInt(text.substring(colon + 1)));
    }

    static ClientSession login(SshClient client, String user, SshdSocketAddress where) throws Exception {
        ClientSession session = client.connect(user, where.getHostName(), where.getPort()).verify(LONG).getSession();
        session.auth().verify(LONG);
        return session;
    }

    private static String execute(ClientSession session) throws Exception {
        ChannelExec channel = session.createExecChannel(
                "cat; echo $LC_JAVA; echo err >&2; exit 3", null, Map.of("LC_JAVA", "set"));
        return run(channel, "typed\n");
    }

    private static String terminal(ClientSession session) throws Exception {
        ChannelShell channel = session.createShellChannel();
        channel.setPtyType("xterm");
        channel.setPtyColumns(90);
        channel.setPtyLines(30);
        channel.setPtyModes(Map.of(PtyMode.ECHO, 0));
        return run(channel, "stty size; exit 4\n");
    }

    private static String run(org.apache.sshd.client.channel.ChannelSession channel, String input) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        channel.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        channel.setOut(out);
        channel.setErr(err);
        channel.open().verify(LONG);
        channel.waitFor(EnumSet.of(ClientChannelEvent.CLOSED), LONG);
        return "{\"out\": " + quoted(out.toString(StandardCharsets.UTF_8)) + ", \"err\": "
                + quoted(err.toString(StandardCharsets.UTF_8)) + ", \"status\": " + channel.getExitStatus() + "}";
    }

    private static boolean copied(ClientSession session, String directory) throws Exception {
        byte[] contents = new byte[1 << 20];
        Arrays.fill(contents, (byte) 'x');
        try (SftpClient files = SftpClientFactory.instance().createSftpClient(session)) {
            try (OutputStream file = files.write(directory + "/there")) {
                file.write(contents);
            }
            try (InputStream file = files.read(directory + "/there")) {
                return Arrays.equals(contents, file.readAllBytes());
            }
        }
    }

    private static String greeting(ClientSession session, SshdSocketAddress forward) throws Exception {
        SshdSocketAddress any = new SshdSocketAddress("127.0.0.1", 0);
        try (PortForwardingTracker tracker = session.createLocalPortForwardingTracker(any, forward);
                Socket socket = new Socket("127.0.0.1", tracker.getBoundAddress().getPort())) {
            return new String(socket.getInputStream().readNBytes(8), StandardCharsets.UTF_8);
        }
    }

    static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char letter : text.toCharArray()) {
            boolean plain = letter >= ' ' && letter != '"' && letter != '\\';
            quoted.append(plain ? String.valueOf(letter) : String.format("\\u%04x", (int) letter));
        }
        return quoted.append('"').toString();
    }
}
