//! What lies beside the exchange of the keys: networks, resets, and who may read what.

use std::fs;
use std::path::Path;

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::{NETWORK, NEXT, PREVIOUS, STORE};
use serde_json::{Value, json};

use super::Due;
use crate::{assert_ends, exit};

/// A device that has asked for a certificate for its next key, and then been given this network.
fn with_network(network: Value) -> Result<Due> {
    let mut due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let ca = due.authority.certificate_pem()?;
    fs::write(due.device.boot_file("eap-ca.pem"), ca)?;
    due.settings["network"] = json!({ "eap_tls": [network] });
    due.back()?;
    due.device.succeed(&["enroll"])?;
    Ok(due)
}

/// wpa_supplicant's PKCS#11 library has read the old token: the list of networks changes, and so it starts again.
#[test]
fn networks_start_again_with_the_new_key() -> Result<()> {
    let due = with_network(json!({ "interface": "eth0", "domain": "radius.example.com" }))?;
    let networks = || due.device.read("/etc/wpa_supplicant/firstboot/networks");
    let before = networks()?;
    due.certify()?;
    assert!(due.renew()?);
    let units = |list: &str| list.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!((units(&before), units(&networks()?)), (1, 1));
    assert_ne!(networks()?, before);
    Ok(())
}

/// The key that networks have for themselves has no part in it, and their wpa_supplicant goes on.
#[test]
fn the_networks_own_key_stays() -> Result<()> {
    let due =
        with_network(json!({ "interface": "eth0", "domain": "radius.example.com", "key": "own" }))?;
    let device = &due.device;
    let certificate = due.authority.sign(&device.network_request()?)?;
    device.drop_network_certificate(&certificate)?;
    device.succeed(&["enroll"])?;
    let files = || -> Result<Vec<_>> {
        let snapshot = device.snapshot()?;
        let entries = snapshot.entries().iter();
        let is_for_networks =
            |path: &Path| path.starts_with(NETWORK) || path.starts_with("/etc/wpa_supplicant");
        let found = entries.filter(|(path, _)| is_for_networks(path));
        Ok(found
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect())
    };
    let before = files()?;
    assert!(before.len() > 10);
    let key = due.key(STORE)?;
    due.certify()?;
    assert!(due.renew()?);
    assert_ne!(due.key(STORE)?, key);
    assert!(before == files()?);
    Ok(())
}

#[test]
fn reset_removes_all_of_them() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let pin = device.read(format!("{STORE}/pin"))?;
    due.certify_due()?;
    assert!(due.renew()?);
    device.succeed(&["renew"])?;
    assert!(device.exists(NEXT) && device.exists(PREVIOUS));
    let before = device.snapshot()?;
    let holders = before.files_with(pin.as_bytes());
    for place in [STORE, NEXT, PREVIOUS] {
        let pin = format!("{}/pin", place.trim_start_matches('/'));
        assert!(holders.iter().any(|path| path.ends_with(&pin)), "{place}");
    }
    device.succeed(&["reset"])?;
    assert!(!device.exists(NEXT) && !device.exists(PREVIOUS));
    let left = device.snapshot()?;
    assert!(
        left.files_with(pin.as_bytes()).is_empty(),
        "the PIN is left"
    );
    assert!(!due.card()?.iter().any(|name| name.contains(".next.")));
    device.succeed(&["provision"])?;
    Ok(())
}

/// Another program's token in one of them ends the reset before anything of that is destroyed, but not before the claim
/// pair is: nothing else would remove it.
#[test]
fn reset_leaves_another_programs_token() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let claim = "/var/lib/firstboot/claim.key.pem";
    device.write(claim, "a key")?;
    let mut next = device.identity(KeyType::EccP256)?;
    next.store = device.path(NEXT);
    next.pin_file = next.store.join("pin");
    pkcs11_tool::make_token(&next, "vpn")?;
    let pin = next.pin()?;
    let outcome = device.run(&["reset"])?;
    assert_ends(&outcome, exit::OTHER, "token \"vpn\" of another program");
    assert_eq!(next.pin()?, pin);
    assert!(device.exists(STORE));
    assert!(!device.exists(claim));
    Ok(())
}

/// Not in a log, an argument list or the environment of a renewal, and in no file that others can read.
#[test]
fn the_pin_stays_where_it_belongs() -> Result<()> {
    let due = Due::new("nucleus", KeyType::EccP256, "new")?;
    let device = &due.device;
    let loud = |command| device.run_traced(&["--verbose", command]);
    let mut said = loud("renew")?;
    due.certify_due()?;
    for command in ["renew", "enroll", "renew", "status"] {
        said += &loud(command)?;
    }
    for step in ["creating the next identity", "putting the next identity"] {
        assert!(said.contains(step), "{said}");
    }
    let pin = device.read(format!("{STORE}/pin"))?;
    assert!(!said.contains(&pin), "the PIN is in a log or an argument");
    let snapshot = device.snapshot()?;
    let mut found: Vec<String> = snapshot
        .files_with(pin.as_bytes())
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    found.sort();
    let places = [NEXT, PREVIOUS, STORE].map(|place| format!("{place}/pin"));
    let configuration = "/greengrass/v2/config/config.yaml".to_owned();
    let holders: Vec<String> = std::iter::once(configuration).chain(places).collect();
    assert_eq!(found, holders);
    for (path, entry) in snapshot.entries() {
        let path = path.display().to_string();
        if path.starts_with(STORE) || holders.contains(&path) {
            assert_eq!(entry.mode & 0o007, 0, "{path}");
        }
    }
    Ok(())
}

/// Whoever may read the PIN of the edition in service may not read the others: they have the same one.
#[test]
fn the_others_are_for_root_alone() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    due.certify_due()?;
    assert!(due.renew()?);
    device.succeed(&["renew"])?;
    for place in [NEXT, PREVIOUS] {
        let directory = fs::metadata(device.path(place))?;
        let is_closed = directory.gid() == 0 || directory.mode() & 0o077 == 0;
        assert!(is_closed, "{place}: {:o}", directory.mode());
    }
    let group = device.group("ggcore");
    assert_eq!(fs::metadata(device.path(STORE))?.gid(), group);
    let pin = fs::metadata(device.path(format!("{STORE}/pin")))?;
    assert_eq!((pin.gid(), pin.mode() & 0o777), (group, 0o440));
    Ok(())
}
