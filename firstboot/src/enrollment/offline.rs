//! Enrollment without a network: the operator takes the request from the boot partition and puts
//! the certificate there.

use super::Offer;
use crate::boot_partition::{BootPartition, MAX_CERTIFICATE};
use crate::clock::Clock;
use crate::files;
use crate::public_key::PublicKey;
use crate::x509::{Chain, Verdict};

/// Looks at the certificate that lies on the boot partition for this thing, if any.
pub fn offer(boot: &BootPartition, thing_name: &str, key: &PublicKey, clock: Clock) -> Offer {
    let path = boot.certificate_path(thing_name);
    let refused = |why: String| Offer::Refused(format!("{}: {why}", path.display()));
    let pem = match files::read(&path, MAX_CERTIFICATE) {
        Ok(Some(pem)) => pem,
        Ok(None) => {
            let [request, _] = boot.request_paths(thing_name);
            return Offer::Nothing(format!(
                "have {} signed and put the certificate to {}",
                request.display(),
                path.display()
            ));
        }
        Err(e) => return Offer::Refused(e.to_string()),
    };
    let chain = match Chain::parse(&pem) {
        Ok(chain) => chain,
        Err(why) => return refused(why),
    };
    match chain.check(key, thing_name, clock) {
        Verdict::Good => Offer::Certificate(Box::new(chain), None),
        Verdict::GoodBut(remark) => Offer::Certificate(Box::new(chain), Some(remark)),
        Verdict::Bad(why) => refused(why),
    }
}
