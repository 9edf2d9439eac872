//! What wpa_supplicant reads: written for an enrolled device, kept up to date, and removed; others' files stay.
//! `tests/eap_tls` has wpa_supplicant read it.

use std::fs;
use std::process::Command;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, assert_ends, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::namespaces::{among_private_mounts, mount};
use image_tests::process::succeed;
use serde_json::{Value, json};

use crate::exit;

const FOLDER: &str = "/etc/wpa_supplicant/firstboot";
const IMAGE: &str = "/usr/lib/firstboot/firstboot.json";
const WIRED: &str = "/etc/wpa_supplicant/wpa_supplicant-wired-eth0.conf";
const WIFI: &str = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf";
const DHCP: [&str; 2] = [
    "/etc/systemd/network/zz-firstboot-eth0.network",
    "/etc/systemd/network/zz-firstboot-wlan0.network",
];

fn networks() -> Value {
    json!({
        "country": "DE",
        "eap_tls": [
            { "interface": "eth0", "domain": "radius.example.com" },
            { "interface": "wlan0", "ssid": "Halle Süd", "domain": "wifi.example.com", "identity": "host/${serial}" }
        ]
    })
}

fn want(device: &Device, networks: Value) -> Result<()> {
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["network"] = networks;
    device.settings(&settings)
}

/// An image's settings that need nothing from an operator.
fn complete_image(device: &Device) -> Result<Value> {
    let mut complete: Value = serde_json::from_str(&device.read(IMAGE)?)?;
    let settings = offline_settings("nucleus-lite", KeyType::EccP256);
    for (name, value) in settings.as_object().into_iter().flatten() {
        complete[name] = value.clone();
    }
    Ok(complete)
}

/// A device that wants both networks, and an authority that is theirs and its own.
fn device() -> Result<(Device, Authority)> {
    let device = Device::unprovisioned()?;
    want(&device, networks())?;
    let authority = Authority::new()?;
    fs::write(device.boot_file("eap-ca.pem"), authority.certificate_pem()?)?;
    Ok((device, authority))
}

fn enrolled() -> Result<(Device, Authority)> {
    let (device, authority) = device()?;
    device.enroll_with(&authority)?;
    Ok((device, authority))
}

/// The files below /etc that are not Greengrass's, as long as they are not the device's from the start.
fn written(device: &Device) -> Result<Vec<String>> {
    let snapshot = device.snapshot()?;
    let is_file = |mode: u32| mode & 0o170_000 == 0o100_000;
    let files = snapshot.entries().iter();
    Ok(files
        .filter(|(_, entry)| is_file(entry.mode))
        .map(|(path, _)| path.display().to_string())
        .filter(|path| path.starts_with("/etc/wpa_supplicant") || path.starts_with("/etc/systemd"))
        .collect())
}

/// The units in the list.
fn units(list: &str) -> Vec<&str> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.split_once(' ')?.0))
        .collect()
}

#[test]
fn networks_are_configured_once_there_is_a_certificate() -> Result<()> {
    let (device, authority) = device()?;
    device.succeed(&["provision"])?;
    assert!(written(&device)?.is_empty());
    device.enroll_with(&authority)?;
    let own = [
        "eth0-ca.pem",
        "key.pem",
        "networks",
        "openssl.cnf",
        "wlan0-ca.pem",
        "wpa_supplicant-wired@eth0.env",
        "wpa_supplicant@wlan0.env",
    ]
    .map(|name| format!("{FOLDER}/{name}"));
    let mut all: Vec<String> = DHCP.iter().map(ToString::to_string).collect();
    all.extend(own);
    all.extend([WIRED.to_owned(), WIFI.to_owned()]);
    assert_eq!(written(&device)?, all);

    let networks = device.read(format!("{FOLDER}/networks"))?;
    assert_eq!(
        units(&networks),
        [
            "wpa_supplicant-wired@eth0.service",
            "wpa_supplicant@wlan0.service"
        ]
    );
    let wired = device.read(WIRED)?;
    let wifi = device.read(WIFI)?;
    for (text, lines) in [
        (
            &wired,
            &[
                "ap_scan=0",
                "key_mgmt=IEEE8021X",
                "identity=\"gateway-10000000a1b2c3d4\"",
                "domain_match=\"radius.example.com\"",
                "ca_cert=\"/etc/wpa_supplicant/firstboot/eth0-ca.pem\"",
            ][..],
        ),
        (
            &wifi,
            &[
                "country=DE",
                // UTF-8, as no escape stands for it
                "ssid=48616c6c652053c3bc64",
                "identity=\"host/10000000a1b2c3d4\"",
                "domain_match=\"wifi.example.com\"",
                "ca_cert=\"/etc/wpa_supplicant/firstboot/wlan0-ca.pem\"",
            ],
        ),
    ] {
        for line in lines {
            assert!(text.lines().any(|l| l.trim() == *line), "{line}: {text}");
        }
    }
    let ca = device.read(format!("{FOLDER}/eth0-ca.pem"))?;
    assert_eq!(ca, authority.certificate_pem()?);
    Ok(())
}

/// The last file says that something has changed: with it, wpa_supplicant starts again.
#[test]
fn changes_are_written_and_seen() -> Result<()> {
    let (device, _authority) = enrolled()?;
    let list = || device.read(format!("{FOLDER}/networks"));
    let before = list()?;
    device.succeed(&["enroll"])?;
    assert_eq!(list()?, before);

    let mut other = networks();
    other["eap_tls"][0]["domain"] = json!("other.example.com");
    want(&device, other)?;
    device.succeed(&["enroll"])?;
    assert!(device.read(WIRED)?.contains("other.example.com"));
    // One of the two is the same as before: it goes on.
    let after = list()?;
    let same = after.lines().filter(|line| before.contains(line));
    let same: Vec<_> = same.filter(|line| !line.starts_with('#')).collect();
    assert_eq!(same.len(), 1, "{before}{after}");
    assert!(same[0].starts_with("wpa_supplicant@wlan0.service "));

    fs::set_permissions(
        device.path(WIRED),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )?;
    let first = device.read(WIFI)?.lines().take(1).collect::<String>();
    device.write(WIFI, format!("{first}\n# and edited since"))?;
    want(&device, networks())?;
    device.succeed(&["enroll"])?;
    assert_eq!(list()?, before);
    assert!(device.read(WIFI)?.contains("domain_match"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(device.path(WIRED))?.permissions());
    assert_eq!(mode & 0o7777, 0o644);
    Ok(())
}

#[test]
fn what_is_not_wanted_any_more_is_removed() -> Result<()> {
    let (device, _authority) = enrolled()?;
    let others = "/etc/systemd/network/10-others.network";
    device.write(others, "[Match]\n")?;
    // A power cut before the first write.
    let unwritten = "/etc/wpa_supplicant/wpa_supplicant-wired-eth9.conf.new";
    device.write(unwritten, "")?;
    let mut one = networks();
    one["eap_tls"].as_array_mut().map(|list| list.pop());
    want(&device, one)?;
    device.succeed(&["enroll"])?;
    assert!(device.exists(WIRED) && !device.exists(WIFI));
    assert!(!device.exists(unwritten));
    assert!(device.exists(DHCP[0]) && !device.exists(DHCP[1]));
    assert!(!device.exists(format!("{FOLDER}/wlan0-ca.pem")));

    want(&device, json!({}))?;
    device.succeed(&["enroll"])?;
    assert_eq!(written(&device)?, [others]);
    assert!(!device.exists(FOLDER));
    Ok(())
}

#[test]
fn others_configurations_stay() -> Result<()> {
    let (device, authority) = device()?;
    let theirs = "network={\n}\n";
    device.write(WIRED, theirs)?;
    device.succeed(&["provision"])?;
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "not firstboot's, so it stays");
    assert!(outcome.stderr.contains(WIRED), "{}", outcome.stderr);
    assert_eq!(device.read(WIRED)?, theirs);
    assert!(!device.exists(DHCP[0]));
    assert!(!device.exists(format!("{FOLDER}/wpa_supplicant-wired@eth0.env")));
    assert!(device.exists(WIFI));

    device.succeed(&["reset"])?;
    assert_eq!(written(&device)?, [WIRED]);
    Ok(())
}

/// A copy under another name is an administrator's, whatever is left in it of ours.
#[test]
fn copies_of_our_files_stay() -> Result<()> {
    let (device, _authority) = enrolled()?;
    let copies = [
        (WIRED, "/etc/wpa_supplicant/wpa_supplicant-wired-eth1.conf"),
        (WIFI, "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf.orig"),
        (DHCP[0], "/etc/systemd/network/zz-firstboot-eth1.network"),
    ];
    for (ours, copy) in copies {
        device.write(copy, device.read(ours)? + "# changed\n")?;
    }
    let is_there = |word: &str| -> Result<()> {
        for (_, copy) in copies {
            assert!(device.exists(copy), "{word}: {copy}");
        }
        Ok(())
    };
    device.succeed(&["enroll"])?;
    is_there("enroll")?;
    // Also where it is now in the place of one of ours.
    let mut moved = networks();
    moved["eap_tls"][0]["interface"] = json!("eth1");
    want(&device, moved)?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "eth1.conf: not firstboot's");
    is_there("taken")?;
    device.succeed(&["reset"])?;
    is_there("reset")
}

/// systemd-networkd takes the first file that matches, in the order of their names.
#[test]
fn every_other_networkd_file_comes_before_ours() {
    let own = |path: &&str| path.rsplit('/').next().map(str::to_owned);
    for ours in DHCP.iter().filter_map(own) {
        for theirs in [
            "10-lan.network",
            "80-wired.network",
            "99-wired.network",
            "eth0.network",
            "lan.network",
            "static.network",
            "wired.network",
            "wlan0.network",
        ] {
            assert!(theirs < ours.as_str(), "{theirs} would lose to {ours}");
        }
    }
}

#[test]
fn reset_removes_the_networks() -> Result<()> {
    let (device, _authority) = enrolled()?;
    // Whatever else is left of them.
    fs::remove_dir_all(device.path(FOLDER))?;
    device.succeed(&["reset"])?;
    assert!(written(&device)?.is_empty());
    assert!(!device.exists(FOLDER));
    Ok(())
}

/// A device that believes any server would give its network away.
#[test]
fn there_is_no_network_without_its_ca() -> Result<()> {
    let (device, authority) = device()?;
    let ca = device.boot_file("eap-ca.pem");
    fs::remove_file(&ca)?;
    let refused = |words: &str| -> Result<()> {
        assert_ends(&device.run(&["provision"])?, exit::SETTINGS, words);
        Ok(())
    };
    refused("network.eap_tls[0].ca: there is no CA certificate: ")?;
    fs::write(&ca, "no certificate")?;
    refused("eap-ca.pem: ")?;
    fs::remove_file(&ca)?;
    device.write(
        "/usr/lib/firstboot/eap-ca.pem",
        authority.certificate_pem()?,
    )?;
    device.enroll_with(&authority)?;
    assert!(device.exists(WIRED));
    Ok(())
}

/// An enrolled device keeps its network when the card is damaged.
#[test]
fn a_damaged_card_takes_no_network_away() -> Result<()> {
    let (device, _authority) = enrolled()?;
    let before = written(&device)?;
    fs::remove_file(device.boot_file("eap-ca.pem"))?;
    assert_ends(&device.run(&["enroll"])?, exit::DONE, "no CA certificate");
    assert_eq!(written(&device)?, before);
    Ok(())
}

/// With all else in the image, the settings are complete without a boot partition: they do not say that there is to be
/// no network.
#[test]
fn a_missing_boot_partition_takes_no_network_away() -> Result<()> {
    let (device, authority) = device()?;
    device.write(IMAGE, complete_image(&device)?.to_string())?;
    device.settings(&json!({ "network": networks() }))?;
    device.enroll_with(&authority)?;
    let before = written(&device)?;
    assert!(!before.is_empty());
    let boot = device.path("/boot/firstboot");
    fs::rename(&boot, device.path("/boot/elsewhere"))?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "stay as they are");
    assert_eq!(written(&device)?, before);

    // The operator's word.
    fs::create_dir_all(boot)?;
    device.settings(&json!({ "network": {} }))?;
    device.succeed(&["enroll"])?;
    assert!(written(&device)?.is_empty());
    Ok(())
}

/// Without a firstboot.json from the start, the image's word counts.
#[test]
fn the_images_networks_follow_the_image() -> Result<()> {
    let (device, authority) = device()?;
    let complete = complete_image(&device)?;
    let image = |networks: Value| -> Result<()> {
        let mut image = complete.clone();
        image["network"] = networks;
        device.write(IMAGE, image.to_string())
    };
    image(networks())?;
    device.remove("/boot/firstboot/firstboot.json")?;
    device.enroll_with(&authority)?;
    assert!(device.exists(WIRED));
    image(json!({}))?;
    device.succeed(&["enroll"])?;
    assert!(written(&device)?.is_empty());
    Ok(())
}

/// Whatever is wrong with the networks' files: an enrolled device stays in service, and says it.
#[test]
fn no_trouble_with_networks_takes_a_device_out_of_service() -> Result<()> {
    let in_service = |device: &Device, words: &str| -> Result<()> {
        assert_ends(&device.run(&["enroll"])?, exit::DONE, words);
        let status = device.status()?;
        assert_eq!(
            (&status["state"], &status["in_service"]),
            (&json!("Done"), &json!(true))
        );
        Ok(())
    };
    let (device, _authority) = enrolled()?;
    fs::remove_dir_all(device.path("/etc/systemd/network"))?;
    device.write("/etc/systemd/network", "a file")?;
    in_service(&device, "/etc/systemd/network: ")?;
    assert_eq!(device.status()?["networks"][0]["state"], "trouble");
    device.remove("/etc/systemd/network")?;

    // A directory in the place of a file.
    let key = format!("{FOLDER}/key.pem");
    device.remove(&key)?;
    fs::create_dir(device.path(&key))?;
    in_service(&device, "TPM_GREENGRASS_EAP_TLS")?;
    fs::remove_dir(device.path(&key))?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["networks"][0]["state"], "configured");

    // On a device that wants none, too.
    want(&device, json!({}))?;
    device.succeed(&["enroll"])?;
    device.write(FOLDER, "a file")?;
    in_service(&device, &format!("{FOLDER}: "))
}

/// A CA file is limited as it is given; as it is written, it may be larger.
#[test]
fn a_large_ca_file_is_written() -> Result<()> {
    let (device, authority) = device()?;
    let comment = format!("nsComment={}", "x".repeat(60_000));
    let ca = device.boot_file("eap-ca.pem");
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-keyout",
        "/dev/null",
    ]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=large"]);
    openssl.args(["-addext", &comment, "-outform", "DER", "-out"]);
    succeed(openssl.arg(&ca))?;
    device.enroll_with(&authority)?;
    let written = fs::metadata(device.path(format!("{FOLDER}/eth0-ca.pem")))?;
    assert!(fs::metadata(ca)?.len() <= 64 * 1024 && written.len() > 64 * 1024);
    assert_eq!(device.status()?["networks"][0]["state"], "configured");
    Ok(())
}

/// An image without the package, or with a /etc that cannot be written.
#[test]
fn where_etc_cannot_be_written_all_else_is_done() -> Result<()> {
    let (device, authority) = device()?;
    for directory in ["/etc/greengrass", "/etc/wpa_supplicant"] {
        fs::create_dir_all(device.path(directory))?;
    }
    let (etc, greengrass) = (device.path("/etc"), device.path("/etc/greengrass"));
    among_private_mounts(|| {
        let (etc, greengrass) = (etc.display().to_string(), greengrass.display().to_string());
        mount(&["--bind", &etc, &etc])?;
        mount(&["--bind", &greengrass, &greengrass])?;
        mount(&["-o", "remount,bind,ro", &etc])?;
        device.succeed(&["provision"])?;
        device.drop_certificate(&authority.sign(&device.request()?)?)?;
        let outcome = device.run(&["enroll"])?;
        assert_ends(&outcome, exit::DONE, "TPM_GREENGRASS_EAP_TLS");
        assert!(device.exists("/etc/greengrass/config.yaml") && !device.exists(WIRED));
        let status = device.status()?;
        assert_eq!(status["state"], "Done");
        assert_eq!(status["networks"][0]["state"], "trouble");
        // `firstboot renew` is not kept from its own work either.
        assert_ends(&device.run(&["renew"])?, exit::DONE, "");
        Ok(())
    })
}

/// Another identity has no certificate yet, so that there is nothing to show a network.
#[test]
fn a_network_goes_with_its_identity() -> Result<()> {
    let (device, authority) = enrolled()?;
    fs::remove_dir_all(device.path("/var/lib/tpm2_pkcs11"))?;
    device.succeed(&["provision"])?;
    let stale = device.run(&["enroll"])?;
    assert_ends(&stale, exit::WAITING, "it is for another key");
    assert!(written(&device)?.is_empty());
    assert_eq!(device.status()?["networks"][0]["state"], "waiting");
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    device.succeed(&["enroll"])?;
    assert!(device.exists(WIRED));
    Ok(())
}

#[test]
fn the_status_says_what_each_network_waits_for() -> Result<()> {
    let (device, authority) = device()?;
    device.write(WIRED, "network={\n}\n")?;
    device.run(&["enroll"])?;
    let status = device.status()?;
    assert_eq!(status["networks"][0]["interface"], "eth0");
    assert_eq!(status["networks"][0]["state"], "waiting");
    let reason = "needs the device's certificate";
    assert_eq!(status["networks"][0]["reason"], reason);
    assert_eq!(status["networks"][1]["ssid"], "Halle Süd");
    device.enroll_with(&authority)?;
    let status = device.status()?;
    assert_eq!(status["networks"][0]["state"], "taken");
    let reason = status["networks"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(WIRED), "{reason}");
    assert_eq!(status["networks"][1]["state"], "configured");

    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["network"] = networks();
    settings["enrollment"] = json!({ "method": "fleet-provisioning", "template_name": "t" });
    let (device, _authority) = self::device()?;
    device.settings(&settings)?;
    device.run(&["enroll"])?;
    let status = device.status()?;
    let reason = status["networks"][0]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("cannot fetch over this network"),
        "{status}"
    );
    Ok(())
}
