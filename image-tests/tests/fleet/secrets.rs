//! Claim key, ownership token and PIN never reach a log, an argument list, an environment, a status, or a file that
//! others can read.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::doubles::iot_core::{Call, Misbehaviour, Rejection};
use image_tests::faults::network::CLAIM;
use std::os::unix::fs::PermissionsExt;

use crate::Enrolling;

/// The secrets: each line of the claim key's PEM, the token, the PIN.
fn secrets(enrolling: &Enrolling) -> Result<Vec<(String, String)>> {
    let [_, key] = enrolling.cloud.core.claim();
    let lines = key
        .lines()
        .filter(|line| line.len() > 20 && !line.starts_with('-'));
    let mut secrets: Vec<_> = lines
        .map(|line| ("claim key".to_owned(), line.to_owned()))
        .collect();
    for certificate in enrolling.cloud.core.registry().certificates() {
        secrets.push(("ownership token".into(), certificate.token.clone()));
    }
    secrets.push((
        "PIN".into(),
        enrolling.device.identity(KeyType::EccP256)?.pin()?,
    ));
    Ok(secrets)
}

#[test]
fn secrets_stay_where_they_belong() -> Result<()> {
    let enrolling =
        Enrolling::with_the_settings_name(image_tests::doubles::iot_core::Options::default())?;
    let refused = Rejection::new(429, "Throttled", "later");
    enrolling
        .cloud
        .core
        .misbehave(Call::RegisterThing, 1, Misbehaviour::Rejected(refused));
    let mut said = enrolling.device.run_traced(&["--verbose", "enroll"])?;
    // Between the two calls the token is on the disk, readable only by root.
    let [(_, token)] = &secrets(&enrolling)?
        .into_iter()
        .filter(|(what, _)| what == "ownership token")
        .collect::<Vec<_>>()[..]
    else {
        panic!("not one token: {said}");
    };
    let kept = "/var/lib/tpm2_pkcs11/ownership.json";
    let snapshot = enrolling.device.snapshot()?;
    assert_eq!(
        snapshot.files_with(token.as_bytes()),
        [std::path::Path::new(kept)]
    );
    let mode = std::fs::metadata(enrolling.device.path(kept))?
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["--verbose", "enroll"],
    ] {
        said += &enrolling.device.run_traced(arguments)?;
    }
    enrolling.ends_done()?;
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["--verbose", "enroll"],
    ] {
        said += &enrolling.device.run_traced(arguments)?;
    }
    assert!(said.contains("registered as"), "{said}");
    for (what, secret) in secrets(&enrolling)? {
        assert!(!said.contains(&secret), "the {what} was said");
        for path in enrolling.device.snapshot()?.files_with(secret.as_bytes()) {
            assert_eq!(what, "PIN", "the {what} is in {}", path.display());
            assert_eq!(path, std::path::Path::new("/var/lib/tpm2_pkcs11/pin"));
        }
    }
    for path in CLAIM {
        assert!(!enrolling.device.exists(path));
    }
    Ok(())
}
