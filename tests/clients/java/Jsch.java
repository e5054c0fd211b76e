import com.jcraft.jsch.ChannelExec;
import com.jcraft.jsch.JSch;
import com.jcraft.jsch.Logger;
import com.jcraft.jsch.Session;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.sshd.common.util.net.SshdSocketAddress;

/**
 * The same as Transfer, with JSch, which never renews keys by itself. Its rekey() hangs while data comes: the thread
 * that receives wants to adjust the window, and waits for the new keys that it would receive itself.
 */
public final class Jsch {
    private static final int MILLISECONDS = 300_000;

    private Jsch() {}

    /** Arguments: PROXY USER KEY TARGET LOGIN FILE DOWN UP. */
    public static void main(String[] arguments) throws Exception {
        JSch library = new JSch();
        library.addIdentity(arguments[2]);
        SshdSocketAddress proxy = Client.address(arguments[0]);
        SshdSocketAddress target = Client.address(arguments[3]);
        Session outer = login("outer", library.getSession(arguments[1], proxy.getHostName(), proxy.getPort()));
        int port = outer.setPortForwardingL("127.0.0.1", 0, target.getHostName(), target.getPort());
        Session inner = login("inner", library.getSession(arguments[4], "localhost", port));
        try (InputStream contents = Files.newInputStream(Path.of(arguments[5]))) {
            run(inner, arguments[6], InputStream.nullInputStream());
            run(inner, arguments[7], contents);
        }
        System.out.flush();
        inner.disconnect();
        outer.disconnect();
    }

    private static Session login(String name, Session session) throws Exception {
        session.setConfig("StrictHostKeyChecking", "no");
        session.setLogger(new NewKeys(name));
        session.connect(MILLISECONDS);
        return session;
    }

    private static void run(Session session, String command, InputStream source) throws Exception {
        ChannelExec channel = (ChannelExec) session.openChannel("exec");
        channel.setCommand(command);
        channel.setErrStream(System.err, true);
        InputStream out = channel.getInputStream();
        OutputStream in = channel.getOutputStream();
        channel.connect(MILLISECONDS);
        source.transferTo(in);
        in.close();
        out.transferTo(System.out);
        channel.disconnect();
    }

    /** Prints a line for each key exchange, by what the library logs. */
    private record NewKeys(String name) implements Logger {
        @Override
        public boolean isEnabled(int level) {
            return true;
        }

        @Override
        public void log(int level, String message) {
            if (message.startsWith("kex: algorithm: ")) {
                System.err.println(name + ": new keys");
            }
        }
    }
}
