//! MakeCredential in software, opened by a TPM's TPM2_ActivateCredential through tpm2-tools.

use anyhow::Result;
use firstboot_formats::attestation::{EkPublic, make_credential};
use image_tests::doubles::software_tpm::{Ek, SoftwareTpm};

/// The header that tpm2-tools expect before the two structures: a magic number and a version (tpm2-tools, lib/files.c).
const HEADER: [u8; 8] = [0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1];

/// A key in the owner hierarchy, saved as `key.ctx`, and its Name.
fn key(tpm: &SoftwareTpm) -> Result<[u8; 34]> {
    let create = ["tpm2_createprimary", "-C", "o", "-G", "ecc256"];
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|decrypt";
    tpm.run(&[&create[..], &["-a", attributes, "-c", "key.ctx"]].concat())?;
    tpm.run(&["tpm2_readpublic", "-c", "key.ctx", "-n", "key.name"])?;
    tpm.flush()?;
    let name = std::fs::read(tpm.file("key.name"))?;
    Ok(name.try_into().expect("a Name with SHA-256"))
}

/// The credential that the TPM releases for the key in `key.ctx`, or why it does not.
pub fn activate(
    tpm: &SoftwareTpm,
    ek: Ek,
    blob: &[u8],
    secret: &[u8],
) -> Result<Result<Vec<u8>, String>> {
    std::fs::write(tpm.file("blob"), [&HEADER, blob, secret].concat())?;
    let create = ["tpm2_createek", "-G", ek.algorithm()];
    tpm.run(&[&create[..], &["-c", "ek.ctx", "-u", "ek.pub"]].concat())?;
    tpm.flush()?;
    tpm.run(&["tpm2_startauthsession", "--policy-session", "-S", "session"])?;
    tpm.run(&["tpm2_policysecret", "-S", "session", "-c", "e"])?;
    let keys = ["tpm2_activatecredential", "-c", "key.ctx", "-C", "ek.ctx"];
    let files = ["-i", "blob", "-o", "credential", "-P", "session:session"];
    let done = tpm.attempt(&[&keys[..], &files].concat())?;
    tpm.run(&["tpm2_flushcontext", "session"])?;
    tpm.flush()?;
    match done.code {
        0 => Ok(Ok(std::fs::read(tpm.file("credential"))?)),
        _ => Ok(Err(done.stderr)),
    }
}

#[test]
fn a_tpm_releases_a_credential_made_in_software() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    let name = key(&tpm)?;
    for ek in Ek::BOTH {
        let public = EkPublic::new(tpm.endorsement_key(ek)?).map_err(anyhow::Error::msg)?;
        // Each has its own seed.
        for byte in 0..4 {
            let credential = [byte; 32];
            let (blob, secret) =
                make_credential(&public, &name, &credential).map_err(anyhow::Error::msg)?;
            let given = activate(&tpm, ek, &blob, &secret)?;
            assert_eq!(given.as_deref(), Ok(&credential[..]), "{ek:?}");
        }
        let mut other = name;
        other[33] ^= 1;
        let (blob, secret) =
            make_credential(&public, &other, &[7; 32]).map_err(anyhow::Error::msg)?;
        let refused = activate(&tpm, ek, &blob, &secret)?.unwrap_err();
        // TPM_RC_INTEGRITY for parameter 1 (TPM 2.0 Library, Part 2 §6.6.3).
        assert!(refused.contains("0x1DF"), "{ek:?}: {refused}");
    }
    Ok(())
}

/// Another TPM's credential. No device sends that to its TPM, as it compares the EK certificate's hash first.
#[test]
fn another_tpm_releases_nothing_and_keeps_working() -> Result<()> {
    let [own, other] = [SoftwareTpm::start()?, SoftwareTpm::start()?];
    let name = key(&own)?;
    for ek in Ek::BOTH {
        let make = |tpm: &SoftwareTpm| -> Result<_> {
            let public = EkPublic::new(tpm.endorsement_key(ek)?).map_err(anyhow::Error::msg)?;
            make_credential(&public, &name, &[7; 32]).map_err(anyhow::Error::msg)
        };
        let (blob, secret) = make(&other)?;
        let refused = activate(&own, ek, &blob, &secret)?.unwrap_err();
        // TPM_RC_INTEGRITY; for RSA, OAEP fails first, for which libtpms returns TPM_RC_FAILURE and goes on.
        let codes = ["0x1DF", "0x101"];
        assert!(
            codes.iter().any(|code| refused.contains(code)),
            "{ek:?}: {refused}"
        );
        let (blob, secret) = make(&own)?;
        assert_eq!(
            activate(&own, ek, &blob, &secret)?.as_deref(),
            Ok(&[7; 32][..])
        );
    }
    assert_eq!(own.lockout_counter()?, 0);
    Ok(())
}
