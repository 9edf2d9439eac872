//! A renewal with a new key: a second identity, made like the first, that takes the place of the one in service.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use image_tests::clients::{KeyType, aws_crt, java, openssl, pkcs11_tool};
use image_tests::device::{Device, NEXT, PREVIOUS, STORE, Snapshot, offline_settings};
use image_tests::doubles::iot_core::Options;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::software_tpm::SoftwareTpm;
use image_tests::doubles::tls::{TlsServer, Version};
use image_tests::faults::network::Cloud;
use serde_json::{Value, json};

use crate::{assert_ends, exit, thing_name};

const OLD: Validity = Validity::Days {
    over: 200,
    left: 50,
};
const YOUNG: Validity = Validity::Days {
    over: 10,
    left: 355,
};

/// A device in service, whose certificate is due for renewal.
struct Due {
    device: Device,
    authority: Authority,
    settings: Value,
}

impl Due {
    fn new(edition: &str, key: KeyType) -> Result<Self> {
        // Nobody listens there.
        Self::at(edition, key, 1)
    }

    /// The same with an IoT data endpoint at this port of this host.
    fn at(edition: &str, key: KeyType, port: u16) -> Result<Self> {
        let device = Device::unprovisioned()?;
        let mut settings = offline_settings(edition, key);
        settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
        settings["enrollment"]["port"] = json!(port);
        settings["enrollment"]["trust_clock"] = json!(true);
        device.settings(&settings)?;
        let authority = Authority::new()?;
        device.write("/boot/firstboot/root-ca.pem", authority.certificate_pem()?)?;
        device.succeed(&["provision"])?;
        device.drop_certificate(&authority.sign_valid(&device.request()?, OLD)?)?;
        device.succeed(&["enroll"])?;
        settings["renew"] = json!({ "key": "new" });
        device.settings(&settings)?;
        Ok(Self {
            device,
            authority,
            settings,
        })
    }

    /// The same with the next identity and its request.
    fn asked(edition: &str, key: KeyType) -> Result<Self> {
        let due = Self::new(edition, key)?;
        due.device.succeed(&["renew"])?;
        Ok(due)
    }

    /// From now on that is the device's IoT data endpoint: Greengrass has its root certificate from the configuration.
    fn use_cloud(&mut self, cloud: &Cloud) -> Result<()> {
        self.settings["enrollment"]["port"] = json!(cloud.core.port());
        self.device.settings(&self.settings)?;
        let root = cloud.root.certificate_pem()?;
        self.device.write("/boot/firstboot/root-ca.pem", root)?;
        self.device.succeed(&["enroll"]).map(drop)
    }

    /// Puts a certificate for the next key onto the card.
    fn certify(&self) -> Result<String> {
        let pem = self.authority.sign_valid(&self.device.request()?, YOUNG)?;
        self.device.drop_certificate(&pem)?;
        Ok(pem)
    }

    fn is_due(&self) -> Result<bool> {
        let before = self.device.snapshot()?;
        let code = self.device.run(&["renew", "--due"])?.code;
        before.assert_same(&self.device.snapshot()?);
        Ok(code == exit::DONE)
    }

    /// What a running Greengrass uses.
    fn in_service(&self) -> Result<Snapshot> {
        let all = self.device.snapshot()?;
        Ok([
            "/boot",
            "/run",
            NEXT,
            PREVIOUS,
            "/var/lib/tpm2_pkcs11/asked.json",
        ]
        .iter()
        .fold(all, |all, path| all.without(path)))
    }

    fn configuration(&self) -> Result<Snapshot> {
        let all = self.device.snapshot()?;
        Ok(["/boot", "/run", "/var"]
            .iter()
            .fold(all, |all, path| all.without(path)))
    }

    fn key(&self, place: &str) -> Result<String> {
        let record: Value =
            serde_json::from_str(&self.device.read(format!("{place}/request.json"))?)?;
        Ok(record["key_sha256"].as_str().context("no key")?.to_owned())
    }

    /// All names on the card that begin with the thing's.
    fn card(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for folder in ["requests", "certificates"] {
            for entry in fs::read_dir(self.device.boot_file(folder))? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                names.push(name.replace(&thing_name(), "thing"));
            }
        }
        names.sort();
        Ok(names)
    }
}

#[test]
fn the_new_key_takes_the_old_ones_place() -> Result<()> {
    for (edition, key) in [
        ("nucleus-lite", KeyType::EccP256),
        ("nucleus", KeyType::EccP256),
        ("nucleus", KeyType::Rsa2048),
    ] {
        let due = Due::new(edition, key)?;
        let device = &due.device;
        let (old, pin) = (due.key(STORE)?, device.read(format!("{STORE}/pin"))?);
        let old_certificate = device.read(format!("{STORE}/certificate.pem"))?;
        let in_service = due.in_service()?;
        device.succeed(&["renew"])?;
        in_service.assert_same(&due.in_service()?);
        assert!(!due.is_due()?, "{edition}");
        let asked = ["thing.next.csr.pem", "thing.next.json", "thing.pem"];
        assert_eq!(due.card()?, asked);
        let status = device.status()?;
        assert_eq!(status["renewal"]["due"], true, "{status}");
        assert_eq!(status["renewal"]["last_attempt"]["result"], "waiting");
        let message = status["message"].as_str().context("no message")?;
        assert!(message.contains(".next.pem"), "{message}");

        let new_certificate = due.certify()?;
        device.succeed(&["renew"])?;
        in_service.assert_same(&due.in_service()?);
        assert!(due.is_due()?, "{edition}");

        let configuration = due.configuration()?;
        device.succeed(&["enroll"])?;
        configuration.assert_same(&due.configuration()?);
        assert!(!due.is_due()?);
        assert_ne!(due.key(STORE)?, old);
        assert_eq!(due.key(PREVIOUS)?, old);
        assert_eq!(device.read(format!("{STORE}/pin"))?, pin);
        let accepted = device.read(format!("{STORE}/certificate.pem"))?;
        assert_eq!(accepted, new_certificate);
        assert_ne!(accepted, old_certificate);
        assert!(!device.exists(NEXT));
        assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
        let there = ["thing.csr.pem", "thing.json", "thing.pem"];
        assert_eq!(due.card()?, there);
        let request = device.request()?;
        let own = device.read(format!("{STORE}/device.csr.pem"))?;
        assert_eq!(fs::read_to_string(request)?, own);
        let status = device.status()?;
        assert_eq!(
            (&status["state"], &status["in_service"]),
            (&json!("Done"), &json!(true))
        );
        assert_eq!(status["renewal"]["last_attempt"]["result"], "renewed");
        assert_eq!(status["message"], "nothing left to do");
        pkcs11_tool::sign_and_verify(&device.identity(key)?)?;
        let idle = device.snapshot()?;
        for command in ["provision", "enroll", "renew"] {
            device.succeed(&[command])?;
            idle.assert_same(&device.snapshot()?);
        }
    }
    Ok(())
}

/// The client that nucleus lite is, before and after, by what the server sees.
#[test]
fn a_server_sees_the_new_certificate() -> Result<()> {
    for key in KeyType::BOTH {
        let due = Due::new("nucleus-lite", key)?;
        let device = &due.device;
        let shows = || -> Result<Vec<u8>> {
            let server = TlsServer::start(&due.authority, Version::Tls13)?;
            let identity = device.identity_of_greengrass(key)?;
            openssl::connect(
                &identity,
                &device.lite_certificate()?,
                &device.openssl_conf()?,
                &server,
            )?;
            let accepted = device.read(format!("{STORE}/certificate.pem"))?;
            assert!(server.was_shown(&accepted)?, "{}", server.log());
            Ok(accepted.into_bytes())
        };
        let before = shows()?;
        device.succeed(&["renew"])?;
        due.certify()?;
        device.succeed(&["renew"])?;
        assert_eq!(shows()?, before, "it is in service until Greengrass stops");
        device.succeed(&["enroll"])?;
        assert_ne!(shows()?, before);
    }
    Ok(())
}

/// The nucleus's two TLS clients, with slot and PIN as its configuration has had them since before.
#[test]
fn the_nucleus_connects_with_the_new_key() -> Result<()> {
    for key in KeyType::BOTH {
        let mut due = Due::asked("nucleus", key)?;
        let cloud = cloud(&due.authority, true)?;
        due.use_cloud(&cloud)?;
        let device = &due.device;
        let config: Value =
            serde_json::from_str(&device.read("/greengrass/v2/config/config.yaml")?)?;
        let plugin = &config["services"]["aws.greengrass.crypto.Pkcs11Provider"]["configuration"];
        let slot = plugin["slot"].as_u64().context("no slot")?;
        let old_certificate = device.read(format!("{STORE}/certificate.pem"))?;
        due.certify()?;
        device.succeed(&["enroll"])?;

        let identity = device.identity(key)?;
        assert_eq!(plugin["userPin"], identity.pin()?);
        let root = device.path(config["system"]["rootCaPath"].as_str().unwrap_or_default());
        let chain = device.path(format!("{STORE}/certificate.pem"));
        let port = cloud.core.port();
        aws_crt::publish_at_slot(&identity, slot, &chain, &root, port, &thing_name())?;
        assert!(cloud.core.events().authenticated(&thing_name()));

        let server = TlsServer::start(&due.authority, Version::Tls12)?;
        java::connect_at_slot(&identity, slot, &server)?;
        let accepted = device.read(format!("{STORE}/certificate.pem"))?;
        assert!(server.was_shown(&accepted)?, "{}", server.log());
        assert!(!server.was_shown(&old_certificate)?);
    }
    Ok(())
}

/// At the next boot everything is done, too.
#[test]
fn a_boot_does_it_all() -> Result<()> {
    let due = Due::asked("nucleus", KeyType::EccP256)?;
    let old = due.key(STORE)?;
    due.certify()?;
    due.device.succeed(&["provision"])?;
    assert_eq!(due.key(STORE)?, old, "that is for enrollment");
    due.device.succeed(&["enroll"])?;
    assert_ne!(due.key(STORE)?, old);
    Ok(())
}

/// The one before the last goes; the token's PIN stays through all of them.
#[test]
fn again_and_again() -> Result<()> {
    let due = Due::new("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let pin = device.read(format!("{STORE}/pin"))?;
    let mut before = due.key(STORE)?;
    for generation in 1..4 {
        device.succeed(&["renew"])?;
        let next = due.key(NEXT)?;
        let pem = due.authority.sign_valid(&device.request()?, OLD)?;
        device.drop_certificate(&pem)?;
        device.succeed(&["renew"])?;
        device.succeed(&["enroll"])?;
        assert_eq!(due.key(STORE)?, next);
        assert_eq!(due.key(PREVIOUS)?, before);
        // That certificate is due as well: the next identity is there already.
        assert_ne!(due.key(NEXT)?, next);
        let noted = device.read(format!("{STORE}/generation"))?;
        assert_eq!(noted, generation.to_string());
        assert_eq!(device.read(format!("{STORE}/pin"))?, pin);
        before = next;
    }
    assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
    Ok(())
}

#[test]
fn a_certificate_that_is_not_for_it_changes_nothing() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let in_service = due.in_service()?;
    let next = due.key(NEXT)?;
    let request = device.path(format!("{STORE}/device.csr.pem"));
    let for_the_old_key = due.authority.sign_valid(&request, YOUNG)?;
    let expired = due
        .authority
        .sign_valid(&device.request()?, Validity::Expired)?;
    for (pem, words) in [
        (for_the_old_key, "another key"),
        (expired, "expired"),
        ("nothing".to_owned(), "refused"),
    ] {
        device.drop_certificate(&pem)?;
        assert_ends(&device.run(&["renew"])?, exit::DONE, words);
        assert!(!due.is_due()?);
        device.succeed(&["enroll"])?;
        in_service.assert_same(&due.in_service()?);
        assert_eq!(due.key(NEXT)?, next);
        let status = device.status()?;
        assert_eq!(status["renewal"]["last_attempt"]["result"], "refused");
        let path = status["refused"][0]["path"].as_str().context("no path")?;
        assert!(path.ends_with(".next.pem"), "{status}");
    }
    due.certify()?;
    device.succeed(&["renew"])?;
    assert!(due.is_due()?);
    Ok(())
}

/// A certificate of the running key is taken while the next one waits for its own.
#[test]
fn the_present_key_can_still_get_one() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let request = device.path(format!("{STORE}/device.csr.pem"));
    let pem = due.authority.sign_valid(&request, YOUNG)?;
    device.write(
        format!("/boot/firstboot/certificates/{}.pem", thing_name()),
        &pem,
    )?;
    device.succeed(&["renew"])?;
    assert_eq!(device.read(format!("{STORE}/certificate.pem"))?, pem);
    assert_eq!(device.status()?["renewal"]["due"], false);
    assert!(device.exists(NEXT));
    due.certify()?;
    device.succeed(&["renew"])?;
    assert!(due.is_due()?);
    Ok(())
}

/// Another name, another kind of key, the present key after all: what was made for it goes, and its request with it.
#[test]
fn a_next_identity_that_is_not_wanted_any_more_is_removed() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let first = due.key(NEXT)?;
    let change = |key: &str, value: Value| {
        let mut settings = due.settings.clone();
        settings[key] = value;
        device.settings(&settings)
    };
    change("key", json!("rsa-2048"))?;
    device.succeed(&["renew"])?;
    let second = due.key(NEXT)?;
    assert_ne!(second, first);
    change("subject", json!({ "O": "Example" }))?;
    device.succeed(&["enroll"])?;
    assert_ne!(due.key(NEXT)?, second);
    for renew in [json!({ "key": "keep" }), Value::Null] {
        change("renew", json!({ "key": "new" }))?;
        device.succeed(&["enroll"])?;
        assert!(device.exists(NEXT));
        change("renew", renew)?;
        device.succeed(&["renew"])?;
        assert!(!device.exists(NEXT));
        let left = due.card()?;
        assert!(!left.iter().any(|name| name.contains("next")), "{left:?}");
    }
    Ok(())
}

/// What a damaged disk or another program leaves there is not put into service.
#[test]
fn what_does_not_belong_to_the_identity_is_removed() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let in_service = due.in_service()?;
    let mut known = due.key(NEXT)?;
    for (file, content) in [
        ("pin", "another PIN"),
        ("srk.name", "000b00"),
        ("tpm2_pkcs11.sqlite3", ""),
        ("device.csr.pem", "torn"),
        ("request.json", "{}"),
        ("generation", "0"),
        ("tpm2_pkcs11.sqlite3.bak", "an upgrade was cut"),
    ] {
        device.write(format!("{NEXT}/{file}"), content)?;
        device.succeed(&["enroll"])?;
        let made = due.key(NEXT)?;
        assert_ne!(made, known, "{file}");
        in_service.assert_same(&due.in_service()?);
        assert!(!device.exists(PREVIOUS), "{file}");
        known = made;
    }
    // What cannot be looked into stays, and so does the device.
    fs::remove_dir_all(device.path(NEXT))?;
    device.write(NEXT, "a file")?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "cannot look at");
    assert_eq!(device.read(NEXT)?, "a file");
    in_service.assert_same(&due.in_service()?);
    Ok(())
}

/// With another TPM there is another identity, and what waits is not its. Back at its TPM, the first one has lost that.
#[test]
fn a_next_identity_does_not_outlive_its_tpm() -> Result<()> {
    let mut due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let old = due.key(STORE)?;
    let pem = due.certify()?;
    let other = SoftwareTpm::start()?;
    due.device.tcti = Some(other.tcti());
    due.device.succeed(&["provision"])?;
    assert_ne!(due.key(STORE)?, old);
    let folder = due.device.boot_file("requests");
    let request = folder.join(format!("{}.csr.pem", thing_name()));
    let own = due.authority.sign_valid(&request, YOUNG)?;
    let certificates = due.device.boot_file("certificates");
    fs::write(certificates.join(format!("{}.pem", thing_name())), &own)?;
    due.device.succeed(&["enroll"])?;
    let accepted = due.device.read(format!("{STORE}/certificate.pem"))?;
    assert_eq!(accepted, own);
    assert_ne!(accepted, pem);
    assert!(!due.device.exists(NEXT));
    due.device.tcti = None;
    due.device.succeed(&["provision"])?;
    due.device.succeed(&["enroll"])?;
    assert_eq!(due.key(STORE)?, old);
    assert_eq!(due.device.status()?["in_service"], true);
    Ok(())
}

/// The store was exchanged after its certificate had come: it does not sign for that, and the old key serves on.
#[test]
fn a_key_that_does_not_sign_for_its_certificate_stays_out() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    due.certify()?;
    device.succeed(&["renew"])?;
    fs::copy(
        device.path(format!("{STORE}/tpm2_pkcs11.sqlite3")),
        device.path(format!("{NEXT}/tpm2_pkcs11.sqlite3")),
    )?;
    let in_service = due.in_service()?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(
        &outcome,
        exit::DONE,
        "the renewal with a new key cannot go on",
    );
    in_service.assert_same(&due.in_service()?);
    assert_eq!(device.status()?["in_service"], true);
    Ok(())
}

#[test]
fn reset_removes_all_of_them() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let pin = device.read(format!("{STORE}/pin"))?;
    let pem = due.authority.sign_valid(&device.request()?, OLD)?;
    device.drop_certificate(&pem)?;
    device.succeed(&["enroll"])?;
    assert!(device.exists(NEXT) && device.exists(PREVIOUS));
    device.succeed(&["reset"])?;
    assert!(!device.exists(NEXT) && !device.exists(PREVIOUS));
    let left = device.snapshot()?;
    assert!(
        left.files_with(pin.as_bytes()).is_empty(),
        "the PIN is left"
    );
    assert!(!due.card()?.iter().any(|name| name.contains("next.json")));
    device.succeed(&["provision"])?;
    Ok(())
}

/// As the operator's guide says.
#[test]
fn the_previous_identity_can_be_put_back() -> Result<()> {
    let due = Due::asked("nucleus", KeyType::EccP256)?;
    let device = &due.device;
    let old = due.key(STORE)?;
    let in_service = due.in_service()?.without(STORE);
    due.certify()?;
    device.succeed(&["enroll"])?;
    fs::remove_dir_all(device.path(STORE))?;
    fs::rename(device.path(PREVIOUS), device.path(STORE))?;
    device.succeed(&["enroll"])?;
    assert_eq!(due.key(STORE)?, old);
    in_service.assert_same(&due.in_service()?.without(STORE));
    let status = device.status()?;
    assert_eq!(status["state"], "Done", "{status}");
    assert_eq!(status["in_service"], true);
    // And another one is asked for.
    assert_ne!(due.key(NEXT)?, old);
    pkcs11_tool::sign_and_verify(&device.identity(KeyType::EccP256)?)
}

/// After a month, and only by a clock that can be believed.
#[test]
fn the_previous_identity_goes_after_a_while() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    due.certify()?;
    device.succeed(&["enroll"])?;
    let file = format!("{STORE}/taken-up");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let noted = Duration::from_secs(device.read(&file)?.parse()?);
    assert!(now - noted < Duration::from_secs(3600), "{noted:?}");
    let day = Duration::from_secs(24 * 60 * 60);
    device.write(&file, (now - day * 29).as_secs().to_string())?;
    device.succeed(&["renew"])?;
    assert!(device.exists(PREVIOUS));
    device.write(&file, (now - day * 31).as_secs().to_string())?;
    device.succeed(&["renew"])?;
    assert!(!device.exists(PREVIOUS));
    Ok(())
}

/// AWS IoT Core with this authority's certificates registered, or without.
fn cloud(authority: &Authority, is_registered: bool) -> Result<Cloud> {
    let ca = authority.certificate_pem()?;
    Cloud::with(Options {
        registered: is_registered.then(|| ca.clone()).into_iter().collect(),
        trusted: vec![ca],
        ..Options::default()
    })
}

/// The device connects with the new key before it is in service. A refusal is said once, and costs Greengrass no further
/// stop; the next start of enrollment tries again.
#[test]
fn a_certificate_that_the_server_refuses_leaves_the_old_key_in_service() -> Result<()> {
    for key in KeyType::BOTH {
        let mut due = Due::asked("nucleus", key)?;
        let (old, next) = (due.key(STORE)?, due.key(NEXT)?);
        let refusing = cloud(&due.authority, false)?;
        due.use_cloud(&refusing)?;
        due.certify()?;
        due.device.succeed(&["renew"])?;
        assert!(due.is_due()?);
        for _ in 0..2 {
            let outcome = due.device.run(&["enroll"])?;
            assert_ends(&outcome, exit::DONE, "does not accept a connection with it");
            assert_eq!(due.key(STORE)?, old);
            let status = due.device.status()?;
            assert_eq!(status["in_service"], true);
            assert_eq!(status["renewal"]["last_attempt"]["result"], "refused");
            let message = status["message"].as_str().context("no message")?;
            assert!(message.contains("stays in service"), "{message}");
            due.device.succeed(&["renew"])?;
            assert!(!due.is_due()?, "Greengrass would stop each day");
        }
        assert!(!refusing.core.events().authenticated(&thing_name()));

        let accepting = cloud(&due.authority, true)?;
        due.use_cloud(&accepting)?;
        assert_eq!(due.key(STORE)?, next);
        assert!(accepting.core.events().authenticated(&thing_name()));
        let status = due.device.status()?;
        assert_eq!(status["renewal"]["last_attempt"]["result"], "renewed");
        assert!(!due.device.exists(format!("{STORE}/refused")));
    }
    Ok(())
}

/// The CA was not registered, but another one's certificate is: it is tried as soon as it has come.
#[test]
fn another_certificate_is_tried_after_a_refusal() -> Result<()> {
    let mut due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let registered = Authority::new()?;
    let cloud = cloud(&registered, true)?;
    due.use_cloud(&cloud)?;
    due.certify()?;
    let outcome = due.device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "does not accept a connection with it");
    let younger = Validity::Days { over: 5, left: 360 };
    let pem = registered.sign_valid(&due.device.request()?, younger)?;
    due.device.drop_certificate(&pem)?;
    due.device.succeed(&["renew"])?;
    assert!(due.is_due()?);
    due.device.succeed(&["enroll"])?;
    assert_eq!(due.device.read(format!("{STORE}/certificate.pem"))?, pem);
    Ok(())
}
