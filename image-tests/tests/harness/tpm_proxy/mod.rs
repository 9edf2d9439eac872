//! The proxy in front of a real swtpm, used by the real tools.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use image_tests::doubles::software_tpm::SoftwareTpm;
use image_tests::doubles::tpm_proxy::{Firmware, Options, Proxy, Slb9670, Upstream};

mod chip;
mod commands;

/// A client with [`Upstream`]'s methods, through the proxy.
fn client(tcti: &str) -> Result<Upstream> {
    let port = tcti.rsplit('=').next().context("a port")?;
    Ok(Upstream::at(port.parse()?))
}

fn chip(firmware: Firmware) -> Options {
    Options {
        chip: Some(Slb9670::new(firmware)),
        latency: None,
    }
}

fn cut_and_restore_power(tpm: &mut SoftwareTpm, proxy: &Proxy) -> Result<()> {
    tpm.pull_the_plug();
    tpm.power_on()?;
    proxy.power_on()
}

/// Runs a tool, given its command line.
fn tool(proxy: &Proxy, line: &str) -> Result<Output> {
    let mut words = line.split_whitespace();
    let name = words.next().context("a tool")?;
    let output = Command::new(name)
        .args(words)
        .env("TPM2TOOLS_TCTI", proxy.tcti())
        .env("TPM2_PKCS11_TCTI", proxy.tcti())
        .output()?;
    Ok(output)
}

fn succeed(proxy: &Proxy, line: &str) -> Result<String> {
    let output = tool(proxy, line)?;
    let (text, errors) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    ensure!(output.status.success(), "{line}: {text}{errors}");
    Ok(text)
}

fn fail(proxy: &Proxy, line: &str, reason: &str) -> Result<()> {
    let output = tool(proxy, line)?;
    let errors = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success(), "{line} succeeded");
    ensure!(errors.contains(reason), "{line}: no {reason} in {errors}");
    Ok(())
}
