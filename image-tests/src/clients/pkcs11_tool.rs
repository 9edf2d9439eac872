//! OpenSC's pkcs11-tool: the token's slot and objects, and signatures that the openssl command verifies without
//! PKCS#11.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::openssl::plain as openssl;
use super::{Identity, KeyType};
use crate::process::succeed;

/// The ID of the token's slot, for the configuration of Greengrass's PKCS#11 provider and of Java.
pub fn slot(identity: &Identity) -> Result<u64> {
    let listing = succeed(pkcs11_tool(identity).arg("--list-slots"))?;
    // Slot 0 (0x1): Manufacturer
    //   token label        : greengrass
    let mut slot = None;
    for line in listing.lines() {
        if let Some(rest) = line.strip_prefix("Slot ") {
            let id = rest
                .split_once("(0x")
                .and_then(|(_, id)| id.split_once(')'));
            slot = id.and_then(|(id, _)| u64::from_str_radix(id, 16).ok());
        } else if line.split_once(':').is_some_and(|(name, value)| {
            name.trim() == "token label" && value.trim() == identity.token
        }) {
            return slot.with_context(|| format!("a slot without an ID in: {listing}"));
        }
    }
    bail!("no token {:?} in: {listing}", identity.token)
}

/// The labels of the tokens in the store.
pub fn token_labels(identity: &Identity) -> Result<Vec<String>> {
    let listing = succeed(pkcs11_tool(identity).arg("--list-slots"))?;
    let labels = listing.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "token label").then(|| value.trim().to_owned())
    });
    Ok(labels.collect())
}

/// Creates another token in the store, as a program would that knows nothing of firstboot.
pub fn make_token(identity: &Identity, label: &str) -> Result<()> {
    const SO_PIN: [&str; 2] = ["--so-pin", "12345678"];
    let blank = token_labels(identity)?.len().to_string();
    let mut make = pkcs11_tool(identity);
    make.args(["--init-token", "--slot-index", &blank, "--label", label]);
    succeed(make.args(SO_PIN)).context("cannot make a token")?;
    let mut set_pin = pkcs11_tool(identity);
    set_pin.args(["--token-label", label, "--login", "--login-type", "so"]);
    set_pin
        .args(SO_PIN)
        .args(["--init-pin", "--pin", "12345678"]);
    succeed(&mut set_pin).context("cannot set a token's PIN")?;
    Ok(())
}

/// The tool's list of everything in the token.
pub fn list(identity: &Identity) -> Result<String> {
    succeed(logged_in(identity)?.arg("--list-objects"))
}

/// Writes the token's certificate to a file, as PEM.
pub fn read_certificate(identity: &Identity, pem: &Path) -> Result<()> {
    let der = tempfile::NamedTempFile::new()?;
    let mut read = pkcs11_tool(identity);
    read.args([
        "--read-object",
        "--type",
        "cert",
        "--token-label",
        &identity.token,
    ]);
    read.args(["--label", &identity.label, "--output-file"]);
    succeed(read.arg(der.path())).context("pkcs11-tool cannot read the certificate")?;
    let mut convert = openssl(&["x509", "-inform", "DER", "-in"]);
    succeed(convert.arg(der.path()).arg("-out").arg(pem))?;
    Ok(())
}

/// Signs a message with the token's private key, and verifies it with openssl and the public key.
pub fn sign_and_verify(identity: &Identity) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("message"), "signed by the TPM")?;
    succeed(
        pkcs11_tool(identity)
            .args(["--read-object", "--type", "pubkey"])
            .args(["--token-label", &identity.token])
            .args(["--label", &identity.label, "--output-file"])
            .arg(path("public.der")),
    )
    .context("pkcs11-tool cannot read the public key")?;

    let mut sign = logged_in(identity)?;
    sign.args(["--sign", "--label", &identity.label]);
    match identity.key {
        // The library signs only digests. The tool encodes the signature as DER.
        KeyType::EccP256 => {
            let mut digest = openssl(&["dgst", "-sha256", "-binary", "-out"]);
            succeed(digest.arg(path("input")).arg(path("message")))?;
            sign.args(["--mechanism", "ECDSA", "--signature-format", "openssl"]);
        }
        KeyType::Rsa2048 => {
            std::fs::copy(path("message"), path("input"))?;
            sign.args(["--mechanism", "SHA256-RSA-PKCS"]);
        }
    }
    sign.arg("--input-file").arg(path("input"));
    sign.arg("--output-file").arg(path("signature"));
    succeed(&mut sign).context("pkcs11-tool cannot sign")?;

    let mut verify = openssl(&["dgst", "-sha256", "-keyform", "DER", "-verify"]);
    verify.arg(path("public.der"));
    verify.arg("-signature").arg(path("signature"));
    succeed(verify.arg(path("message"))).context("the signature does not verify")?;
    Ok(())
}

fn pkcs11_tool(identity: &Identity) -> Command {
    let mut command = identity.command("pkcs11-tool");
    command.arg("--module").arg(&identity.module);
    command
}

fn logged_in(identity: &Identity) -> Result<Command> {
    let mut command = pkcs11_tool(identity);
    command.env("PIN", identity.pin()?);
    command.args(["--token-label", &identity.token]);
    command.args(["--login", "--pin", "env:PIN"]);
    Ok(command)
}

/// Deletes the certificate from the token, which firstboot has to notice.
pub fn delete_certificate(identity: &Identity) -> Result<()> {
    let mut delete = logged_in(identity)?;
    delete.args([
        "--delete-object",
        "--type",
        "cert",
        "--label",
        &identity.label,
    ]);
    succeed(&mut delete).context("cannot delete the certificate")?;
    Ok(())
}

/// Adds certificates to the token that are not firstboot's, each with its own label and ID.
pub fn add_certificates(identity: &Identity, certificate: &Path, count: usize) -> Result<()> {
    for n in 0..count {
        let mut write = logged_in(identity)?;
        write.arg("--write-object").arg(certificate);
        write.args(["--type", "cert", "--label", &format!("other-{n}")]);
        succeed(write.args(["--id", &format!("{n:04x}")])).context("cannot add a certificate")?;
    }
    Ok(())
}
