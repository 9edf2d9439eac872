//! Prints the key's authorization value, as tpm2-pkcs11 itself unwraps it, in hexadecimal: the library decrypts a data
//! object whose wrapped value is the key's (docs/findings/attestation.md, "The key without the library"). tests/station
//! compares it with what firstboot reads from the store. A separate program, because the library is configured by the
//! environment: TPM2_PKCS11_STORE and TPM2_PKCS11_TCTI; MODULE is its path, PIN the user's PIN.

use anyhow::{Context, Result, bail};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;

/// CKA_TPM2_OBJAUTH_ENC and CKA_TPM2_ENC_BLOB (tpm2-pkcs11, src/lib/attrs.h).
const WRAPPED_AUTH: AttributeType = AttributeType::VendorDefined(0x8F00_0001);
const ENCRYPTED_BLOB: AttributeType = AttributeType::VendorDefined(0x8F00_0004);

fn main() -> Result<()> {
    let library = Pkcs11::new(std::env::var("MODULE")?)?;
    library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let slots = library.get_slots_with_initialized_token()?;
    let session = library.open_rw_session(*slots.first().context("no token")?)?;
    let pin = AuthPin::new(std::env::var("PIN")?.into());
    session.login(UserType::User, Some(&pin))?;
    let keys = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])?;
    let key = *keys.first().context("no key")?;
    let wrapped = bytes(session.get_attributes(key, &[WRAPPED_AUTH])?)?;
    let decrypting = session.create_object(&[
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Label("decrypting".into()),
        Attribute::Value(b"x".to_vec()),
    ])?;
    session.update_attributes(
        decrypting,
        &[
            Attribute::Value(Vec::new()),
            Attribute::VendorDefined((ENCRYPTED_BLOB, wrapped)),
        ],
    )?;
    let value = bytes(session.get_attributes(decrypting, &[AttributeType::Value])?)?;
    session.destroy_object(decrypting)?;
    let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{digits}");
    Ok(())
}

fn bytes(attributes: Vec<Attribute>) -> Result<Vec<u8>> {
    match attributes.into_iter().next() {
        Some(Attribute::VendorDefined((_, bytes)) | Attribute::Value(bytes)) => Ok(bytes),
        other => bail!("no bytes: {other:?}"),
    }
}
