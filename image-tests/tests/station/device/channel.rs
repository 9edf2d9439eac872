//! The secrets' path: what is on the bus while a reply is opened, and that the values read from the store are those
//! that the library reads.

use anyhow::{Context, Result};
use firstboot::layout::Layout;
use firstboot::secret::Pin;
use firstboot::token::StoredKey;
use firstboot::tpm::{Credential, Stored, Tpm};
use firstboot_formats::attestation::{EkPublic, PublicArea, make_credential};
use firstboot_formats::encoding::to_hex;
use firstboot_formats::public_key::PublicKey;
use image_tests::clients::KeyType;
use image_tests::device::{Device, STORE};
use image_tests::doubles::software_tpm::Ek;
use image_tests::doubles::tpm_proxy::{Options, Proxy};

use super::{Desk, evidence};

/// Everything that must not be on the bus in clear.
struct Secrets {
    seal_auth: Vec<u8>,
    wrapping_key: Vec<u8>,
    key_auth: Vec<u8>,
}

fn stored([public, private]: &[Vec<u8>; 2]) -> Stored<'_> {
    Stored { public, private }
}

/// Opens a credential with the library as firstboot does. Returns the secrets that it used.
fn activate(device: &Device, tcti: &str, ek: &PublicKey, credential: &[u8; 32]) -> Result<Secrets> {
    let store = StoredKey::read(&device.path(STORE))?;
    let pin = Pin::parse(device.read(format!("{STORE}/pin"))?.into_bytes()).context("a PIN")?;
    let area = PublicArea::parse(&evidence(device)?.key_public).map_err(anyhow::Error::msg)?;
    let public = openssl::pkey::PKey::public_key_from_der(ek.spki())?;
    let public = EkPublic::new(public).map_err(anyhow::Error::msg)?;
    let (blob, secret) =
        make_credential(&public, &area.name(), credential).map_err(anyhow::Error::msg)?;

    let mut tpm = Tpm::connect(tcti, &Layout::new("/"))?;
    let seal_auth = store.seal_auth(&pin);
    let mut channel = tpm.channel(&device.read(format!("{STORE}/srk.name"))?)?;
    let wrapping_key = channel.unseal(stored(&store.seal), &seal_auth)?;
    let key_auth = store.key_auth(&wrapping_key)?;
    let blobs = Credential {
        blob: &blob,
        secret: &secret,
    };
    let given = channel.activate(stored(&store.key), &key_auth, ek, blobs)?;
    assert_eq!(given[..], credential[..]);
    Ok(Secrets {
        seal_auth: seal_auth.to_vec(),
        wrapping_key: wrapping_key.to_vec(),
        key_auth: key_auth.to_vec(),
    })
}

#[test]
fn no_secret_crosses_the_bus_in_clear() -> Result<()> {
    let desk = Desk::new()?;
    for key in KeyType::BOTH {
        for ek in Ek::BOTH {
            let (device, _) = desk.device(key, ek)?;
            device.succeed(&["provision"])?;
            let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
            let public = PublicKey::from_spki(device.tpm.endorsement_key(ek)?.public_key_to_der()?);
            let credential: [u8; 32] = *b"what the reply is encrypted with";
            let secrets = activate(&device, &proxy.tcti(), &public, &credential)?;
            let log = proxy.take_commands();
            assert_eq!(log.count("ActivateCredential"), 1);
            assert_eq!(log.count("Unseal"), 1);
            for (what, secret) in [
                ("the PIN's hash", &secrets.seal_auth[..]),
                ("the wrapping key", &secrets.wrapping_key),
                ("the key's authorization value", &secrets.key_auth),
                ("the credential", &credential),
            ] {
                assert!(secret.len() >= 32, "{what} has {} bytes", secret.len());
                let heard = log.with(secret);
                assert!(heard.is_empty(), "{key:?}, {ek:?}: {what} in {heard:?}");
            }
            let by_library = library_value(&device)?;
            assert_eq!(by_library, to_hex(&secrets.key_auth));
        }
    }
    Ok(())
}

/// The owner of a key that replaced the storage root key could decrypt everything.
#[test]
fn no_session_is_salted_with_another_key() -> Result<()> {
    let desk = Desk::new()?;
    let device = desk.provisioned()?;
    let name = device.read(format!("{STORE}/srk.name"))?;
    let other = format!("000b{}", "00".repeat(32));
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    let mut tpm = Tpm::connect(&proxy.tcti(), &Layout::new("/"))?;
    let refused = tpm.channel(&other).err().map(|e| e.to_string());
    assert!(refused.is_some_and(|why| why.contains("no longer the identity's storage root key")));
    assert_eq!(proxy.take_commands().count("StartAuthSession"), 0);
    assert!(tpm.channel(&name).is_ok());
    Ok(())
}

/// The negative control: tpm2-tools unseal the same object without encryption.
#[test]
fn a_secret_in_clear_is_noticed() -> Result<()> {
    let desk = Desk::new()?;
    let device = desk.provisioned()?;
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    let ek = device.tpm.endorsement_key(Ek::P256)?.public_key_to_der()?;
    let secrets = activate(&device, &proxy.tcti(), &PublicKey::from_spki(ek), &[7; 32])?;
    let store = StoredKey::read(&device.path(STORE))?;
    for (name, bytes) in ["seal.pub", "seal.priv"].iter().zip(&store.seal) {
        std::fs::write(device.tpm.file(name), bytes)?;
    }
    let tool = |arguments: &[&str]| {
        let mut command = image_tests::process::bounded(arguments[0]);
        command
            .args(&arguments[1..])
            .env("TPM2TOOLS_TCTI", proxy.tcti());
        image_tests::process::succeed(command.current_dir(device.tpm.file("")))
    };
    tool(&[
        "tpm2_load",
        "-C",
        "0x81000001",
        "-u",
        "seal.pub",
        "-r",
        "seal.priv",
        "-c",
        "seal.ctx",
    ])?;
    device.tpm.flush()?;
    let auth = String::from_utf8(secrets.seal_auth)?;
    proxy.take_commands();
    let unsealed = tool(&["tpm2_unseal", "-c", "seal.ctx", "-p", &auth])?;
    assert_eq!(unsealed.as_bytes(), secrets.wrapping_key);
    let log = proxy.take_commands();
    assert_eq!(log.with(&secrets.wrapping_key), ["Unseal"]);
    device.tpm.flush()
}

/// The key's authorization value as tpm2-pkcs11 decrypts it.
fn library_value(device: &Device) -> Result<String> {
    let identity = device.identity(KeyType::EccP256)?;
    let mut program = identity.command(env!("CARGO_BIN_EXE_unwrapped_auth"));
    program
        .env("MODULE", &identity.module)
        .env("PIN", identity.pin()?);
    let digits = image_tests::process::succeed(&mut program)?;
    Ok(digits.trim().to_owned())
}
