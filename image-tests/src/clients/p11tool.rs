//! GnuTLS's p11tool, which AWS's tutorials use to look at a token.

use anyhow::{Result, ensure};

use super::Identity;
use crate::process::{Finished, finish};

/// The URLs of everything in the token, private objects included.
pub fn list(identity: &Identity) -> Result<Vec<String>> {
    let token = format!("pkcs11:token={}", identity.token);
    let listing = p11tool(identity, "--list-all", &token)?.stdout;
    let urls = listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("URL: "));
    Ok(urls.map(str::to_owned).collect())
}

/// Signs with the private key, and verifies with the public key in the token.
pub fn test_sign(identity: &Identity) -> Result<()> {
    let said = p11tool(identity, "--test-sign", &identity.uri("private"))?.stderr;
    // "Signing using ECDSA-SHA256... ok", then two lines about verifying. Not every failure sets the exit status.
    let ok = said.lines().filter(|line| line.ends_with("... ok")).count();
    ensure!(ok == 3, "p11tool --test-sign says: {said}");
    Ok(())
}

fn p11tool(identity: &Identity, action: &str, url: &str) -> Result<Finished> {
    let mut command = identity.command("p11tool");
    command
        .env("GNUTLS_PIN", identity.pin()?)
        .arg("--provider")
        .arg(&identity.module)
        .args(["--batch", "--login", action, url]);
    let finished = finish(&mut command)?;
    ensure!(
        finished.code == 0,
        "p11tool {action} cannot use the token: {}{}",
        finished.stdout,
        finished.stderr
    );
    Ok(finished)
}
