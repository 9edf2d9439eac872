//! What the request says about the TPM that holds its key.

use anyhow::Result;
use firstboot_formats::attestation::{KEY_ATTRIBUTES, PublicArea};
use image_tests::clients::KeyType;
use image_tests::device::{Device, STORE, offline_settings};
use image_tests::doubles::software_tpm::Ek;
use image_tests::doubles::tpm_proxy::{Options, Proxy};

use super::{Desk, evidence, record};

#[test]
fn the_record_has_the_ek_certificate_and_the_keys_public_area() -> Result<()> {
    let desk = Desk::new()?;
    for key in KeyType::BOTH {
        for ek in Ek::BOTH {
            let (device, certificate) = desk.device(key, ek)?;
            device.succeed(&["provision"])?;
            let evidence = evidence(&device)?;
            assert_eq!(evidence.ek_certificate, Some(certificate), "{ek:?}");
            assert_eq!(evidence.unattested, None);
            let area = PublicArea::parse(&evidence.key_public).map_err(anyhow::Error::msg)?;
            assert_eq!(area.attributes(), KEY_ATTRIBUTES);
            assert!(area.auth_policy().is_empty());
            let record = record(&device)?;
            assert_eq!(record["key_sha256"], area.public_key().fingerprint());
            let status: serde_json::Value =
                serde_json::from_str(&device.succeed(&["status", "--json"])?)?;
            let ek_sha256 = evidence
                .ek_sha256()
                .map(|d| d.map(|b| format!("{b:02x}")).concat());
            assert_eq!(status["ek_sha256"].as_str(), ek_sha256.as_deref());
        }
    }
    Ok(())
}

/// A certificate of so many bytes by its header.
fn certificate_of(size: u16) -> Vec<u8> {
    let mut certificate = vec![0x30, 0x82];
    certificate.extend((size - 4).to_be_bytes());
    certificate.resize(size.into(), 7);
    certificate
}

/// The P-256 key is made in a fifth of a second, the RSA key in ten seconds. The sizes are those that an SLB 9672 is
/// documented with (docs/findings/slb9670.md, "Endorsement key certificates").
#[test]
fn the_p256_certificate_is_preferred_and_read_with_four_commands() -> Result<()> {
    let mut device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    device
        .tpm
        .set_ek_certificate(Ek::P256, &certificate_of(846))?;
    device
        .tpm
        .set_ek_certificate(Ek::Rsa2048, &certificate_of(1429))?;
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    device.tcti = Some(proxy.tcti());
    device.succeed(&["provision"])?;
    let log = proxy.take_commands();
    assert_eq!(evidence(&device)?.ek_certificate, Some(certificate_of(846)));
    let read = log.0.iter().filter(|c| c.name.starts_with("NV_"));
    let read: Vec<_> = read.map(|c| c.name).collect();
    assert_eq!(read, ["NV_ReadPublic", "NV_Read", "NV_Read"]);
    let listed = log.0.iter().filter(|c| c.name == "GetCapability");
    // TPM_CAP_HANDLES from 0x01C00000.
    let asked = [0, 0, 0, 1, 0x01, 0xC0, 0, 0];
    let listed = listed.filter(|c| c.bytes[10..].starts_with(&asked));
    assert_eq!(listed.count(), 1);
    Ok(())
}

/// An index may be shorter than the first chunk that is read, longer than the certificate, or hold none.
#[test]
fn indices_of_any_size_are_read() -> Result<()> {
    let desk = Desk::new()?;
    let (device, certificate) = desk.device(KeyType::EccP256, Ek::Rsa2048)?;
    for (content, expected) in [
        ([&certificate[..], &[0xFF; 300]].concat(), true),
        (certificate[..certificate.len() - 1].to_vec(), false),
        (certificate[..100].to_vec(), false),
        (vec![0; 700], false),
        (vec![0xFF], false),
    ] {
        device.tpm.remove_ek_certificate(Ek::Rsa2048)?;
        device.tpm.set_ek_certificate(Ek::Rsa2048, &content)?;
        device.succeed(&["provision"])?;
        let evidence = evidence(&device)?;
        let read = evidence.ek_certificate.as_ref();
        assert_eq!(read == Some(&certificate), expected, "{}", content.len());
        if !expected {
            let why = evidence.unattested.unwrap_or_default();
            assert_eq!(why, "NV index 0x01c00002 contains no certificate");
        }
        device.succeed(&["reset"])?;
    }
    Ok(())
}

/// A certificate of fewer than 512 bytes is read, although no manufacturer has such.
#[test]
fn a_short_certificate_is_read() -> Result<()> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    let short = certificate_of(300);
    device.tpm.set_ek_certificate(Ek::P256, &short)?;
    device.succeed(&["provision"])?;
    assert_eq!(evidence(&device)?.ek_certificate, Some(short));
    Ok(())
}

#[test]
fn without_an_ek_certificate_the_request_says_so() -> Result<()> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    let said = device.run(&["provision"])?.stderr;
    assert!(
        said.contains("the request cannot prove that its key is in a TPM"),
        "{said}"
    );
    let evidence = evidence(&device)?;
    assert_eq!(evidence.ek_certificate, None);
    let why = evidence.unattested.unwrap_or_default();
    assert!(why.contains("has no EK certificate"), "{why}");
    PublicArea::parse(&evidence.key_public).map_err(anyhow::Error::msg)?;
    Ok(())
}

/// Such an EK is made from another template than ours, so the reply could not be opened.
#[test]
fn an_ek_with_its_own_template_is_left_alone() -> Result<()> {
    let desk = Desk::new()?;
    for (ek, special, other) in [
        (Ek::P256, "0x01C0000B", Ek::Rsa2048),
        (Ek::Rsa2048, "0x01C00004", Ek::P256),
    ] {
        let (device, _) = desk.device(KeyType::EccP256, ek)?;
        device
            .tpm
            .run(&["tpm2_nvdefine", special, "-C", "p", "-s", "32"])?;
        device.succeed(&["provision"])?;
        let why = evidence(&device)?.unattested.unwrap_or_default();
        assert!(why.contains(&special.to_lowercase()), "{why}");
        device.succeed(&["reset"])?;
        let certificate = desk.manufacturer.equip(&device.tpm, other)?;
        device.succeed(&["provision"])?;
        assert_eq!(evidence(&device)?.ek_certificate, Some(certificate));
    }
    Ok(())
}

/// If there is a storage root key, the certificate can be read in spite of an owner authorization.
#[test]
fn an_owned_tpm_shows_its_ek_certificate() -> Result<()> {
    let desk = Desk::new()?;
    let (device, certificate) = desk.device(KeyType::EccP256, Ek::P256)?;
    device.tpm.occupy_with_systemd_root_key()?;
    device.tpm.set_owner_auth("owned")?;
    device.succeed(&["provision"])?;
    assert_eq!(evidence(&device)?.ek_certificate, Some(certificate));
    Ok(())
}

/// An older firstboot's request is completed, with the same key.
#[test]
fn an_older_request_is_completed() -> Result<()> {
    let desk = Desk::new()?;
    let (device, certificate) = desk.device(KeyType::EccP256, Ek::P256)?;
    device.succeed(&["provision"])?;
    let complete = record(&device)?;
    let mut older = complete.clone();
    for added in ["key_public", "ek_certificate"] {
        older.as_object_mut().expect("an object").remove(added);
    }
    device.write(format!("{STORE}/request.json"), older.to_string())?;
    device.succeed(&["provision"])?;
    let renewed = record(&device)?;
    assert_eq!(renewed["key_sha256"], complete["key_sha256"]);
    assert_eq!(renewed["key_public"], complete["key_public"]);
    assert_eq!(evidence(&device)?.ek_certificate, Some(certificate));
    Ok(())
}
