//! Only nucleus lite's user can use the identity: nobody else, not even in the group tss.

use anyhow::Result;
use image_tests::clients::{KeyType, User, openssl};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::{TlsServer, Version};
use image_tests::process::finish;

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

/// OpenSSL reports "No such file or directory" for the URI; `status` reports the real cause.
#[test]
fn status_tells_a_user_what_is_wrong() -> Result<()> {
    assert_root();
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    let firstboot = device.firstboot(&["status"])?;
    let mut identity = device.identity_of_greengrass(KeyType::EccP256)?;
    let status = |identity: &image_tests::clients::Identity| {
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
        Ok::<_, anyhow::Error>(finish(command.args(firstboot.get_args()))?.stdout)
    };
    let said = status(&identity)?;
    assert!(!said.contains("obstacles"), "{said}");
    identity.user = Some(User {
        uid: 64_100,
        gid: device.group("tss"),
    });
    let said = status(&identity)?;
    assert!(
        said.contains("the token's PIN: is this user in its group?"),
        "{said}"
    );
    Ok(())
}
