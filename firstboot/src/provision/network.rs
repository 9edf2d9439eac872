//! What wpa_supplicant reads, so that the device authenticates to its networks: whether it is what it should be, and
//! the steps that write and remove it. None of this keeps a device from being enrolled, or takes it out of service.

use firstboot_formats::x509::Chain;
use log::warn;

use super::context::{Context, Memory, Places};
use super::inputs::Inputs;
use super::survey::{IdentityState, Survey};
use crate::eap_tls::{self, Found, Wanted};
use crate::error::Result;

/// Compares what is there with what is wanted, now that this is the accepted certificate.
pub(super) fn look(inputs: &Inputs, places: &Places, accepted: Option<&Chain>) -> Found {
    with_wanted(inputs, accepted, |wanted| {
        eap_tls::look(&places.layout, wanted)
    })
}

/// Writes what differs, and removes what is not wanted any more; without an accepted certificate, that is everything.
pub(super) fn write(context: &mut Context, survey: &Survey) -> Result<()> {
    let accepted = match &survey.identity {
        IdentityState::Complete(identity) => identity.certificate.as_ref(),
        _ => None,
    };
    let written = with_wanted(context.inputs()?, accepted, |wanted| {
        eap_tls::write(&context.places.layout, wanted)
    });
    if let Err(e) = written {
        let what = match accepted {
            Some(_) => "the networks are not configured",
            None => "the configuration of earlier networks stays",
        };
        let why = format!(
            "{what}: {e}. It needs an image with firstboot-eap-tls (TPM_GREENGRASS_EAP_TLS), and an /etc that can be \
             written"
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
        "{first}{others} was written by somebody else and stays, so that network.eap_tls has no effect there: remove \
         the file, or the setting"
    ))
}

fn with_wanted<T>(
    inputs: &Inputs,
    accepted: Option<&Chain>,
    work: impl FnOnce(Option<&Wanted<'_>>) -> T,
) -> T {
    let Some(accepted) = accepted else {
        return work(None);
    };
    let settings = &inputs.settings;
    work(Some(&Wanted {
        network: &settings.network,
        cas: &inputs.network_cas,
        platform: &settings.platform,
        has_operators: settings.has_operators,
        key_sha256: &accepted.key().fingerprint(),
    }))
}
