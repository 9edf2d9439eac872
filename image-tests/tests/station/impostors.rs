//! What only the TPM can find out: keys that are not in the TPM that their request names. The station replies, but
//! nobody can open the reply. Also replies and stores that are copied to another device.

use std::fs;
use std::process::Command;

use anyhow::Result;
use firstboot_formats::attestation::Reply;
use image_tests::clients::KeyType;
use image_tests::device::station::Station;
use image_tests::device::{Device, assert_ends};
use image_tests::doubles::forged_request::ForgedRequest;
use image_tests::doubles::pki::p256;
use image_tests::doubles::software_tpm::{Ek, SoftwareTpm};
use image_tests::process::succeed;

use crate::device::thing_name;
use crate::end_to_end::device;
use crate::exit;
use crate::make_credential::activate;

const ATTRIBUTES: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|decrypt|sign";

/// The station's reply to a request for a key in a file, with the EK certificate of a TPM.
fn reply_to_a_software_key(
    station: &Station,
    tpm: &SoftwareTpm,
    ek: Ek,
) -> Result<(ForgedRequest, Reply)> {
    let mut forged = ForgedRequest::new("gw-1", &station.manufacturer)?;
    forged.ek_certificate = Some(station.manufacturer.equip(tpm, ek)?);
    let done = station.issue(&forged.write(&station.path("requests"))?)?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    let reply = Reply::parse(&fs::read(station.out().join("gw-1.reply.json"))?);
    Ok((forged, reply.map_err(anyhow::Error::msg)?))
}

#[test]
fn a_software_key_that_lies_about_its_attributes_opens_nothing() -> Result<()> {
    for ek in Ek::BOTH {
        let station = Station::new()?;
        let tpm = SoftwareTpm::start()?;
        let (forged, reply) = reply_to_a_software_key(&station, &tpm, ek)?;
        fs::write(tpm.file("soft.pem"), forged.key.private_key_to_pem_pkcs8()?)?;
        fs::write(tpm.file("soft.pub"), forged.key.public_key_to_pem()?)?;
        // With its private part, no TPM loads it: TPM_RC_ATTRIBUTES for parameter 2.
        let load = [
            "tpm2_loadexternal",
            "-G",
            "ecc",
            "-a",
            ATTRIBUTES,
            "-c",
            "key.ctx",
        ];
        let whole = tpm.attempt(&[&load[..], &["-C", "n", "-r", "soft.pem"]].concat())?;
        assert!(
            whole.code != 0 && whole.stderr.contains("0x2C2"),
            "{whole:?}"
        );
        // Without it, the Name is right, but nobody can authorize its use: TPM_RC_AUTH_UNAVAILABLE.
        tpm.run(&[&load[..], &["-C", "n", "-u", "soft.pub", "-n", "name"]].concat())?;
        tpm.flush()?;
        assert_eq!(fs::read(tpm.file("name"))?, reply.key_name);
        let refused = activate(&tpm, ek, &reply.credential_blob, &reply.secret)?;
        let refused = refused.expect_err("the TPM gives nothing out");
        assert!(refused.contains("0x12F"), "{refused}");
    }
    Ok(())
}

#[test]
fn an_imported_key_opens_nothing() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    fs::write(tpm.file("soft.pem"), p256()?.private_key_to_pem_pkcs8()?)?;
    tpm.run(&["tpm2_createprimary", "-C", "o", "-c", "parent.ctx"])?;
    tpm.flush()?;
    let import = [
        "tpm2_import",
        "-C",
        "parent.ctx",
        "-G",
        "ecc",
        "-i",
        "soft.pem",
    ];
    let files = ["-u", "imported.pub", "-r", "imported.priv", "-a"];
    let with = |attributes: &str| -> Result<_> {
        let done = tpm.attempt(&[&import[..], &files, &[attributes]].concat())?;
        tpm.flush()?;
        Ok(done)
    };
    for attributes in [ATTRIBUTES, "fixedtpm|userwithauth|decrypt|sign"] {
        let refused = with(attributes)?;
        assert!(
            refused.code != 0 && refused.stderr.contains("0x2C2"),
            "{refused:?}"
        );
    }
    // It can be imported with its true attributes, which the station refuses (`refusals`).
    assert_eq!(with("userwithauth|decrypt|sign")?.code, 0);
    Ok(())
}

/// Whoever knows an imported parent's seed knows all its children: the TPM creates none there that says fixedTPM, and
/// the station accepts no other.
#[test]
fn a_child_of_an_imported_parent_opens_nothing() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    fs::write(tpm.file("soft.pem"), p256()?.private_key_to_pem_pkcs8()?)?;
    tpm.run(&["tpm2_createprimary", "-C", "o", "-c", "root.ctx"])?;
    tpm.flush()?;
    let import = [
        "tpm2_import",
        "-C",
        "root.ctx",
        "-G",
        "ecc",
        "-i",
        "soft.pem",
    ];
    let storage = ["-a", "userwithauth|restricted|decrypt"];
    tpm.run(&[&import[..], &storage, &["-u", "p.pub", "-r", "p.priv"]].concat())?;
    tpm.flush()?;
    let load = ["tpm2_load", "-C", "root.ctx", "-u", "p.pub", "-r", "p.priv"];
    tpm.run(&[&load[..], &["-c", "parent.ctx"]].concat())?;
    tpm.flush()?;
    let create = |attributes: &str| -> Result<_> {
        let files = ["-u", "child.pub", "-r", "child.priv", "-a", attributes];
        let create = ["tpm2_create", "-C", "parent.ctx", "-G", "ecc"];
        let done = tpm.attempt(&[&create[..], &files].concat())?;
        tpm.flush()?;
        Ok(done)
    };
    let refused = create(ATTRIBUTES)?;
    assert!(
        refused.code != 0 && refused.stderr.contains("0x2C2"),
        "{refused:?}"
    );
    let loosely = create("fixedparent|sensitivedataorigin|userwithauth|decrypt|sign")?;
    assert_eq!(loosely.code, 0, "{loosely:?}");
    Ok(())
}

/// One device's request with the EK certificate of another: the station replies, but neither device accepts the reply.
#[test]
fn one_devices_key_with_anothers_endorsement_key_opens_nothing() -> Result<()> {
    let station = Station::new()?;
    let [a, b] = [
        device(&station, KeyType::EccP256, Ek::P256)?,
        device(&station, KeyType::EccP256, Ek::P256)?,
    ];
    let record = format!("/boot/firstboot/requests/{}.json", thing_name());
    for device in [&a, &b] {
        device.succeed(&["provision"])?;
    }
    let mut mixed: serde_json::Value = serde_json::from_str(&b.read(&record)?)?;
    let others: serde_json::Value = serde_json::from_str(&a.read(&record)?)?;
    mixed["ek_certificate"] = others["ek_certificate"].clone();
    let requests = station.path("requests");
    fs::create_dir(&requests)?;
    let name = thing_name();
    fs::write(requests.join(format!("{name}.json")), mixed.to_string())?;
    fs::copy(b.request()?, requests.join(format!("{name}.csr.pem")))?;
    let done = station.issue(&requests)?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    for (device, words) in [(&a, "another key"), (&b, "another TPM")] {
        station.put_replies(device)?;
        accepts_nothing(device, words)?;
    }
    Ok(())
}

#[test]
fn a_reply_on_another_devices_card_is_refused() -> Result<()> {
    for ek in Ek::BOTH {
        let station = Station::new()?;
        let a = device(&station, KeyType::EccP256, ek)?;
        let b = device(&station, KeyType::EccP256, ek)?;
        a.succeed(&["provision"])?;
        b.succeed(&["provision"])?;
        let done = station.issue(&a.path("/boot/firstboot/requests"))?;
        assert_eq!(done.code, exit::DONE, "{done:?}");
        station.put_replies(&b)?;
        accepts_nothing(&b, "another key")?;
    }
    Ok(())
}

/// A device's whole card with another TPM, which has another storage root key and cannot load the card's keys.
#[test]
fn a_whole_card_in_another_device_gets_a_new_identity() -> Result<()> {
    let station = Station::new()?;
    let a = device(&station, KeyType::EccP256, Ek::P256)?;
    let b = device(&station, KeyType::EccP256, Ek::P256)?;
    a.succeed(&["provision"])?;
    station.answer(&a)?;
    let request = fs::read(a.request()?)?;
    let mut copy = Command::new("cp");
    succeed(copy.arg("-a").arg(a.path("/").join(".")).arg(b.path("/")))?;
    let outcome = b.run(&["enroll"])?;
    assert_ends(&outcome, WAITING, "another key");
    assert_ne!(
        fs::read(b.request()?)?,
        request,
        "it asks for a key of its own"
    );
    assert!(!b.exists("/var/lib/tpm2_pkcs11/certificate.pem"));
    assert_eq!(b.tpm.lockout_counter()?, 0);
    a.succeed(&["enroll"])?;
    Ok(())
}

/// EX_TEMPFAIL: the device still waits for the certificate.
const WAITING: i32 = 75;

/// The reply is refused for a reason with these words, and nothing has changed, neither a file nor a counter.
#[track_caller]
fn accepts_nothing(device: &Device, words: &str) -> Result<()> {
    let snapshot = || -> Result<_> {
        let all = device.snapshot()?.without("/run");
        Ok(all.without("/boot/firstboot/status.json"))
    };
    let before = snapshot()?;
    assert_ends(&device.run(&["enroll"])?, WAITING, words);
    before.assert_same(&snapshot()?);
    assert_eq!(device.tpm.lockout_counter()?, 0);
    Ok(())
}
