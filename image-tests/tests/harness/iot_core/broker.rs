//! mosquitto with the plugin: mutual TLS, policies, answers only to the client that asked.

use anyhow::Result;
use image_tests::doubles::clock::DAY;
use image_tests::doubles::iot_core::{Admission, Event, IotCore, Options};
use image_tests::doubles::pki::{Authority, Pair};
use image_tests::process::finish;
use serde_json::json;

use super::{CREATE, Double, REGISTER};

/// mosquitto_pub's exit status: 5 for CONNACK "not authorised", other failures for no CONNACK.
fn publish(double: &Double, who: &Pair, topic: &str) -> Result<i32> {
    let mut command = double.client("mosquitto_pub", who, "device", double.core.port());
    Ok(finish(command.args(["-t", topic, "-m", "{}"]))?.code)
}

#[test]
fn a_claim_may_use_the_provisioning_topics_and_no_others() -> Result<()> {
    let double = Double::new()?;
    assert_eq!(publish(&double, &double.claim, CREATE)?, 0);
    assert_eq!(publish(&double, &double.claim, REGISTER)?, 0);
    for topic in [
        "devices/core-1/hello",
        "$aws/things/core-1/shadow/update",
        "$aws/certificates/create/json",
        "$aws/certificates/create-from-csr/cbor",
    ] {
        publish(&double, &double.claim, topic)?;
        let events = double.core.take_events()?;
        assert_eq!(
            events.count(|e| *e == Event::Denied(topic.into())),
            1,
            "{topic}"
        );
    }
    for filter in [
        "#",
        "$aws/#",
        "devices/core-1/#",
        "$aws/certificates/create/json/accepted",
    ] {
        let mut command =
            double.client("mosquitto_sub", &double.claim, "device", double.core.port());
        let said = finish(command.args(["-d", "-E", "-t", filter]))?;
        assert!(said.stdout.contains("128"), "{filter}: {said:?}");
    }
    Ok(())
}

/// AWS's certificates are valid until the end of 2049.
#[test]
fn nobody_connects_with_a_certificate_that_has_ended() -> Result<()> {
    let mut double = Double::new()?;
    for (days, is_let_in) in [(1000, true), (9000, false)] {
        double.core.advance(DAY * days);
        double.core = IotCore::resume(&double.root, double.core.memory())?;
        assert_eq!(publish(&double, &double.claim, CREATE)? == 0, is_let_in);
    }
    Ok(())
}

#[test]
fn nobody_else_can_connect() -> Result<()> {
    let double = Double::new()?;
    let stranger = Authority::new()?.claim()?;
    assert_ne!(publish(&double, &stranger, CREATE)?, 0);
    let mut bare = image_tests::process::bounded("mosquitto_pub");
    bare.args([
        "-h",
        "localhost",
        "-t",
        CREATE,
        "-m",
        "{}",
        "-p",
        &double.core.port().to_string(),
    ]);
    bare.arg("--cafile").arg(double.root.certificate_path());
    assert_ne!(finish(&mut bare)?.code, 0, "without a certificate");
    assert_eq!(
        double.core.events().0.len(),
        0,
        "{:?}",
        double.core.events()
    );
    // A CA that the broker trusts, and a certificate that the double does not know.
    let trusted = Authority::new()?;
    let double = Double::with(Options {
        trusted: vec![trusted.certificate_pem()?],
        ..Options::default()
    })?;
    assert_ne!(publish(&double, &trusted.claim()?, CREATE)?, 0);
    assert_eq!(double.core.events().count(|e| *e == Event::Refused), 1);
    Ok(())
}

#[test]
fn all_connections_can_be_refused_or_closed() -> Result<()> {
    let double = Double::new()?;
    double.core.set_admission(Admission::Refused);
    assert_eq!(publish(&double, &double.claim, CREATE)?, 5);
    double.core.set_admission(Admission::Closed);
    let code = publish(&double, &double.claim, CREATE)?;
    assert!(code != 0 && code != 5, "{code}");
    double.core.behave();
    assert_eq!(publish(&double, &double.claim, CREATE)?, 0);
    Ok(())
}

/// Devices that ask at the same time each get their own answer, and nobody else's.
#[test]
fn an_answer_reaches_only_the_client_that_asked() -> Result<()> {
    let double = Double::new()?;
    let requests: Vec<String> = (0..8)
        .map(|_| Ok(double.ecc_request()?.1))
        .collect::<Result<_>>()?;
    let tokens = std::thread::scope(|scope| {
        let asking: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(i, request)| {
                let double = &double;
                scope.spawn(move || -> Result<String> {
                    let name = format!("device-{i}");
                    let mut command =
                        double.client("mosquitto_sub", &double.claim, &name, double.core.port());
                    let accepted = format!("{CREATE}/accepted");
                    // Listens for as long as the others ask.
                    command.args(["-W", "3", "-t", &accepted]);
                    let payload = json!({ "certificateSigningRequest": request }).to_string();
                    let listening = std::thread::spawn(move || finish(&mut command));
                    let id = format!("asking-{i}");
                    let mut ask =
                        double.client("mosquitto_rr", &double.claim, &id, double.core.port());
                    ask.args(["-W", "60", "-t", CREATE, "-e", &accepted, "-m", &payload]);
                    let heard = finish(&mut ask)?.stdout;
                    let overheard = listening.join().map_err(|_| anyhow::anyhow!("panic"))??;
                    assert_eq!(overheard.stdout, "", "a neighbour's answer");
                    Ok(heard)
                })
            })
            .collect();
        asking
            .into_iter()
            .map(|asking| asking.join().unwrap_or_else(|_| anyhow::bail!("panic")))
            .collect::<Result<Vec<_>>>()
    })?;
    let different: std::collections::BTreeSet<_> = tokens.iter().collect();
    assert_eq!(different.len(), 8);
    assert_eq!(double.core.counts().created, 8);
    Ok(())
}
