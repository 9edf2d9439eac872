//! `make demo`: an unprovisioned software TPM becomes a Greengrass identity, and a TLS client proves it. Shows a
//! device's first two boots step by step, as an operator would see them.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use image_tests::clients::{Identity, KeyType, java, openssl, p11tool};
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::{TlsServer, Version};

const EDITIONS: [&str; 3] = ["nucleus-lite", "nucleus", "v1"];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let edition = arguments.next().unwrap_or_else(|| EDITIONS[0].to_owned());
    let key = match arguments.next().as_deref() {
        None | Some("ecc-p256") => KeyType::EccP256,
        Some("rsa-2048") => KeyType::Rsa2048,
        Some(other) => bail!("KEY={other} is not one of ecc-p256, rsa-2048"),
    };
    if !EDITIONS.contains(&edition.as_str()) {
        bail!("EDITION={edition} is not one of {}", EDITIONS.join(", "));
    }
    let mut page = Page::default();
    page.chapter("A device that has never been booted");
    let device = Device::unprovisioned()?;
    let authority = Authority::new()?;
    device.settings(&offline_settings(&edition, key))?;
    std::fs::write(
        device.boot_file("root-ca.pem"),
        authority.certificate_pem()?,
    )?;
    page.say(&format!(
        "a software TPM (swtpm) at {}, factory-fresh",
        device.tpm.tcti()
    ));
    page.say(&format!("edition {edition}, key {}", key.name()));
    page.say(&format!("persistent TPM handles: {}", handles(&device)?));
    page.say(
        "on the card: firstboot.json and the root certificate; no PIN, no key, no certificate",
    );

    page.chapter("First boot: firstboot provision");
    page.command(&device, "provision")?;
    page.say(&format!("persistent TPM handles: {}", handles(&device)?));
    let request = device.request()?;
    page.say(&format!("on the card: {}", shown(&device, &request)));

    page.chapter("At the operator's: the CA signs the request");
    openssl::verify_request(&request)?;
    let certificate = device.drop_certificate(&authority.sign(&request)?)?;
    page.say("openssl req -verify: the request is signed with the key that it is for");
    page.say(&format!("onto the card: {}", shown(&device, &certificate)));

    page.chapter("Second boot: firstboot enroll");
    page.command(&device, "enroll")?;
    let identity = identity(&device, &edition, key)?;
    page.say("what Greengrass is told of its key and certificate:");
    for uri in uris(&device, &edition)? {
        page.say(&format!("    {uri}"));
    }
    page.say("what is in the token, as p11tool sees it:");
    for url in p11tool::list(&identity)? {
        page.say(&format!("    {url}"));
    }
    page.say("files on the device (mode, owner:group):");
    for (path, entry) in device.snapshot()?.entries() {
        let ours = ["/var/lib", "/etc/greengrass", "/greengrass"]
            .iter()
            .any(|place| path.starts_with(place));
        if ours && device.path(path).is_file() {
            page.say(&format!(
                "    {:04o} {}:{}  {}",
                entry.mode & 0o7777,
                entry.uid,
                entry.gid,
                path.display()
            ));
        }
    }

    page.chapter("The proof: TLS 1.3 with client authentication by the TPM's key");
    let server = TlsServer::start(&authority, Version::Tls13)?;
    let start = Instant::now();
    let client = connect(&device, &identity, &edition, &server)?;
    let seconds = start.elapsed().as_secs_f64();
    let name = format!("gateway-{}", image_tests::device::SERIAL);
    if !server.authenticated(&name) {
        bail!(
            "the server has not seen {name}'s certificate:\n{}",
            server.log()
        );
    }
    page.say(&format!(
        "{client} connected in {seconds:.2} s; the server verified CN={name}"
    ));

    page.chapter("Every later boot");
    page.command(&device, "enroll")?;
    page.say(&format!("persistent TPM handles: {}", handles(&device)?));
    page.say(&format!(
        "failed tries that the TPM counts: {}",
        device.tpm.lockout_counter()?
    ));
    println!();
    Ok(())
}

/// Connects as the edition does, if its client is installed: SunPKCS11 for the nucleus, OpenSSL for the others.
fn connect(
    device: &Device,
    identity: &Identity,
    edition: &str,
    server: &TlsServer,
) -> Result<&'static str> {
    let has_java = Command::new("java").arg("-version").output().is_ok();
    if edition == "nucleus" && has_java {
        java::connect(identity, server)?;
        return Ok("Java's SunPKCS11");
    }
    let (certificate, configuration) = if edition == "nucleus-lite" {
        (device.lite_certificate()?, device.openssl_conf()?)
    } else {
        let path = device.path("/run/openssl.cnf");
        std::fs::write(&path, openssl::configuration(identity)?)?;
        (identity.uri("cert"), path)
    };
    openssl::connect(identity, &certificate, &configuration, server)?;
    Ok("OpenSSL with pkcs11-provider")
}

fn identity(device: &Device, edition: &str, key: KeyType) -> Result<Identity> {
    match edition {
        "nucleus-lite" => device.identity_of_greengrass(key),
        _ => device.identity(key),
    }
}

fn handles(device: &Device) -> Result<String> {
    let handles = device.tpm.persistent_handles()?;
    if handles.is_empty() {
        return Ok("none".to_owned());
    }
    let mut text = String::new();
    for handle in handles {
        write!(text, "{handle:#010x} ")?;
    }
    Ok(text.trim_end().to_owned())
}

/// A path on the device, without this host's temporary directory.
fn shown(device: &Device, path: &std::path::Path) -> String {
    let below = path.strip_prefix(device.root()).unwrap_or(path);
    format!("/{}", below.display())
}

/// The PKCS#11 URIs, or paths, of key and certificate in the configuration.
fn uris(device: &Device, edition: &str) -> Result<Vec<String>> {
    let (path, pointers) = match edition {
        "v1" => (
            "/greengrass/config/config.json",
            [
                "/crypto/principals/IoTCertificate/privateKeyPath",
                "/crypto/principals/IoTCertificate/certificatePath",
            ],
        ),
        "nucleus" => ("/greengrass/v2/config/config.yaml", V2_POINTERS),
        _ => ("/etc/greengrass/config.yaml", V2_POINTERS),
    };
    let config: serde_json::Value = serde_json::from_str(&device.read(path)?)?;
    Ok(pointers
        .iter()
        .filter_map(|pointer| Some(config.pointer(pointer)?.as_str()?.to_owned()))
        .collect())
}

const V2_POINTERS: [&str; 2] = ["/system/privateKeyPath", "/system/certificateFilePath"];

/// The page that is printed, in chapters.
#[derive(Default)]
struct Page {
    chapters: u32,
}

impl Page {
    fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        println!("\n{}. {title}\n", self.chapters);
    }

    fn say(&self, line: &str) {
        println!("   {line}");
    }

    /// Runs firstboot and shows its log.
    fn command(&self, device: &Device, command: &str) -> Result<()> {
        let outcome = device.run(&[command])?;
        let root = device.root().display().to_string();
        for line in outcome.stderr.lines() {
            self.say(&format!("| {}", line.replace(&root, "")));
        }
        if outcome.code != 0 {
            bail!(
                "firstboot {command} ended with {}:\n{}",
                outcome.code,
                outcome.stderr
            );
        }
        let text = std::fs::read(device.boot_file("status.json")).context("no status.json")?;
        let status: serde_json::Value = serde_json::from_slice(&text)?;
        self.say(&format!(
            "took {:.2} s; status.json on the card: {}",
            outcome.elapsed.as_secs_f64(),
            status["state"]
        ));
        Ok(())
    }
}
