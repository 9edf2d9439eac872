//! Every kind of client uses the key, and a server verifies it.

use anyhow::Result;
use image_tests::clients::{KeyType, java, openssl, p11tool, pkcs11_tool};
use image_tests::device::Device;
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::{TlsServer, Version};

use crate::{device, thing_name};

fn enrolled(edition: &str, key: KeyType) -> Result<(Device, Authority)> {
    let device = device(edition, key)?;
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    Ok((device, authority))
}

/// Like nucleus lite: OpenSSL with pkcs11-provider, the configuration that firstboot wrote, and its user.
fn openssl_authenticates(key: KeyType) -> Result<()> {
    let (device, authority) = enrolled("nucleus-lite", key)?;
    let identity = device.identity_of_greengrass(key)?;
    let certificate = device.lite_certificate()?;
    for version in Version::BOTH {
        let server = TlsServer::start(&authority, version)?;
        openssl::connect(&identity, &certificate, &device.openssl_conf()?, &server)?;
        assert!(server.authenticated(&thing_name()), "{}", server.log());
    }
    assert_eq!(device.tpm.lockout_counter()?, 0);
    Ok(())
}

/// Like the nucleus: SunPKCS11 with the slot that the configuration names.
fn java_authenticates(key: KeyType) -> Result<()> {
    let (device, authority) = enrolled("nucleus", key)?;
    let config: serde_json::Value =
        serde_json::from_str(&device.read("/greengrass/v2/config/config.yaml")?)?;
    let plugin = &config["services"]["aws.greengrass.crypto.Pkcs11Provider"]["configuration"];
    let slot = plugin["slot"].as_u64().unwrap_or(u64::MAX);
    let identity = device.identity(key)?;
    assert_eq!(plugin["userPin"], identity.pin()?);
    for version in Version::BOTH {
        let server = TlsServer::start(&authority, version)?;
        java::connect_at_slot(&identity, slot, &server)?;
        assert!(server.authenticated(&thing_name()), "{}", server.log());
    }
    Ok(())
}

fn p11tool_lists_and_signs(key: KeyType) -> Result<()> {
    let (device, _authority) = enrolled("nucleus", key)?;
    let identity = device.identity(key)?;
    let urls = p11tool::list(&identity)?;
    let of_type = |kind: &str| {
        let wanted = format!("type={kind}");
        let mut found = urls.iter().filter(|url| url.ends_with(&wanted));
        let first = found.next().cloned().unwrap_or_default();
        assert!(found.next().is_none(), "more than one {kind}: {urls:?}");
        assert!(first.contains("object=greenkey"), "{urls:?}");
        // id=%30…: SunPKCS11 matches them by their common CKA_ID.
        let id = first.split(';').find(|part| part.starts_with("id="));
        id.map(str::to_owned)
    };
    let ids = ["private", "public", "cert"].map(of_type);
    assert!(
        ids[0].is_some() && ids.iter().all(|id| *id == ids[0]),
        "{urls:?}"
    );
    p11tool::test_sign(&identity)
}

fn pkcs11_tool_lists_and_signs(key: KeyType) -> Result<()> {
    let (device, _authority) = enrolled("nucleus", key)?;
    let identity = device.identity(key)?;
    let listing = pkcs11_tool::list(&identity)?;
    assert_eq!(
        listing.matches("Certificate Object").count(),
        1,
        "{listing}"
    );
    assert_eq!(
        listing.matches("Private Key Object").count(),
        1,
        "{listing}"
    );
    assert!(listing.contains("never extractable"), "{listing}");
    pkcs11_tool::sign_and_verify(&identity)
}

fn openssl_accepts_the_request(key: KeyType) -> Result<()> {
    let device = device("nucleus-lite", key)?;
    device.succeed(&["provision"])?;
    let text = openssl::verify_request(&device.request()?)?;
    assert!(
        text.replace(" = ", "=")
            .contains(&format!("CN={}", thing_name())),
        "{text}"
    );
    // ecdsa-with-SHA256 has no parameters (RFC 5758 §3.2); asn1parse would show a NULL.
    let request = device.request()?;
    let shown = image_tests::process::succeed(openssl::plain(&["asn1parse", "-in"]).arg(&request))?;
    let nulls = shown.matches("NULL").count();
    let allowed = if key == KeyType::EccP256 { 0 } else { 2 };
    assert_eq!(nulls, allowed, "{shown}");
    Ok(())
}

image_tests::for_both_keys! {
    openssl_authenticates: openssl_authenticates_with_ecc, openssl_authenticates_with_rsa;
    java_authenticates: java_authenticates_with_ecc, java_authenticates_with_rsa;
    p11tool_lists_and_signs: p11tool_signs_with_ecc, p11tool_signs_with_rsa;
    pkcs11_tool_lists_and_signs: pkcs11_tool_signs_with_ecc, pkcs11_tool_signs_with_rsa;
    openssl_accepts_the_request: openssl_accepts_the_ecc_request, openssl_accepts_the_rsa_request;
}

/// The server knows only the root, so the client has to send the intermediate from the token.
#[test]
fn java_sends_the_intermediate_certificate() -> Result<()> {
    let key = KeyType::EccP256;
    let device = device("nucleus", key)?;
    let authority = Authority::new()?;
    device.succeed(&["provision"])?;
    device.drop_certificate(&authority.sign_by_intermediate(&device.request()?)?)?;
    device.succeed(&["enroll"])?;
    let server = TlsServer::start(&authority, Version::Tls12)?;
    java::connect(&device.identity(key)?, &server)?;
    assert!(server.authenticated(&thing_name()), "{}", server.log());
    Ok(())
}

/// docs/operator.md, for a program that needs nucleus lite's certificate by its URI: the operator puts it into the
/// token, and firstboot leaves it there.
#[test]
fn another_program_can_have_the_certificate_in_the_token() -> Result<()> {
    let key = KeyType::EccP256;
    let (device, authority) = enrolled("nucleus-lite", key)?;
    let identity = device.identity(key)?;
    let configuration = device.path("/run/openssl.cnf");
    std::fs::write(&configuration, openssl::configuration(&identity)?)?;
    let connect = || -> Result<()> {
        let server = TlsServer::start(&authority, Version::Tls13)?;
        openssl::connect(&identity, &identity.uri("cert"), &configuration, &server)?;
        assert!(server.authenticated(&thing_name()), "{}", server.log());
        Ok(())
    };
    assert!(connect().is_err(), "the token has a certificate");
    let mut add = identity.command("tpm2_ptool");
    add.args(["addcert", "--label=greengrass", "--key-label=greenkey"]);
    add.arg("--path").arg(&identity.store);
    add.arg(identity.store.join("certificate.pem"));
    image_tests::process::succeed(&mut add)?;
    connect()?;
    let before = device.snapshot()?;
    device.succeed(&["enroll"])?;
    before.assert_same(&device.snapshot()?);
    connect()
}
