//! The documented API, and what the double enforces.

use std::time::Duration;

use anyhow::Result;
use image_tests::doubles::iot_core::{Options, Repeated, Status, Subject, Template};
use image_tests::doubles::pki::Authority;
use image_tests::process::{bounded, succeed};
use serde_json::json;

use super::{CREATE, Double, REGISTER, registration};

#[test]
fn a_certificate_is_active_only_once_its_thing_is_registered() -> Result<()> {
    let double = Double::new()?;
    for (key, serial) in [
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "1",
        ),
        (
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "2",
        ),
    ] {
        let (key, request) = double.request_for(key)?;
        let created = double.create(&request)?;
        let token = &created["certificateOwnershipToken"];
        assert!(token.as_str().is_some_and(|token| token.len() > 400));
        let pair = double.pair(key, &created)?;
        let thing = format!("core-{serial}");
        assert!(!double.lets_in(&pair, &thing)?, "a pending one is accepted");
        assert!(!double.core.events().authenticated(&thing));

        let registered = double.register(token, serial)?;
        assert_eq!(registered["thingName"], thing.as_str());
        assert_eq!(
            registered["deviceConfiguration"],
            json!({ "site": "factory" })
        );
        assert!(double.lets_in(&pair, &thing)?, "{}", double.core.log()?);
        assert!(double.core.events().authenticated(&thing));
        assert!(!double.lets_in(&pair, "somebody-else")?);

        let id = created["certificateId"].as_str().unwrap_or_default();
        double.core.set_status(id, Status::Inactive);
        assert!(
            !double.lets_in(&pair, &thing)?,
            "an inactive one is accepted"
        );
        double.core.set_status(id, Status::Active);
    }
    let counts = double.core.counts();
    assert_eq!((counts.created, counts.active, counts.orphaned), (2, 2, 0));
    assert_eq!((counts.things, counts.registered), (2, 2));
    Ok(())
}

/// They look like AWS's, and OpenSSL accepts them.
#[test]
fn its_certificates_look_like_those_of_aws() -> Result<()> {
    for (subject, name) in [
        (Subject::Aws, "CN=AWS IoT Certificate"),
        (Subject::Requested, "CN=gateway-1"),
    ] {
        let double = Double::with(Options {
            subject,
            ..Options::default()
        })?;
        let (key, request) = double.ecc_request()?;
        let pair = double.pair(key, &double.create(&request)?)?;
        let mut show = bounded("openssl");
        show.args(["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in"]);
        let text = succeed(show.arg(&pair.certificate))?;
        for wanted in [
            &format!("Subject: {name}"),
            "Dec 31 23:59:59 2049 GMT",
            "sha256WithRSAEncryption",
            "CA:FALSE",
            "Digital Signature",
        ] {
            assert!(text.contains(wanted), "no {wanted} in: {text}");
        }
    }
    Ok(())
}

#[test]
fn a_token_can_be_used_once() -> Result<()> {
    for repeated in [Repeated::Refused, Repeated::Idempotent] {
        let double = Double::with(Options {
            repeated,
            ..Options::default()
        })?;
        let created = double.create(&double.ecc_request()?.1)?;
        let token = &created["certificateOwnershipToken"];
        let first = double.register(token, "1")?;
        match repeated {
            Repeated::Idempotent => assert_eq!(double.register(token, "1")?, first),
            Repeated::Refused => {
                let refused = double.rejected(REGISTER, &registration(token, "1"))?;
                assert_eq!(refused["errorCode"], "InvalidCertificateOwnershipToken");
                assert_eq!(refused["statusCode"], 400);
            }
        }
        let counts = double.core.counts();
        assert_eq!((counts.created, counts.active, counts.things), (1, 1, 1));
    }
    Ok(())
}

#[test]
fn a_token_and_its_certificate_live_for_an_hour() -> Result<()> {
    let double = Double::new()?;
    let early = double.create(&double.ecc_request()?.1)?;
    double.core.advance(Duration::from_secs(3599));
    double.register(&early["certificateOwnershipToken"], "1")?;
    let late = double.create(&double.ecc_request()?.1)?;
    double.core.advance(Duration::from_secs(3600));
    let payload = registration(&late["certificateOwnershipToken"], "2");
    let refused = double.rejected(REGISTER, &payload)?;
    assert_eq!(refused["errorCode"], "InvalidCertificateOwnershipToken");
    let counts = double.core.counts();
    assert_eq!((counts.active, counts.orphaned), (1, 1));
    let id = late["certificateId"].as_str().unwrap_or_default();
    let status = double.core.registry().certificate(id).map(|c| c.status);
    assert_eq!(status, Some(Status::Deleted));
    Ok(())
}

#[test]
fn requests_that_aws_refuses_are_refused() -> Result<()> {
    let double = Double::new()?;
    let small = double.request_for(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"])?;
    let odd = double.request_for(&[
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:secp256k1",
    ])?;
    let edwards = double.request_for(&["-algorithm", "ED25519"])?;
    let good = double.ecc_request()?.1;
    // Changes one character of the signature, which is at the end.
    let mut forged = good.clone();
    let at = good.find("-----END").unwrap_or(0) - 12;
    let other = if &good[at..=at] == "A" { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    for request in [&small.1, &odd.1, &edwards.1, &forged, "hello", ""] {
        let refused = double.rejected(CREATE, &json!({ "certificateSigningRequest": request }))?;
        assert_eq!(refused["statusCode"], 400, "{request}");
    }
    assert_eq!(double.core.counts().created, 0);
    Ok(())
}

#[test]
fn parameters_have_to_match_the_template() -> Result<()> {
    let double = Double::new()?;
    let created = double.create(&double.ecc_request()?.1)?;
    let token = &created["certificateOwnershipToken"];
    for parameters in [
        json!({}),
        json!({ "Location": "here" }),
        json!({ "SerialNumber": 1 }),
        json!({ "SerialNumber": "1", "Colour": "red" }),
    ] {
        let payload = json!({ "certificateOwnershipToken": token, "parameters": parameters });
        let refused = double.rejected(REGISTER, &payload)?;
        assert_eq!(refused["errorCode"], "InvalidParameters", "{parameters}");
    }
    for token in [json!(""), json!("made up"), json!(null)] {
        let refused = double.rejected(REGISTER, &registration(&token, "1"))?;
        assert_eq!(refused["errorCode"], "InvalidCertificateOwnershipToken");
    }
    let elsewhere = "$aws/provisioning-templates/others/provision/json";
    let refused = double.rejected(elsewhere, &registration(token, "1"))?;
    assert_eq!(refused["errorCode"], "ResourceNotFound");
    assert_eq!(double.core.counts().active, 0);
    // None of this has used the token up.
    double.register(token, "1")?;
    assert_eq!(double.core.counts().active, 1);
    assert_eq!(double.core.counts().register_calls, 9);
    Ok(())
}

/// If the template leaves the certificate inactive, the thing exists, but the device cannot connect.
#[test]
fn a_template_can_leave_the_certificate_inactive() -> Result<()> {
    let double = Double::with(Options {
        templates: vec![Template {
            status: Status::Inactive,
            ..Template::default()
        }],
        ..Options::default()
    })?;
    let (key, request) = double.ecc_request()?;
    let created = double.create(&request)?;
    double.register(&created["certificateOwnershipToken"], "1")?;
    assert!(!double.lets_in(&double.pair(key, &created)?, "core-1")?);
    Ok(())
}

/// Just-in-time provisioning: the first connection creates the thing and is closed, the second is accepted.
#[test]
fn a_registered_cas_device_connects_at_the_second_attempt() -> Result<()> {
    let operator = Authority::new()?;
    let double = Double::with(Options {
        registered: vec![operator.certificate_pem()?],
        trusted: vec![operator.certificate_pem()?],
        ..Options::default()
    })?;
    let (key, request) = double.ecc_request()?;
    let path = key.with_extension("csr");
    std::fs::write(&path, request)?;
    let pem = operator.sign(&path)?;
    let pair = double.pair(key, &json!({ "certificatePem": pem }))?;
    assert!(!double.lets_in(&pair, "gateway-1")?);
    assert!(double.lets_in(&pair, "gateway-1")?);
    assert!(double.core.events().authenticated("gateway-1"));
    Ok(())
}
