//! A key that networks have for themselves: an identity beside the device's, which takes nothing from it.
//! `tests/eap_tls` has wpa_supplicant use it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::station::Station;
use image_tests::device::{Device, NETWORK, STORE, assert_ends, offline_settings};
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::software_tpm::{Ek, SoftwareTpm};
use image_tests::process::succeed;
use serde_json::{Value, json};

use crate::{exit, thing_name};

const FOLDER: &str = "/etc/wpa_supplicant/firstboot";
const WIRED: &str = "/etc/wpa_supplicant/wpa_supplicant-wired-eth0.conf";
const WIFI: &str = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf";

/// Ethernet with the networks' own key, Wi-Fi with the device's.
fn wanted(key: KeyType) -> Value {
    let mut settings = offline_settings("nucleus-lite", key);
    settings["network"] = json!({
        "country": "DE",
        "eap_tls": [
            { "interface": "eth0", "domain": "radius.example.com", "key": "own" },
            { "interface": "wlan0", "ssid": "plant", "domain": "radius.example.com" }
        ]
    });
    settings
}

/// A device that wants that, its authority, and its networks'.
fn device(key: KeyType) -> Result<(Device, Authority, Authority)> {
    let device = Device::unprovisioned()?;
    device.settings(&wanted(key))?;
    let networks = Authority::new()?;
    fs::write(device.boot_file("eap-ca.pem"), networks.certificate_pem()?)?;
    Ok((device, Authority::new()?, networks))
}

/// The same, enrolled, and with a certificate for the networks' own key.
fn complete() -> Result<(Device, Authority, Authority)> {
    let (device, authority, networks) = device(KeyType::EccP256)?;
    device.enroll_with(&authority)?;
    device.drop_network_certificate(&networks.sign(&device.network_request()?)?)?;
    device.succeed(&["renew"])?;
    Ok((device, authority, networks))
}

/// One in service, whose settings have no networks.
fn enrolled_without_networks() -> Result<Device> {
    let (device, authority, _) = device(KeyType::EccP256)?;
    let mut settings = wanted(KeyType::EccP256);
    settings["network"] = json!({});
    device.settings(&settings)?;
    device.enroll_with(&authority)?;
    assert!(!device.exists(NETWORK));
    Ok(device)
}

/// The names of the requests on the card, sorted.
fn requests(device: &Device) -> Result<Vec<String>> {
    let mut names = fs::read_dir(device.boot_file("requests"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn reason(status: &Value) -> &str {
    status["networks"][0]["reason"].as_str().unwrap_or_default()
}

#[track_caller]
fn assert_in_service(status: &Value) {
    let found = (&status["state"], &status["in_service"]);
    assert_eq!(found, (&json!("Done"), &json!(true)), "{status}");
}

fn both_requests_come_at_once(key: KeyType) -> Result<()> {
    let (device, authority, networks) = device(key)?;
    device.succeed(&["provision"])?;
    let thing = thing_name();
    let names = ["csr.pem", "eap.csr.pem", "eap.json", "json"];
    assert_eq!(
        requests(&device)?,
        names.map(|end| format!("{thing}.{end}"))
    );
    let (own, same) = (device.network_identity(key)?, device.identity(key)?);
    assert_ne!(device.key_sha256(NETWORK)?, device.key_sha256(STORE)?);
    assert_ne!(own.pin()?, same.pin()?);
    for identity in [&own, &same] {
        pkcs11_tool::sign_and_verify(identity)?;
    }
    assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
    // Nobody but root has to do with it, whoever may read the device's.
    for (path, mode) in [
        (NETWORK.to_owned(), 0o750),
        (format!("{NETWORK}/pin"), 0o440),
    ] {
        let metadata = fs::metadata(device.path(path))?;
        assert_eq!(metadata.permissions().mode() & 0o7777, mode);
        let gid = std::os::unix::fs::MetadataExt::gid(&metadata);
        assert!(gid == 0 || !nix::unistd::geteuid().is_root(), "{gid}");
    }
    // Both certificates on one trip of the card.
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    let for_networks = networks.sign(&device.network_request()?)?;
    device.drop_network_certificate(&for_networks)?;
    device.succeed(&["enroll"])?;
    assert_eq!(
        device.read(format!("{NETWORK}/certificate.pem"))?,
        for_networks
    );
    let wired = device.read(WIRED)?;
    assert!(
        wired.contains(&format!("client_cert=\"{NETWORK}/certificate.pem\"")),
        "{wired}"
    );
    let wifi = device.read(WIFI)?;
    assert!(
        wifi.contains(&format!("client_cert=\"{STORE}/certificate.pem\"")),
        "{wifi}"
    );
    let openssl = device.read(format!("{FOLDER}/openssl-own.cnf"))?;
    assert!(
        openssl.contains(&format!("file:{NETWORK}/pin")),
        "{openssl}"
    );
    let environment = device.read(format!("{FOLDER}/wpa_supplicant-wired@eth0.env"))?;
    for line in [
        format!("TPM2_PKCS11_STORE={NETWORK}"),
        format!("OPENSSL_CONF={FOLDER}/openssl-own.cnf"),
    ] {
        assert!(
            environment.lines().any(|l| l == line),
            "{line}: {environment}"
        );
    }
    let status = device.status()?;
    assert_in_service(&status);
    assert_eq!(status["networks"][0]["state"], "configured");
    assert_eq!(status["networks"][0]["key"], "own");
    let issuer = status["network_certificate"]["issuer"].as_str();
    assert!(issuer.is_some(), "{status}");
    Ok(())
}

#[test]
fn an_ecc_key_of_the_networks_own() -> Result<()> {
    both_requests_come_at_once(KeyType::EccP256)
}

#[test]
fn an_rsa_key_of_the_networks_own() -> Result<()> {
    both_requests_come_at_once(KeyType::Rsa2048)
}

/// The network may be the way to the device's certificate.
#[test]
fn a_network_with_its_own_key_comes_before_the_devices_certificate() -> Result<()> {
    let (device, authority, networks) = device(KeyType::EccP256)?;
    device.succeed(&["provision"])?;
    device.drop_network_certificate(&networks.sign(&device.network_request()?)?)?;
    device.succeed(&["provision"])?;
    assert!(!device.exists(WIRED), "that is left to enrollment");
    assert_ends(&device.run(&["enroll"])?, exit::WAITING, "");
    assert!(device.exists(WIRED) && !device.exists(WIFI));
    let status = device.status()?;
    assert_eq!(status["networks"][0]["state"], "configured");
    assert_eq!(status["networks"][1]["state"], "waiting");
    assert_eq!(status["state"], "AwaitingCertificate");
    let list = device.read(format!("{FOLDER}/networks"))?;
    device.enroll_with(&authority)?;
    assert!(device.exists(WIFI));
    let same = device.read(format!("{FOLDER}/networks"))?;
    let eth0 = |list: &str| list.lines().find(|l| l.contains("eth0")).map(str::to_owned);
    assert_eq!(eth0(&list), eth0(&same), "it would log off");
    Ok(())
}

/// A running device needs neither a restart of enrollment nor a boot, and says what it waits for.
#[test]
fn a_certificate_is_accepted_and_renewed_while_greengrass_runs() -> Result<()> {
    let (device, authority, networks) = device(KeyType::EccP256)?;
    device.enroll_with(&authority)?;
    let status = device.status()?;
    assert_in_service(&status);
    assert_eq!(status["networks"][0]["state"], "waiting");
    assert_eq!(status["networks"][1]["state"], "configured");
    assert!(reason(&status).contains(".eap.csr.pem"), "{status}");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains(".eap.csr.pem"), "{status}");
    // The device's own certificate is no mistake; one for the other key under its name is.
    assert!(!message.contains("instead"), "{status}");
    assert!(!device.exists(WIRED));
    let own = networks.sign(&device.network_request()?)?;
    device.drop_certificate(&own)?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(
        &outcome,
        exit::DONE,
        ".pem (this device's certificate: rename it)",
    );
    assert_in_service(&device.status()?);
    let accepted = device.read(format!("{STORE}/certificate.pem"))?;
    device.drop_certificate(&accepted)?;

    let is_due = || Ok::<_, anyhow::Error>(device.run(&["renew", "--due"])?.code == exit::DONE);
    let before = device.read("/etc/greengrass/config.yaml")?;
    device.drop_network_certificate(&networks.sign(&device.network_request()?)?)?;
    device.succeed(&["renew"])?;
    assert!(device.exists(WIRED));
    assert!(!is_due()?, "Greengrass need not stop");
    assert_eq!(device.status()?["networks"][0]["state"], "configured");
    assert_eq!(device.read("/etc/greengrass/config.yaml")?, before);

    let list = device.read(format!("{FOLDER}/networks"))?;
    let accepted = || device.read(format!("{NETWORK}/certificate.pem"));
    let request = device.network_request()?;
    let young = networks.sign_valid(&request, Validity::Days { over: 0, left: 99 })?;
    device.drop_network_certificate(&young)?;
    device.succeed(&["renew"])?;
    assert_eq!(accepted()?, young);
    assert_eq!(device.read(format!("{FOLDER}/networks"))?, list);
    // One that is worse changes nothing.
    let old = networks.sign_valid(&request, Validity::Days { over: 90, left: 99 })?;
    device.drop_network_certificate(&old)?;
    assert_ends(&device.run(&["enroll"])?, exit::DONE, "it is older");
    assert_eq!(accepted()?, young);
    let status = device.status()?;
    assert_in_service(&status);
    let path = status["refused"][0]["path"].as_str().unwrap_or_default();
    assert!(path.ends_with(".eap.pem"), "{status}");
    assert_eq!(status["networks"][0]["state"], "configured");
    Ok(())
}

/// In its last days, its request comes back to the card.
#[test]
fn the_end_of_a_certificate_is_told() -> Result<()> {
    let (device, authority, networks) = device(KeyType::EccP256)?;
    device.enroll_with(&authority)?;
    let request = device.network_request()?;
    let content = fs::read(&request)?;
    let old = networks.sign_valid(&request, Validity::Days { over: 90, left: 10 })?;
    fs::remove_file(&request)?;
    let path = device.boot_file(&format!("certificates/{}.eap.pem", thing_name()));
    fs::write(path, old)?;
    let words = "the certificate for the networks' own key expires on";
    assert_ends(&device.run(&["renew"])?, exit::DONE, words);
    assert_eq!(fs::read(&request)?, content);
    let status = device.status()?;
    let warning = status["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.starts_with(words), "{status}");
    assert_in_service(&status);
    Ok(())
}

/// The station answers both requests of a card in one run, each for its key alone.
#[test]
fn wrapped_replies_for_both_keys() -> Result<()> {
    for (key, ek) in [
        (KeyType::EccP256, Ek::P256),
        (KeyType::Rsa2048, Ek::Rsa2048),
    ] {
        let (device, _, _) = device(key)?;
        let station = Station::new()?;
        station.manufacturer.equip(&device.tpm, ek)?;
        let mut settings = wanted(key);
        settings["enrollment"]["issuers"] = json!([station.fingerprint()?]);
        device.settings(&settings)?;
        device.succeed(&["provision"])?;
        station.answer(&device)?;
        device.succeed(&["enroll"])?;
        for directory in [STORE, NETWORK] {
            assert!(
                device.exists(format!("{directory}/opened.json")),
                "{directory}"
            );
        }
        assert_eq!(device.status()?["networks"][0]["state"], "configured");
        // A reply for the one key is none for the other.
        let reply =
            |end: &str| device.boot_file(&format!("certificates/{}{end}.reply.json", thing_name()));
        fs::copy(reply(""), reply(".eap"))?;
        assert_ends(&device.run(&["enroll"])?, exit::DONE, "is refused");
        assert_in_service(&device.status()?);
    }
    Ok(())
}

/// The device's key vouches for it, if it has a certificate by then.
#[test]
fn the_devices_key_countersigns_the_request() -> Result<()> {
    let device = enrolled_without_networks()?;
    device.settings(&wanted(KeyType::EccP256))?;
    device.succeed(&["enroll"])?;
    let station = Station::new()?;
    let record = device
        .network_request()?
        .with_extension("")
        .with_extension("json");
    let mut reissue = station.command(&["reissue", "--days", "9"])?;
    reissue.arg(&record).arg("--out").arg(station.out());
    reissue.arg("--ca").arg(station.operator.certificate_path());
    reissue.arg("--key").arg(station.operator.key_path());
    reissue
        .arg("--in-service")
        .arg(device.path(STORE).join("certificate.pem"));
    succeed(&mut reissue)?;
    station.put_replies(&device)?;
    device.succeed(&["renew"])?;
    assert_eq!(device.status()?["networks"][0]["state"], "configured");
    // A request that is signed again is countersigned again.
    device.write(format!("{NETWORK}/device.csr.pem"), "torn")?;
    device.succeed(&["renew"])?;
    let record: Value = serde_json::from_str(&device.read(format!("{NETWORK}/request.json"))?)?;
    assert!(record["countersignature"].is_object(), "{record}");
    Ok(())
}

/// Not wanted for a while, it is not lost.
#[test]
fn a_key_that_is_not_wanted_stays() -> Result<()> {
    let (device, _authority, _networks) = complete()?;
    let key = device.key_sha256(NETWORK)?;
    let mut settings = wanted(KeyType::EccP256);
    settings["network"]["eap_tls"][0]["key"] = json!("same");
    device.settings(&settings)?;
    device.succeed(&["enroll"])?;
    assert!(
        device
            .read(WIRED)?
            .contains(&format!("{STORE}/certificate.pem"))
    );
    assert!(!device.exists(format!("{FOLDER}/openssl-own.cnf")));
    device.settings(&wanted(KeyType::EccP256))?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.key_sha256(NETWORK)?, key);
    assert!(
        device
            .read(WIRED)?
            .contains(&format!("{NETWORK}/certificate.pem"))
    );
    Ok(())
}

#[test]
fn another_name_needs_another_request() -> Result<()> {
    let (device, authority, networks) = complete()?;
    let key = device.key_sha256(NETWORK)?;
    let mut settings = wanted(KeyType::EccP256);
    settings["thing_name"] = json!("gw-2");
    device.settings(&settings)?;
    device.succeed(&["enroll"])?;
    let names = ["csr.pem", "eap.csr.pem", "eap.json", "json"];
    assert_eq!(requests(&device)?, names.map(|end| format!("gw-2.{end}")));
    assert_eq!(device.key_sha256(NETWORK)?, key);
    assert!(device.exists(WIRED), "it stays under its old name");
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    let renamed = networks.sign(&device.network_request()?)?;
    device.drop_network_certificate(&renamed)?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.read(format!("{NETWORK}/certificate.pem"))?, renamed);
    Ok(())
}

#[test]
fn reset_destroys_it() -> Result<()> {
    let (device, authority, _networks) = complete()?;
    let pin = device.read(format!("{NETWORK}/pin"))?;
    device.succeed(&["reset"])?;
    assert!(!device.exists(NETWORK) && !device.exists(WIRED));
    assert!(requests(&device)?.is_empty());
    assert!(device.snapshot()?.files_with(pin.as_bytes()).is_empty());
    device.enroll_with(&authority)?;
    assert_ne!(device.read(format!("{NETWORK}/pin"))?, pin);
    // Nor is another program's token destroyed with it: nothing is changed.
    pkcs11_tool::make_token(&device.network_identity(KeyType::EccP256)?, "vpn")?;
    let before = device.snapshot()?;
    assert_ends(&device.run(&["reset"])?, exit::OTHER, "nothing was changed");
    before.assert_same(&device.snapshot()?);
    fs::remove_dir_all(device.path(NETWORK))?;
    // What is not firstboot's stays.
    device.succeed(&["reset"])?;
    device.write(format!("{NETWORK}/notes"), "somebody's")?;
    device.succeed(&["reset"])?;
    assert_eq!(device.read(format!("{NETWORK}/notes"))?, "somebody's");
    Ok(())
}

/// It belongs to its TPM, and waits for it: its certificate cannot be had again on the spot.
#[test]
fn with_another_tpm_it_stays_until_somebody_removes_it() -> Result<()> {
    let (device, _authority, _networks) = complete()?;
    let key = device.key_sha256(NETWORK)?;
    let other = SoftwareTpm::start()?;
    let provision = || succeed(&mut device.firstboot_at(&other.tcti(), &["provision"])?);
    provision()?;
    assert_eq!(device.key_sha256(NETWORK)?, key);
    let status = device.status()?;
    assert!(
        status.to_string().contains("belongs to another TPM"),
        "{status}"
    );
    // Back with its own TPM, it serves as before.
    device.succeed(&["provision"])?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["networks"][0]["state"], "configured");
    provision()?;
    fs::remove_dir_all(device.path(NETWORK))?;
    provision()?;
    assert_ne!(device.key_sha256(NETWORK)?, key);
    Ok(())
}

/// Whatever is wrong with it, the device stays in service, and says what.
#[test]
fn no_trouble_with_it_takes_a_device_out_of_service() -> Result<()> {
    let (device, _authority, networks) = complete()?;
    let key = device.key_sha256(NETWORK)?;
    let says = |words: &str| -> Result<Value> {
        assert_ends(&device.run(&["enroll"])?, exit::DONE, words);
        let status = device.status()?;
        assert_in_service(&status);
        Ok(status)
    };
    // A request that is lost or damaged is signed again.
    device.write(format!("{NETWORK}/device.csr.pem"), "torn")?;
    says("signing a new request with the networks' own key")?;
    assert_eq!(device.key_sha256(NETWORK)?, key);
    // What upgraded the store was interrupted.
    let store = format!("{NETWORK}/tpm2_pkcs11.sqlite3");
    fs::rename(device.path(&store), device.path(format!("{store}.old")))?;
    says("repairing the networks' token store")?;
    assert_eq!(device.key_sha256(NETWORK)?, key);
    // It cannot be looked at: nothing is concluded from that.
    let srk_name = device.path(format!("{NETWORK}/srk.name"));
    let content = fs::read(&srk_name)?;
    fs::write(&srk_name, vec![b'0'; 100_000])?;
    let status = says("srk.name")?;
    assert_eq!(status["networks"][0]["state"], "trouble");
    assert!(device.exists(WIRED), "the network is lost");
    // The other networks go on: they take up another CA.
    let cas = ["eth0", "wlan0"].map(|interface| format!("{FOLDER}/{interface}-ca.pem"));
    let before = cas.each_ref().map(|path| device.read(path));
    let [eth0, wlan0] = before;
    let pem = Authority::new()?.certificate_pem()?;
    fs::write(device.boot_file("eap-ca.pem"), &pem)?;
    says("srk.name")?;
    assert_eq!(device.read(&cas[0])?, eth0?);
    assert_ne!(device.read(&cas[1])?, wlan0?);
    let units = device.read(format!("{FOLDER}/networks"))?;
    assert!(units.contains("wired@eth0.service"), "{units}");
    fs::write(&srk_name, content)?;
    says("")?;
    assert_eq!(device.key_sha256(NETWORK)?, key);
    // It is useless: another one takes its place.
    device.remove(format!("{NETWORK}/pin"))?;
    let status = says("creating the networks' own key")?;
    assert_ne!(device.key_sha256(NETWORK)?, key);
    assert_eq!(status["networks"][0]["state"], "waiting");
    assert!(!device.exists(WIRED));
    device.drop_network_certificate(&networks.sign(&device.network_request()?)?)?;
    says("accepting the certificate for the networks' own key")?;
    // Giving it up was interrupted, and its PIN is overwritten already.
    device.write(format!("{NETWORK}/reset"), "")?;
    device.write(format!("{NETWORK}/pin"), [0; 64])?;
    says("creating the networks' own key")?;
    // A link that leads nowhere.
    fs::remove_dir_all(device.path(NETWORK))?;
    std::os::unix::fs::symlink("/nowhere", device.path(NETWORK))?;
    says("creating the networks' own key")?;
    // Something else is in its place.
    fs::remove_dir_all(device.path(NETWORK))?;
    device.write(format!("{NETWORK}/notes"), "somebody's")?;
    let status = says("files of another program")?;
    assert!(reason(&status).contains("of another program"), "{status}");
    assert_eq!(device.read(format!("{NETWORK}/notes"))?, "somebody's");
    assert_eq!(status["networks"][1]["state"], "configured");
    Ok(())
}

/// Nothing is said about networks where nothing is known: not that they wait for what has long been there.
#[test]
fn a_look_that_fails_says_nothing_about_networks() -> Result<()> {
    let (device, ..) = complete()?;
    assert_eq!(device.status()?["networks"][0]["state"], "configured");
    let certificate = device.path(format!("{STORE}/certificate.pem"));
    fs::remove_file(&certificate)?;
    fs::create_dir(&certificate)?;
    let outcome = device.run(&["enroll"])?;
    assert_ne!(outcome.code, exit::DONE, "{outcome:?}");
    let status = device.status()?;
    assert_eq!(status["state"], "Error", "{status}");
    assert_eq!(status["networks"], Value::Null, "{status}");
    Ok(())
}

/// Of a card that cannot be written, too.
#[test]
fn a_full_card_takes_nothing_away() -> Result<()> {
    let device = enrolled_without_networks()?;
    device.settings(&wanted(KeyType::EccP256))?;
    let requests = device.boot_file("requests");
    fs::remove_dir_all(&requests)?;
    fs::write(&requests, "a file")?;
    assert_ends(
        &device.run(&["enroll"])?,
        exit::DONE,
        "the networks' own key: ",
    );
    assert_in_service(&device.status()?);
    fs::remove_file(&requests)?;
    device.succeed(&["enroll"])?;
    assert!(device.network_request().is_ok());
    Ok(())
}

/// What lies on such a card already is accepted.
#[test]
fn a_card_that_takes_no_request_may_have_the_certificate() -> Result<()> {
    let (device, authority, networks) = device(KeyType::EccP256)?;
    device.enroll_with(&authority)?;
    device.drop_network_certificate(&networks.sign(&device.network_request()?)?)?;
    let requests = device.boot_file("requests");
    fs::remove_dir_all(&requests)?;
    fs::write(&requests, "a file")?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["networks"][0]["state"], "configured");
    Ok(())
}

/// A store that cannot be read may be readable tomorrow: no key is destroyed for it.
#[test]
fn an_unreadable_store_costs_no_key() -> Result<()> {
    let (device, _authority, _networks) = complete()?;
    let pin = device.read(format!("{NETWORK}/pin"))?;
    let store = format!("{NETWORK}/tpm2_pkcs11.sqlite3");
    let content = fs::read(device.path(&store))?;
    let certificate = device.read(format!("{NETWORK}/certificate.pem"))?;
    device.write(format!("{NETWORK}/device.csr.pem"), "torn")?;
    fs::write(device.path(&store), [0xFF; 8192])?;
    // The certificate tells the key; without it, nothing does.
    for lost in [false, true] {
        if lost {
            device.remove(format!("{NETWORK}/certificate.pem"))?;
        }
        assert_ends(&device.run(&["enroll"])?, exit::DONE, "");
        assert_in_service(&device.status()?);
        assert_eq!(device.read(format!("{NETWORK}/pin"))?, pin);
        assert!(device.exists(WIRED), "the network is lost");
    }
    fs::write(device.path(&store), content)?;
    device.write(format!("{NETWORK}/certificate.pem"), &certificate)?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["networks"][0]["state"], "configured");
    Ok(())
}
