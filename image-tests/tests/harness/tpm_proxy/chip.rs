//! The SLB 9670, as real tools and the real PKCS#11 library see it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{chip, client, cut_and_restore_power, fail, succeed};
use image_tests::doubles::software_tpm::SoftwareTpm;
use image_tests::doubles::tpm_proxy::{Firmware, Latency, Options, Proxy, codes, wire};

#[test]
fn capabilities_are_the_chips() -> Result<()> {
    for (firmware, commands, revision, transient) in [
        (Firmware::V7_63, 90, "1.16", "0x3"),
        (Firmware::V7_85, 97, "1.38", "0x4"),
    ] {
        let tpm = SoftwareTpm::start()?;
        let proxy = Proxy::start(tpm.upstream(), chip(firmware))?;
        let listed = succeed(&proxy, "tpm2_getcap commands")?;
        assert_eq!(listed.matches("commandIndex").count(), commands);
        assert_eq!(
            listed.contains("TPM2_CC_CreateLoaded"),
            firmware == Firmware::V7_85
        );
        let fixed = succeed(&proxy, "tpm2_getcap properties-fixed")?;
        assert!(
            fixed.contains("SLB9") && fixed.contains(revision),
            "{fixed}"
        );
        let variable = succeed(&proxy, "tpm2_getcap properties-variable")?;
        for line in [
            "TPM2_PT_MAX_AUTH_FAIL: 0x20",
            "TPM2_PT_LOCKOUT_INTERVAL: 0x1C20",
            "TPM2_PT_LOCKOUT_RECOVERY: 0x15180",
            "TPM2_PT_HR_PERSISTENT_AVAIL: 0x7",
            &format!("TPM2_PT_HR_TRANSIENT_AVAIL: {transient}"),
        ] {
            assert!(variable.contains(line), "no {line} in {variable}");
        }
        assert_eq!(
            succeed(&proxy, "tpm2_getcap ecc-curves")?.lines().count(),
            2
        );
        assert_eq!(
            succeed(&proxy, "tpm2_getcap algorithms")?
                .matches("value:")
                .count(),
            19
        );
        assert!(!succeed(&proxy, "tpm2_getcap pcrs")?.contains("sha384"));
    }
    Ok(())
}

#[test]
fn what_the_chip_cannot_do_is_refused() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    let proxy = Proxy::start(tpm.upstream(), chip(Firmware::V7_85))?;
    let scratch = TempDir::new()?;
    let primary = scratch.path().join("primary");
    let create = format!("tpm2_createprimary -C o -c {} -G", primary.display());
    fail(&proxy, &format!("{create} ecc384"), "0x2E6")?;
    fail(&proxy, &format!("{create} rsa3072"), "0x2C4")?;
    fail(&proxy, &format!("{create} ecc256:aes256cfb"), "0x2C7")?;
    let random = wire::command(codes::GET_RANDOM, &[], None, &48_u16.to_be_bytes());
    assert_eq!(
        client(&proxy.tcti())?
            .run(codes::GET_RANDOM, &random)?
            .len(),
        2 + 32
    );
    succeed(&proxy, "tpm2_nvdefine 0x1500016 -s 2048")?;
    fail(&proxy, "tpm2_nvdefine 0x1500017 -s 2049", "0x2D5")?;
    for slot in 0..8 {
        succeed(&proxy, &format!("{create} ecc256"))?;
        let keep = format!(
            "tpm2_evictcontrol -C o -c {} 0x8100001{slot}",
            primary.display()
        );
        if slot < 7 {
            succeed(&proxy, &keep)?;
        } else {
            fail(&proxy, &keep, "0x14B")?;
        }
        succeed(&proxy, "tpm2_flushcontext -t")?;
    }
    for _ in 0..3 {
        succeed(&proxy, &format!("{create} ecc256"))?;
    }
    fail(&proxy, &format!("{create} ecc256"), "0x902")?;
    succeed(&proxy, "tpm2_flushcontext -t")?;
    // An HMAC session, unbound, unsalted, SHA-256: Part 3, "TPM2_StartAuthSession"
    let nothing = 0x4000_0007;
    let nonce = wire::tpm2b(&[1; 16]);
    let parameters = [&nonce[..], &[0, 0, 0, 0, 0x10, 0, 0x0B]].concat();
    let start = wire::command(codes::START_AUTH_SESSION, &[nothing; 2], None, &parameters);
    let start_session = || -> Result<_> {
        let response = client(&proxy.tcti())?.exchange(&start)?;
        Ok(wire::response_code(&response))
    };
    for expected in [0, 0, 0, 0x903] {
        assert_eq!(start_session()?, Some(expected));
    }
    succeed(&proxy, "tpm2_flushcontext -l")?;
    // The old firmware.
    proxy.set_options(chip(Firmware::V7_63))?;
    fail(&proxy, "tpm2_gettime -c 0x81000010 -q 00", "0x143")
}

#[test]
fn every_hard_power_off_counts_as_a_failed_try() -> Result<()> {
    let counter = |proxy: &Proxy, value| -> Result<()> {
        let variable = succeed(proxy, "tpm2_getcap properties-variable")?;
        let line = format!("TPM2_PT_LOCKOUT_COUNTER: {value}\n");
        ensure!(variable.contains(&line), "no {line} in {variable}");
        Ok(())
    };
    let mut tpm = SoftwareTpm::start()?;
    let proxy = Proxy::start(tpm.upstream(), chip(Firmware::V7_85))?;
    for cuts in 1..=3 {
        cut_and_restore_power(&mut tpm, &proxy)?;
        counter(&proxy, format!("{cuts:#X}").replace('X', "x"))?;
    }
    succeed(&proxy, "tpm2_shutdown")?;
    cut_and_restore_power(&mut tpm, &proxy)?;
    counter(&proxy, "0x3".into())?;
    succeed(&proxy, "tpm2_dictionarylockout --clear-lockout")?;
    succeed(
        &proxy,
        "tpm2_dictionarylockout --setup-parameters --max-tries=2 --recovery-time=1000 --lockout-recovery-time=1000",
    )?;
    for cuts in ["0x1", "0x2", "0x2"] {
        cut_and_restore_power(&mut tpm, &proxy)?;
        counter(&proxy, cuts.into())?;
    }
    Ok(())
}

#[test]
fn clearing_keeps_the_chips_lockout_parameters() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    let proxy = Proxy::start(tpm.upstream(), chip(Firmware::V7_85))?;
    succeed(&proxy, "tpm2_clear")?;
    let variable = succeed(&proxy, "tpm2_getcap properties-variable")?;
    assert!(
        variable.contains("TPM2_PT_MAX_AUTH_FAIL: 0x20"),
        "{variable}"
    );
    Ok(())
}

#[test]
fn tpm2_pkcs11_takes_both_paths() -> Result<()> {
    for (firmware, create) in [
        (Firmware::V7_63, "Create"),
        (Firmware::V7_85, "CreateLoaded"),
    ] {
        let tpm = SoftwareTpm::start()?;
        let latency = Latency::new(firmware, 1);
        let options = Options {
            latency: Some(latency),
            ..chip(firmware)
        };
        let proxy = Proxy::start(tpm.upstream(), options)?;
        let store = TempDir::new()?;
        let library = |line: &str| -> Result<()> {
            let output = Command::new("pkcs11-tool")
                .args(["--module", "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1"])
                .args(line.split_whitespace())
                .env("TPM2_PKCS11_STORE", store.path())
                .env("TPM2_PKCS11_TCTI", proxy.tcti())
                .output()?;
            ensure!(
                output.status.success(),
                "{line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(())
        };
        library("--init-token --label t --so-pin s")?;
        // On a device, only the storage root key outlives a process.
        succeed(&proxy, "tpm2_flushcontext -t")?;
        library("--init-pin --token-label t --login --so-pin s --pin u")?;
        proxy.take_commands();
        library("--token-label t --login --pin u --keypairgen --key-type EC:prime256v1 --id 01")?;
        let log = proxy.take_commands();
        assert!(log.count(create) > 0, "{:?}", log.names());
        assert_eq!(log.count("CreateLoaded") > 0, firmware == Firmware::V7_85);
        eprintln!(
            "{firmware:?}: {} commands, {:?} on the chip",
            log.0.len(),
            log.chip_time()
        );
        assert!(log.chip_time() > Duration::from_millis(100));
    }
    Ok(())
}
