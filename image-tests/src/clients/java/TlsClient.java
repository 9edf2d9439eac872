// A TLS client whose key is in a PKCS#11 token, loaded as PKCS11CryptoKeyService of Greengrass's PKCS#11
// provider loads it. Started by clients/java.rs, with the PIN in a file.

import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.Provider;
import java.security.Security;
import java.security.cert.CertificateFactory;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public class TlsClient {
    public static void main(String[] arguments) throws Exception {
        String module = arguments[0];
        String slot = arguments[1];
        char[] pin = Files.readString(Path.of(arguments[2])).strip().toCharArray();
        String label = arguments[3];
        Path authority = Path.of(arguments[4]);
        int port = Integer.parseInt(arguments[5]);
        String version = arguments[6];
        // What to say: a line, or "@" and the name of a file that holds it.
        byte[] question = arguments[7].startsWith("@")
            ? Files.readAllBytes(Path.of(arguments[7].substring(1)))
            : (arguments[7] + "\n").getBytes(StandardCharsets.UTF_8);

        String configuration = "name=greengrass\nlibrary=" + module + "\nslot=" + slot;
        Provider provider = Security.getProvider("SunPKCS11").configure("--" + configuration);
        Security.addProvider(provider);
        KeyStore token = KeyStore.getInstance("PKCS11", provider);
        token.load(null, pin);
        if (!token.containsAlias(label) || !token.isKeyEntry(label)) {
            throw new IllegalStateException("no key " + label + " in the token, which has "
                + java.util.Collections.list(token.aliases()));
        }

        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(token, pin);
        TrustManagerFactory trust =
            TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusting(authority));
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(keys.getKeyManagers(), trust.getTrustManagers(), null);

        try (Socket tcp = new Socket(InetAddress.getLoopbackAddress(), port);
                SSLSocket socket = (SSLSocket) tls.getSocketFactory().createSocket(tcp, "localhost", port, true)) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setProtocols(new String[] {version});
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            socket.getOutputStream().write(question);
            BufferedReader answers = new BufferedReader(
                new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8));
            System.out.println(answers.readLine());
        }
    }

    private static KeyStore trusting(Path authority) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (InputStream pem = Files.newInputStream(authority)) {
            trusted.setCertificateEntry("operator",
                CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        return trusted;
    }
}
