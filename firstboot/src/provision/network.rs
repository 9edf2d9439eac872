//! What wpa_supplicant reads, so that the device authenticates to its networks: whether it is what it should be, and
//! the steps that write and remove it. None of this keeps a device from being enrolled, or takes it out of service.

use firstboot_formats::x509::Chain;
use log::warn;

use super::complete::Complete;
use super::context::{Context, Memory, Places};
use super::inputs::Inputs;
use super::own_key::OwnKey;
use crate::eap_tls::{self, Found, Wanted};
use crate::error::Result;

/// Compares what is there with what is wanted, now that these are the device's certificate and the networks' own key.
pub(super) fn look(
    inputs: &Inputs,
    places: &Places,
    accepted: Option<&Chain>,
    own: &OwnKey,
) -> Found {
    let mut found = eap_tls::look(&places.layout, &wanted(inputs, accepted, own));
    if let Some(why) = own.unclear() {
        found.trouble.get_or_insert_with(|| why.to_owned());
    }
    found
}

/// Writes what differs, and removes what is not wanted any more, or for which there is no certificate.
pub(super) fn write(context: &mut Context, identity: &Complete) -> Result<()> {
    let (accepted, own) = (identity.certificate.as_ref(), &identity.own_key);
    let wanted = wanted(context.inputs()?, accepted, own);
    if let Err(e) = eap_tls::write(&context.places.layout, &wanted) {
        let why = format!(
            "the configuration of the networks stays as it is: {e}. It needs an image with firstboot-eap-tls \
             (TPM_GREENGRASS_EAP_TLS), and an /etc that can be written"
        );
        warn!("{why}");
        context.memory.network_stays = Some(why);
    }
    Ok(())
}

/// Why the networks are not what they should be, if that is known.
pub fn trouble<'a>(found: &'a Found, memory: &'a Memory) -> Option<&'a str> {
    let stays = memory.network_stays.as_deref().filter(|_| found.differs);
    stays.or(found.trouble.as_deref())
}

/// What the operator should know about configurations that are not ours.
pub(super) fn taken(found: &Found) -> Option<String> {
    let taken: Vec<_> = found
        .taken
        .iter()
        .map(|taken| taken.path.display())
        .collect();
    let [first, ..] = taken.as_slice() else {
        return None;
    };
    let others = match taken.len() - 1 {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    Some(format!(
        "{first}{others}: not firstboot's, so it stays, and network.eap_tls has no effect there: remove the file, or the \
         setting"
    ))
}

fn wanted<'a>(inputs: &'a Inputs, accepted: Option<&Chain>, own: &OwnKey) -> Wanted<'a> {
    let settings = &inputs.settings;
    let key = |chain: &Chain| chain.key().fingerprint();
    Wanted {
        network: &settings.network,
        cas: &inputs.network_cas,
        platform: &settings.platform,
        has_operator_file: settings.has_operator_file,
        same: accepted.map(key),
        own: own.certificate().map(key),
        own_is_unclear: own.unclear().is_some(),
    }
}
