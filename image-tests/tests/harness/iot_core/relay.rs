//! The relay counts records, cuts where it is told, and waits for the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use image_tests::doubles::tpm_proxy::When;
use image_tests::faults::network::{Cut, Direction, Relay};
use serde_json::json;

use super::{CREATE, Double};

const ACCEPTED: &str = "$aws/certificates/create-from-csr/json/accepted";

#[test]
fn each_record_is_a_point_to_cut_at() -> Result<()> {
    let double = Double::new()?;
    let relay = Relay::start(double.core.port())?;
    let payload = json!({ "certificateSigningRequest": double.ecc_request()?.1 }).to_string();
    let whole = double.request(CREATE, ACCEPTED, &payload, relay.port())?;
    assert_eq!(whole.code, 0, "{whole:?}");
    relay.settle()?;
    let counts = Direction::BOTH.map(|direction| relay.count(direction));
    assert!(counts[0] > 5 && counts[1] > 5, "{counts:?}");
    let hello = &relay.hellos()[0];
    assert_eq!(hello.server_name.as_deref(), Some("localhost"));
    assert_eq!(hello.protocols, Vec::<String>::new());

    let mut made = 0;
    for direction in Direction::BOTH {
        for n in 1..=counts[direction as usize] {
            for when in [When::Before, When::After] {
                let before = double.core.counts().created;
                relay.reset();
                relay.cut_connection(Cut { direction, n, when });
                let said = double.request(CREATE, ACCEPTED, &payload, relay.port())?;
                relay.settle()?;
                // Nothing depends on the last packets: the client may have its answer, and be gone.
                let at = format!("{direction:?} {n} {when:?}: {said:?}");
                assert!(relay.was_cut() || said.code == 0, "{at}");
                made += double.core.counts().created - before;
            }
        }
    }
    assert!(made > 0, "no request came through before its cut");
    assert_eq!(double.core.events().open(), 0);
    relay.reset();
    let again = double.request(CREATE, ACCEPTED, &payload, relay.port())?;
    assert_eq!(again.code, 0, "{again:?}");
    Ok(())
}

#[test]
fn after_a_power_cut_nothing_passes_until_the_power_is_back() -> Result<()> {
    let double = Double::new()?;
    let relay = Relay::start(double.core.port())?;
    let killed = Arc::new(AtomicBool::new(false));
    let kill = Arc::clone(&killed);
    let cut = Cut {
        direction: Direction::ToCloud,
        n: 2,
        when: When::Before,
    };
    relay.cut_power(cut, move || kill.store(true, Ordering::SeqCst));
    for _ in 0..2 {
        let refused = double.request(CREATE, ACCEPTED, "{}", relay.port())?;
        assert_ne!(refused.code, 0);
        assert!(relay.was_cut() && killed.load(Ordering::SeqCst));
    }
    relay.settle()?;
    assert_eq!(double.core.events().0.len(), 0);
    relay.reset();
    let payload = json!({ "certificateSigningRequest": double.ecc_request()?.1 }).to_string();
    assert_eq!(
        double
            .request(CREATE, ACCEPTED, &payload, relay.port())?
            .code,
        0
    );
    Ok(())
}
