//! Commands through the proxy, the power cut and the resource manager.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{chip, client, cut_and_restore_power, fail, succeed};
use image_tests::doubles::software_tpm::SoftwareTpm;
use image_tests::doubles::tpm_proxy::{
    Firmware, OpenFile, Options, Proxy, Upstream, When, codes, slb9670, wire,
};

#[test]
fn commands_pass_and_are_recorded() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    let proxy = Proxy::start(tpm.upstream(), Options::default())?;
    assert_eq!(succeed(&proxy, "tpm2_getrandom --hex 8")?.len(), 16);
    let log = proxy.take_commands();
    assert_eq!(log.count("GetRandom"), 1);
    assert!(log.0.iter().all(|command| command.response_code == Some(0)));
    assert!(proxy.commands().0.is_empty());
    Ok(())
}

#[test]
fn the_power_goes_before_or_after_a_command() -> Result<()> {
    for (when, happened) in [(When::Before, false), (When::After, true)] {
        let mut tpm = SoftwareTpm::start()?;
        let proxy = Proxy::start(tpm.upstream(), Options::default())?;
        let define = "tpm2_nvdefine 0x1500016 -s 8";
        // Its index among the tool's commands.
        succeed(&proxy, "tpm2_nvdefine 0x1500015 -s 8")?;
        let names = proxy.take_commands().names();
        let place = names
            .iter()
            .position(|name| *name == "NV_DefineSpace")
            .context("place")?;
        let (sender, killed) = std::sync::mpsc::channel();
        proxy.cut(when, place + 1, move || sender.send(()).unwrap());
        assert!(!proxy.was_cut());
        fail(&proxy, define, "")?;
        assert!(proxy.was_cut());
        killed.try_recv()?;
        fail(&proxy, "tpm2_getrandom 8", "")?;
        cut_and_restore_power(&mut tpm, &proxy)?;
        let indices = succeed(&proxy, "tpm2_getcap handles-nv-index")?;
        assert_eq!(indices.contains("0x1500016"), happened, "{when:?}");
    }
    Ok(())
}

#[test]
fn programs_do_not_see_each_others_objects() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    let proxy = Proxy::start(tpm.upstream(), chip(Firmware::V7_63))?;
    let (one, two) = (proxy.open()?, proxy.open()?);
    let (first, second) = (client(&one.tcti())?, client(&two.tcti())?);
    // An object in the null hierarchy, as the proxy makes one.
    let create = slb9670::protected_object();
    let make = |tpm: &Upstream| -> Result<u32> {
        let created = tpm.run(codes::CREATE_PRIMARY, &create)?;
        wire::Fields(&created).u32().context("a handle")
    };
    for tpm in [&first, &second] {
        for handle in [0x80FF_FFFF, 0x80FF_FFFE, 0x80FF_FFFD] {
            assert_eq!(make(tpm)?, handle);
        }
        assert_eq!(wire::response_code(&tpm.exchange(&create)?), Some(0x902));
    }
    assert_eq!(first.handles(0x8000_0000)?.len(), 3);
    let flush = wire::command(
        codes::FLUSH_CONTEXT,
        &[],
        None,
        &0x80FF_FFFE_u32.to_be_bytes(),
    );
    first.run(codes::FLUSH_CONTEXT, &flush)?;
    assert_eq!(first.object_type(0x80FF_FFFE), None);
    assert!(first.object_type(0x80FF_FFFD).is_some());
    assert!(second.object_type(0x80FF_FFFE).is_some());
    assert_eq!(make(&first)?, 0x80FF_FFFE);
    let get_time = wire::command(0x14C, &[0, 0], None, &[]);
    assert_eq!(
        wire::response_code(&first.exchange(&get_time)?),
        Some(0x000B_0143)
    );
    drop((one, two));
    assert!(tpm.upstream().handles(0x8000_0000)?.is_empty());
    Ok(())
}

#[test]
fn a_session_survives_commands_of_others() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    let proxy = Proxy::start(tpm.upstream(), chip(Firmware::V7_85))?;
    let opened = proxy.open()?;
    let session = "tpm2_startauthsession --hmac-session -S";
    let scratch = TempDir::new()?;
    let context = |name: &str| scratch.path().join(name).display().to_string();
    let through = |opened: &OpenFile, line: &str| {
        let mut words = line.split_whitespace();
        let mut tool = Command::new(words.next().unwrap_or_default());
        let output = tool
            .args(words)
            .env("TPM2TOOLS_TCTI", opened.tcti())
            .output()?;
        ensure!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    through(&opened, &format!("{session} {}", context("one")))?;
    let other = proxy.open()?;
    for _ in 0..2 {
        through(
            &other,
            &format!("tpm2_createprimary -C o -c {}", context("primary")),
        )?;
        through(&other, "tpm2_flushcontext -t")?;
        through(&opened, &format!("tpm2_sessionconfig {}", context("one")))?;
    }
    through(&opened, &format!("tpm2_flushcontext {}", context("one")))
}
