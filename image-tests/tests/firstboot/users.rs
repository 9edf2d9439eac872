//! Only nucleus lite's user can use the identity: nobody else, not even in the group tss.

use anyhow::Result;
use image_tests::clients::{Identity, KeyType, User, openssl};
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::{TlsServer, Version};
use image_tests::process::finish;
use serde_json::json;

use crate::usual;

/// These tests have to run as other users.
#[track_caller]
fn assert_root() {
    assert!(
        nix::unistd::getuid().is_root(),
        "this test becomes other users: run it as root"
    );
}

#[test]
fn others_can_neither_read_the_pin_nor_use_the_key() -> Result<()> {
    assert_root();
    let device = usual()?;
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    let server = TlsServer::start(&authority, Version::Tls13)?;
    let conf = device.openssl_conf()?;
    let right = device.identity_of_greengrass(KeyType::EccP256)?;
    let certificate = device.lite_certificate()?;
    openssl::connect(&right, &certificate, &conf, &server)?;
    for (uid, gid) in [(64_100, device.group("tss")), (64_101, 64_101)] {
        let mut other = right.clone();
        other.user = Some(User { uid, gid });
        other.lock_directory = Some("/tmp".into());
        for file in ["pin", "tpm2_pkcs11.sqlite3"] {
            let path = device.path("/var/lib/tpm2_pkcs11").join(file);
            let read = finish(other.command("cat").arg(&path))?;
            assert_ne!(read.code, 0, "uid {uid} can read {file}");
        }
        assert!(
            openssl::connect(&other, &certificate, &conf, &server).is_err(),
            "uid {uid}"
        );
    }
    Ok(())
}

/// The status is the same for everybody who may look.
#[test]
fn networks_are_configured_for_every_user() -> Result<()> {
    assert_root();
    let device = usual()?;
    let authority = Authority::new()?;
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["network"] = json!({
        "eap_tls": [{ "interface": "eth0", "domain": "radius.example.com" }]
    });
    device.settings(&settings)?;
    device.write("/boot/firstboot/eap-ca.pem", authority.certificate_pem()?)?;
    device.enroll_with(&authority)?;
    // Somebody's own, with a password in it.
    let wifi = "/etc/wpa_supplicant/wpa_supplicant-wlan1.conf";
    device.write(wifi, "network={\n}\n")?;
    std::fs::set_permissions(
        device.path(wifi),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )?;
    let said = status_for(&device, &device.identity_of_greengrass(KeyType::EccP256)?)?;
    assert!(said.contains("eth0  configured"), "{said}");
    Ok(())
}

/// What the status says to this user.
fn status_for(device: &Device, identity: &Identity) -> Result<String> {
    let firstboot = device.firstboot(&["status"])?;
    // A copy that everybody may execute, wherever the build is.
    let copy = tempfile::Builder::new()
        .prefix("firstboot-")
        .tempdir_in("/tmp")?;
    std::fs::set_permissions(
        copy.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let program = copy.path().join("firstboot");
    std::fs::copy(firstboot.get_program(), &program)?;
    let mut command = identity.command(&program.display().to_string());
    Ok(finish(command.args(firstboot.get_args()))?.stdout)
}

/// OpenSSL reports "No such file or directory" for the URI; `status` reports the real cause.
#[test]
fn status_tells_a_user_what_is_wrong() -> Result<()> {
    assert_root();
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    let mut identity = device.identity_of_greengrass(KeyType::EccP256)?;
    let said = status_for(&device, &identity)?;
    assert!(!said.contains("obstacles"), "{said}");
    identity.user = Some(User {
        uid: 64_100,
        gid: device.group("tss"),
    });
    let said = status_for(&device, &identity)?;
    assert!(
        said.contains("the token's PIN: is this user in its group?"),
        "{said}"
    );
    Ok(())
}
