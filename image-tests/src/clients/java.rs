//! Java with SunPKCS11, configured as by Greengrass's PKCS#11 provider: the nucleus's TLS client.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Identity, pkcs11_tool};
use crate::doubles::tls::{ANSWER, QUESTION, TlsServer};
use crate::process::succeed;

/// Completes a handshake with the identity's key and certificate, and checks the server's answer.
pub fn connect(identity: &Identity, server: &TlsServer) -> Result<()> {
    let slot = pkcs11_tool::slot(identity)?;
    connect_at_slot(identity, slot, server)
}

/// The same with a given slot ID.
pub fn connect_at_slot(identity: &Identity, slot: u64, server: &TlsServer) -> Result<()> {
    // Java compiles a single-file program when it starts it.
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/clients/java/TlsClient.java");
    let mut client = identity.command("java");
    client
        .args(["-XX:TieredStopAtLevel=1", "-Xshare:auto"])
        .arg(program)
        .arg(&identity.module)
        .arg(slot.to_string())
        .arg(&identity.pin_file)
        .arg(&identity.label)
        .arg(server.authority())
        .arg(server.port().to_string())
        .args([server.version().name(), QUESTION]);
    let heard = succeed(&mut client).context("Java cannot connect")?;
    ensure!(
        heard.trim_end() == ANSWER,
        "the server's answer is {heard:?}"
    );
    Ok(())
}
