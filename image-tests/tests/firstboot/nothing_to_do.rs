//! A boot with nothing to do: a few TPM commands, no PKCS#11 library, no login, nothing written.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, PREVIOUS, offline_settings};
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::tpm_proxy::{Options, Proxy};
use image_tests::faults::storage::{Kind, trace};
use serde_json::json;

use crate::renewal::Due;
use crate::usual;

/// The limit for a boot with nothing to do.
const MOST_COMMANDS: usize = 3;
/// Five files of the identity, two of the request, the status; and the directories that hold them and the identity,
/// some of which are new.
const MOST_SYNCS: usize = 18;

#[track_caller]
fn assert_is_idle(device: &mut Device, command: &str) -> Result<()> {
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    device.tcti = Some(proxy.tcti());
    let before = device.snapshot()?;
    device.succeed(&[command])?;
    before.assert_same(&device.snapshot()?);
    let commands = proxy.take_commands().names();
    assert!(commands.len() <= MOST_COMMANDS, "{command}: {commands:?}");
    assert!(!commands.is_empty(), "{command}: the proxy saw nothing");
    device.tcti = None;

    let log = tempfile::NamedTempFile::new()?;
    let firstboot = device.firstboot(&[command])?;
    let mut strace = std::process::Command::new("strace");
    strace
        .args(["-f", "-e", "trace=execve,openat,open", "-o"])
        .arg(log.path());
    strace
        .arg(firstboot.get_program())
        .args(firstboot.get_args());
    image_tests::process::succeed(&mut strace)?;
    let opened = std::fs::read_to_string(log.path())?;
    assert!(
        opened.contains("libtss2-esys"),
        "strace shows no libraries: {opened}"
    );
    // Most symbols that are looked up at a start are libcrypto's own, and the libraries are searched in this order.
    assert!(
        opened.find("libcrypto") < opened.find("libtss2"),
        "libcrypto is not the first library: {opened}"
    );
    assert!(
        !opened.contains("libtpm2_pkcs11"),
        "{command} loaded the PKCS#11 library"
    );
    // Each would be a good part of such a boot's processor time.
    assert!(!opened.contains("libssl"), "{command} loaded libssl");
    let has_own_configuration = |line: &str| {
        line.contains("openssl.cnf") && !line.contains(&device.root().display().to_string())
    };
    assert!(
        !opened.lines().any(has_own_configuration),
        "{command} initialised libcrypto"
    );
    Ok(())
}

/// Each sync of a card is slow: tpm2-pkcs11's 48, for a token that is not in place yet, are not made on it.
#[test]
fn a_first_boot_syncs_each_file_once() -> Result<()> {
    let device = usual()?;
    let calls = trace(device.firstboot(&["provision"])?, device.root())?;
    let run = device.path("/run");
    let syncs: Vec<String> = calls
        .iter()
        .filter(|call| matches!(call.kind, Kind::Sync | Kind::SyncData | Kind::SyncAll))
        .filter(|call| !call.path.starts_with(&run))
        .map(ToString::to_string)
        .collect();
    assert!(syncs.len() >= 10, "{syncs:#?}");
    assert!(syncs.len() <= MOST_SYNCS, "{syncs:#?}");
    Ok(())
}

#[test]
fn little_is_done_while_waiting_for_the_certificate() -> Result<()> {
    let mut device = usual()?;
    device.succeed(&["provision"])?;
    assert_is_idle(&mut device, "provision")
}

#[test]
fn little_is_done_when_enrolled() -> Result<()> {
    let mut device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    assert_is_idle(&mut device, "provision")?;
    assert_is_idle(&mut device, "enroll")?;
    assert_is_idle(&mut device, "renew")
}

/// The setting `renew` costs a device nothing before a certificate is due.
#[test]
fn little_is_done_until_a_renewal_is_due() -> Result<()> {
    let mut device = usual()?;
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    let young = authority.sign_valid(&device.request()?, Validity::YOUNG)?;
    device.drop_certificate(&young)?;
    device.succeed(&["enroll"])?;
    for key in ["keep", "new"] {
        set_renew(&device, key)?;
        // The status says from when it is due.
        device.succeed(&["enroll"])?;
        for command in ["provision", "enroll", "renew"] {
            assert_is_idle(&mut device, command)?;
        }
        assert_eq!(device.status()?["renewal"]["due"], false);
    }
    Ok(())
}

/// Nor does an identity that is kept after a renewal with a new key.
#[test]
fn little_is_done_beside_a_previous_identity() -> Result<()> {
    let mut due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    due.certify()?;
    assert!(due.renew()?);
    for key in ["new", "keep"] {
        due.settings["renew"] = json!({ "key": key });
        due.device.settings(&due.settings)?;
        for command in ["provision", "enroll", "renew"] {
            assert_is_idle(&mut due.device, command)?;
        }
        assert_eq!(due.device.status()?["renewal"]["due"], false);
        assert!(due.device.exists(PREVIOUS));
    }
    Ok(())
}

/// A device in service, whose certificate has little time left.
fn with_an_old_certificate(authority: &Authority) -> Result<Device> {
    let device = usual()?;
    device.enroll_with(authority)?;
    let old = Validity::Days { over: 90, left: 40 };
    device.drop_certificate(&authority.sign_valid(&device.request()?, old)?)?;
    device.succeed(&["enroll"])?;
    Ok(device)
}

/// The settings want renewals with this key.
fn set_renew(device: &Device, key: &str) -> Result<()> {
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["enrollment"]["trust_clock"] = json!(true);
    settings["renew"] = json!({ "key": key });
    device.settings(&settings)
}

/// A certificate that is due is asked for, for this key.
fn ask_for_a_renewal(device: &Device, key: &str) -> Result<()> {
    set_renew(device, key)?;
    device.succeed(&["renew"])?;
    assert_eq!(device.status()?["renewal"]["due"], true);
    Ok(())
}

/// That it was asked for is noted once, also where the request cannot be published: not again at each start.
#[test]
fn when_a_request_cannot_be_published() -> Result<()> {
    let mut device = with_an_old_certificate(&Authority::new()?)?;
    let requests = device.boot_file("requests");
    std::fs::remove_dir_all(&requests)?;
    std::fs::write(&requests, "a file in its place")?;
    for key in ["keep", "new"] {
        ask_for_a_renewal(&device, key)?;
        assert!(device.exists("/var/lib/tpm2_pkcs11/asked.json"));
        for command in ["enroll", "renew"] {
            // Each has words of its own for the card.
            device.succeed(&[command])?;
            assert_is_idle(&mut device, command)?;
        }
    }
    Ok(())
}

/// A certificate is due, was asked for, and has not come: that costs no more than waiting for the first one.
#[test]
fn when_a_renewal_is_awaited() -> Result<()> {
    let authority = Authority::new()?;
    let mut device = with_an_old_certificate(&authority)?;
    for key in ["keep", "new"] {
        ask_for_a_renewal(&device, key)?;
        for command in ["provision", "enroll", "renew"] {
            assert_is_idle(&mut device, command)?;
        }
    }
    // A boot leaves alone what has to be tried, or was refused.
    let young = Validity::Days { over: 1, left: 99 };
    device.drop_certificate(&authority.sign_valid(&device.request()?, young)?)?;
    device.succeed(&["enroll"])?;
    for command in ["provision", "enroll"] {
        assert_is_idle(&mut device, command)?;
    }
    Ok(())
}

/// Networks are compared with files, and the TPM is not asked about them.
#[test]
fn little_is_done_with_networks() -> Result<()> {
    let mut device = usual()?;
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["network"] = json!({
        "eap_tls": [{ "interface": "eth0", "domain": "radius.example.com" }]
    });
    device.settings(&settings)?;
    let authority = Authority::new()?;
    std::fs::write(device.boot_file("eap-ca.pem"), authority.certificate_pem()?)?;
    device.enroll_with(&authority)?;
    assert!(device.exists("/etc/wpa_supplicant/firstboot/networks"));
    assert_is_idle(&mut device, "enroll")
}

/// The key that networks have for themselves is looked at in files, whether its certificate is there or not.
#[test]
fn little_is_done_with_a_key_of_the_networks_own() -> Result<()> {
    let mut device = usual()?;
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["network"] = json!({
        "eap_tls": [{ "interface": "eth0", "domain": "radius.example.com", "key": "own" }]
    });
    device.settings(&settings)?;
    let authority = Authority::new()?;
    std::fs::write(device.boot_file("eap-ca.pem"), authority.certificate_pem()?)?;
    device.enroll_with(&authority)?;
    let is_idle = |device: &mut Device| -> Result<()> {
        for command in ["provision", "enroll", "renew"] {
            assert_is_idle(device, command)?;
        }
        Ok(())
    };
    is_idle(&mut device)?;
    let request = device.network_request()?;
    device.drop_network_certificate(&authority.sign(&request)?)?;
    device.succeed(&["enroll"])?;
    assert!(device.exists("/etc/wpa_supplicant/firstboot/openssl-own.cnf"));
    is_idle(&mut device)
}

/// An unrelated certificate is left out once, not parsed at each boot.
#[test]
fn little_is_done_with_an_unrelated_certificate() -> Result<()> {
    let mut device = usual()?;
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    let pem = device.read("/var/lib/tpm2_pkcs11/certificate.pem")?;
    let stray = authority.certificate_of_another_key("stray")?;
    device.drop_certificate(&format!("{stray}{pem}"))?;
    assert_is_idle(&mut device, "enroll")
}

/// A waiting device does not write its FAT partition at each boot.
#[test]
fn waiting_writes_nothing_either() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    device.run(&["enroll"])?;
    let before = device.snapshot()?;
    for _ in 0..3 {
        device.run(&["provision"])?;
        device.run(&["enroll"])?;
    }
    before.assert_same(&device.snapshot()?);
    Ok(())
}
