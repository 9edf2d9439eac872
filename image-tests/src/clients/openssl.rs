//! OpenSSL 3 with pkcs11-provider: nucleus lite's TLS client.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Identity, basic_environment, installed_provider};
use crate::doubles::tls::{ANSWER, CLOSE, QUESTION, TlsServer};
use crate::process::{bounded, succeed};

/// Completes a handshake with the identity's key and a certificate, which is a file or a URI, says something and hears
/// the answer. The configuration is the one that `OPENSSL_CONF` names, such as firstboot writes for nucleus lite.
pub fn connect(
    identity: &Identity,
    certificate: &str,
    configuration: &Path,
    server: &TlsServer,
) -> Result<()> {
    // At this word the server closes the connection, which ends the client.
    let mut said = tempfile::tempfile()?;
    write!(said, "{QUESTION}\n{CLOSE}\n")?;
    std::io::Seek::rewind(&mut said)?;

    let mut client = identity.command("openssl");
    client
        .env("OPENSSL_CONF", configuration)
        .args(["s_client", "-quiet", server.version().option(), "-connect"])
        .arg(format!("127.0.0.1:{}", server.port()))
        .args(["-servername", "localhost", "-verify_hostname", "localhost"])
        .args(["-verify_return_error", "-CAfile"])
        .arg(server.authority())
        .args(["-cert", certificate])
        .args(["-key", &identity.uri("private")])
        .stdin(Stdio::from(said));
    let heard = succeed(&mut client).context("openssl s_client cannot connect")?;
    ensure!(heard.contains(ANSWER), "the server's answer is {heard:?}");
    Ok(())
}

/// Connects to an IoT data endpoint on this host as a thing, and checks that it is accepted. s_client speaks no MQTT,
/// so this sends a CONNECT and a DISCONNECT of MQTT 3.1.1 (OASIS standard, §3.1, §3.14).
pub fn connect_mqtt(
    identity: &Identity,
    certificate: &str,
    configuration: &Path,
    root_ca: &Path,
    port: u16,
    thing: &str,
) -> Result<()> {
    let id = u8::try_from(thing.len())?;
    let variable = [b"\0\x04MQTT\x04\x02\0\x3c\0", &[id][..], thing.as_bytes()].concat();
    let length = u8::try_from(variable.len())?;
    ensure!(length < 128, "a longer packet needs a longer header");
    let mut said = tempfile::tempfile()?;
    said.write_all(&[&[0x10, length][..], &variable, &[0xe0, 0]].concat())?;
    std::io::Seek::rewind(&mut said)?;

    let mut client = identity.command("openssl");
    client
        .env("OPENSSL_CONF", configuration)
        .args([
            "s_client",
            "-quiet",
            "-connect",
            &format!("localhost:{port}"),
        ])
        .args(["-servername", "localhost", "-verify_hostname", "localhost"])
        .args(["-verify_return_error", "-CAfile"])
        .arg(root_ca)
        .args(["-cert", certificate])
        .args(["-key", &identity.uri("private")])
        .stdin(Stdio::from(said));
    // At DISCONNECT the broker closes without TLS's close_notify, which may be an error to s_client.
    let heard = crate::process::finish(&mut client)?;
    ensure!(
        heard.stdout.as_bytes().starts_with(b"\x20\x02\0\0"),
        "no CONNACK: {heard:?}"
    );
    Ok(())
}

/// A configuration with the provider and the PIN's file, for an identity that firstboot has not configured.
pub fn configuration(identity: &Identity) -> Result<String> {
    Ok(format!(
        "openssl_conf = openssl_init\n\
         [openssl_init]\nproviders = providers\n\
         [providers]\ndefault = standard\npkcs11 = token\n\
         [standard]\nactivate = 1\n\
         [token]\nmodule = {}\npkcs11-module-path = {}\npkcs11-module-token-pin = file:{}\nactivate = 1\n",
        installed_provider()?.display(),
        identity.module.display(),
        identity.pin_file.display(),
    ))
}

/// The openssl command without a token and without the host's configuration.
pub fn plain(arguments: &[&str]) -> Command {
    let mut command = bounded("openssl");
    command.env_clear().envs(basic_environment());
    command.env("OPENSSL_CONF", "/dev/null").args(arguments);
    command
}

/// Verifies a request's signature. Returns the request as text, with its subject and key.
pub fn verify_request(request: &Path) -> Result<String> {
    let mut command = plain(&["req", "-verify", "-noout", "-text", "-in"]);
    succeed(command.arg(request)).context("openssl does not accept the certificate request")
}
