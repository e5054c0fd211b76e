import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.EnumSet;
import org.apache.sshd.client.SshClient;
import org.apache.sshd.client.channel.ChannelExec;
import org.apache.sshd.client.channel.ClientChannelEvent;
import org.apache.sshd.client.session.ClientSession;
import org.apache.sshd.client.session.forward.PortForwardingTracker;
import org.apache.sshd.common.session.Session;
import org.apache.sshd.common.session.SessionListener;
import org.apache.sshd.common.util.net.SshdSocketAddress;
import org.apache.sshd.core.CoreModuleProperties;

/** Prints the output of the command DOWN, then that of the command UP, which gets the contents of FILE: with MINA SSHD. */
public final class Transfer {
    private static final Duration LONG = Duration.ofSeconds(300);

    private Transfer() {}

    /** Arguments: PROXY USER KEY TARGET LOGIN FILE DOWN UP REKEY. */
    public static void main(String[] arguments) throws Exception {
        long rekey = Long.parseLong(arguments[8]);
        try (SshClient client = Client.client(arguments[2])) {
            if (rekey > 0) {
                CoreModuleProperties.REKEY_BYTES_LIMIT.set(client, rekey);
            }
            client.addSessionListener(new NewKeys());
            client.start();
            try (ClientSession outer = Client.login(client, arguments[1], Client.address(arguments[0]));
                    PortForwardingTracker tunnel = outer.createLocalPortForwardingTracker(
                            new SshdSocketAddress("127.0.0.1", 0), Client.address(arguments[3]));
                    ClientSession inner = Client.login(client, arguments[4],
                            new SshdSocketAddress("localhost", tunnel.getBoundAddress().getPort()));
                    InputStream contents = Files.newInputStream(Path.of(arguments[5]))) {
                run(inner, arguments[6], InputStream.nullInputStream());
                run(inner, arguments[7], contents);
            }
        }
        System.exit(0);
    }

    private static void run(ClientSession session, String command, InputStream in) throws Exception {
        try (ChannelExec channel = session.createExecChannel(command)) {
            channel.setIn(in);
            channel.setOut(new Unclosed());
            channel.setErr(System.err);
            channel.open().verify(LONG);
            channel.waitFor(EnumSet.of(ClientChannelEvent.CLOSED), LONG);
        }
        System.out.flush();
    }

    /** The standard output, which stays open when a channel closes. */
    private static final class Unclosed extends OutputStream {
        @Override
        public void write(int value) {
            System.out.write(value);
        }

        @Override
        public void write(byte[] data, int offset, int size) {
            System.out.write(data, offset, size);
        }
    }

    /** Prints a line for each key exchange. */
    private static final class NewKeys implements SessionListener {
        private Session outer;

        @Override
        public void sessionCreated(Session session) {
            outer = outer == null ? session : outer;
        }

        @Override
        public void sessionEvent(Session session, Event event) {
            if (event == Event.KeyEstablished) {
                System.err.println((session == outer ? "outer" : "inner") + ": new keys");
            }
        }
    }
}
