//! Certificates change while Greengrass uses the key: neither disturbs the other.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use image_tests::clients::{Identity, KeyType, openssl, p11tool, pkcs11_tool};
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::{ANSWER, QUESTION};
use image_tests::process::{Background, succeed};

use crate::{resource_manager, usual};

/// A PKCS#11 session that stays logged in: a TLS server with the device's key, which signs in each handshake.
struct Holder {
    server: Background,
    port: u16,
    log: tempfile::NamedTempFile,
}

impl Holder {
    fn start(device: &Device, identity: &Identity) -> Result<Self> {
        let log = tempfile::NamedTempFile::new()?;
        let configuration = device.path("/run/openssl.cnf");
        std::fs::write(&configuration, openssl::configuration(identity)?)?;
        let mut command = unbounded(&identity.command("openssl"))?;
        command
            .env("OPENSSL_CONF", configuration)
            .args(["s_server", "-accept", "127.0.0.1:0", "-rev"])
            .args(["-cert", &identity.uri("cert")])
            .args(["-key", &identity.uri("private")]);
        let (server, port) = Background::start_until(
            &mut command,
            "openssl s_server to listen",
            log.reopen()?,
            |line| {
                let address = line.strip_prefix("ACCEPT ")?;
                address.rsplit_once(':')?.1.trim().parse().ok()
            },
        )
        .with_context(|| std::fs::read_to_string(log.path()).unwrap_or_default())?;
        Ok(Self { server, port, log })
    }

    /// Makes a handshake, in which the client verifies the signature.
    fn sign(&self) -> Result<()> {
        let mut said = tempfile::tempfile()?;
        write!(said, "{QUESTION}\nCLOSE\n")?;
        std::io::Seek::rewind(&mut said)?;
        let to = format!("127.0.0.1:{}", self.port);
        let mut client = openssl::plain(&["s_client", "-quiet", "-tls1_3", "-connect", &to]);
        let heard = succeed(client.stdin(Stdio::from(said)))
            .with_context(|| std::fs::read_to_string(self.log.path()).unwrap_or_default())?;
        ensure!(heard.contains(ANSWER), "the answer is {heard:?}");
        Ok(())
    }
}

/// The program without timeout(1), so that ending it does not leave its child.
fn unbounded(bounded: &Command) -> Result<Command> {
    let mut words = bounded.get_args().skip(2);
    let mut command = Command::new(words.next().context("no program")?);
    command.args(words).env_clear();
    let environment = bounded.get_envs();
    command.envs(environment.filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = bounded.get_current_dir() {
        command.current_dir(directory);
    }
    Ok(command)
}

#[test]
fn a_certificate_is_replaced_while_a_session_signs() -> Result<()> {
    let mut device = usual()?;
    // An edition that reads the certificate from the token.
    device.settings(&offline_settings("nucleus", KeyType::EccP256))?;
    let manager = resource_manager(&device)?;
    let opened = [manager.open()?, manager.open()?];
    device.tcti = Some(opened[0].tcti());
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    let mut identity = device.identity(KeyType::EccP256)?;
    identity.tcti = opened[1].tcti();
    let holder = Holder::start(&device, &identity)?;
    holder.sign()?;

    for _ in 0..3 {
        let newer = authority.sign(&device.request()?)?;
        device.drop_certificate(&newer)?;
        // At least once during each change, and as often as possible.
        let signed = AtomicUsize::new(0);
        thread::scope(|scope| {
            let enrolling = scope.spawn(|| device.succeed(&["enroll"]));
            while !enrolling.is_finished() || signed.load(Ordering::Relaxed) == 0 {
                holder.sign()?;
                signed.fetch_add(1, Ordering::Relaxed);
            }
            let enrolled = enrolling.join();
            enrolled.unwrap_or_else(|_| bail!("enrolling panicked"))
        })?;
        let accepted = device.read("/var/lib/tpm2_pkcs11/certificate.pem")?;
        assert_eq!(accepted.trim(), newer.trim());
    }
    holder.sign()?;
    holder.server.terminate()?;

    // Later clients find the last certificate, and only that.
    p11tool::test_sign(&identity)?;
    let objects = pkcs11_tool::list(&identity)?;
    assert_eq!(
        objects.matches("Certificate Object").count(),
        1,
        "{objects}"
    );
    drop(opened);
    drop(manager);
    assert_eq!(device.tpm.lockout_counter()?, 0);
    assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
    Ok(())
}
