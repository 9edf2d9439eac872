//! When a new certificate is due, what people are told of it, and the request for it.

use std::time::Duration;

use firstboot_formats::clock::{Clock, rfc3339};
use firstboot_formats::thing_name::next_name;
use firstboot_formats::x509::Chain;

use crate::error::Result;
use crate::identity::Asked;
use crate::provision::context::{Context, Places};
use crate::provision::request;
use crate::settings::{At, Method, Settings};

/// People are warned this long before the end …
const WARNING: At = At::Before(Duration::from_secs(30 * 24 * 60 * 60));
/// … or after this share of the lifetime, if that is later: a certificate may live for less.
const WARNING_OF_SHORT: At = At::Share(2, 3);

/// What is to be said of the accepted certificate's age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// From when a new one is due (RFC 3339, UTC), if the settings have it done.
    pub due_from: Option<String>,
    /// It is due; what is awaited, in words.
    pub due: Option<String>,
    /// The latest note that a certificate's successor was asked for.
    pub asked: Option<Asked>,
    /// The accepted certificate's successor was asked for.
    pub is_asked_for: bool,
    /// The end is near, or past; in words that change only then.
    pub warning: Option<String>,
    /// The end is past.
    pub is_over: bool,
}

impl Renewal {
    /// Looks at the accepted certificate.
    pub(in crate::provision) fn look(
        settings: Option<&Settings>,
        places: &Places,
        accepted: &Chain,
    ) -> Self {
        let clock = settings.map_or_else(Clock::read, |settings| settings.enrollment.clock());
        let asked = places.identity.asked();
        let is_asked_for = asked.as_ref().is_some_and(|asked| asked.is_about(accepted));
        let wanted = settings.and_then(|settings| Some((settings, settings.renew?.at)));
        let lifetime = accepted.lifetime();
        Self {
            due_from: wanted.map(|(_, at)| rfc3339(at.moment(lifetime))),
            due: wanted
                .filter(|(_, at)| is_due(at.moment(lifetime), is_asked_for, clock))
                .map(|(settings, _)| awaited(settings, places)),
            asked,
            is_asked_for,
            warning: warning(
                "the certificate",
                "Greengrass cannot connect",
                lifetime,
                clock,
            ),
            is_over: accepted.expired(clock).is_some(),
        }
    }

    /// Whether the end is near enough to put a certificate into service that nobody has tried.
    pub fn is_urgent(&self) -> bool {
        self.warning.is_some()
    }
}

/// A clock that is not synchronised decides nothing: what was due stays due.
fn is_due(moment: Duration, is_asked_for: bool, clock: Clock) -> bool {
    match clock.synchronised {
        true => clock.now >= moment,
        false => is_asked_for,
    }
}

/// A warning that `what` is about to expire or has expired, and of the consequence, `then`. The words stay the same from
/// day to day. An undisciplined clock runs behind, so that this is never too early.
pub(in crate::provision) fn warning(
    what: &str,
    then: &str,
    lifetime: [Duration; 2],
    clock: Clock,
) -> Option<String> {
    let [_, end] = lifetime;
    let from = WARNING
        .moment(lifetime)
        .max(WARNING_OF_SHORT.moment(lifetime));
    let date = rfc3339(end);
    if clock.now > end {
        Some(format!(
            "{what} expired on {date}: without a new one, {then}"
        ))
    } else if clock.now >= from {
        Some(format!(
            "{what} expires on {date}: from then on, {then} without a new one"
        ))
    } else {
        None
    }
}

fn awaited(settings: &Settings, places: &Places) -> String {
    let thing_name = &settings.thing_name;
    let (file_name, again) = match settings.wants_new_key() {
        true => (next_name(thing_name), ""),
        false => (thing_name.clone(), " again"),
    };
    let [request, _] = places.boot.request_paths(&file_name);
    let offline = format!(
        "have {} signed{again} and save the new certificate as {}",
        request.display(),
        places.boot.certificate_path(&file_name).display()
    );
    match settings.enrollment.method {
        Method::Offline => format!("the certificate is due for renewal: {offline}"),
        Method::FleetProvisioning => format!(
            "the certificate is due for renewal: `firstboot renew` requests a new one from AWS IoT Core, daily. Or {offline}"
        ),
        Method::Est => format!(
            "the certificate is due for renewal: `firstboot renew` requests a new one from the EST server, daily. Or {offline}"
        ),
    }
}

/// Publishes the request again, and notes when it was asked for.
pub(super) fn ask(context: &mut Context, renewal: &Renewal, accepted: &Chain) -> Result<()> {
    let request = context.places.identity.request_files()?;
    request::publish(context, true, &request)?;
    note(context, renewal, accepted)
}

/// Publishes the next identity's request in place of the present one's, and notes when it was asked for.
pub(super) fn ask_for_next(
    context: &mut Context,
    renewal: &Renewal,
    accepted: &Chain,
) -> Result<()> {
    let [request, record] = context.places.next.request_files()?;
    let file_name = next_name(&context.settings()?.thing_name);
    request::publish_as(context, true, &file_name, [&request, &record])?;
    request::withdraw(&context.places);
    note(context, renewal, accepted)
}

/// A request that is only published again was asked for before.
fn note(context: &Context, renewal: &Renewal, accepted: &Chain) -> Result<()> {
    if renewal.due.is_none() || renewal.is_asked_for {
        return Ok(());
    }
    let time = rfc3339(Clock::read().now);
    context.places.identity.note_asked(accepted, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u64, synchronised: bool) -> Clock {
        Clock {
            now: days(day),
            synchronised,
        }
    }

    fn days(count: u64) -> Duration {
        Duration::from_secs(count * 24 * 60 * 60)
    }

    #[test]
    fn only_a_synchronised_clock_makes_it_due() {
        let due = |day, synchronised, asked| is_due(days(10), asked, at(day, synchronised));
        assert!(due(10, true, false) && due(11, true, true));
        assert!(!due(9, true, false));
        // The settings were changed to a later time.
        assert!(!due(9, true, true));
        assert!(!due(11, false, false));
        assert!(due(9, false, true));
    }

    #[test]
    fn the_last_days_are_warned_of() {
        let says = |life: [u64; 2], day| warning("it", "ends", life.map(days), at(day, false));
        let year = [100, 465];
        assert_eq!(says(year, 434), None);
        let last = says(year, 435);
        assert!(
            last.as_ref()
                .is_some_and(|w| w.contains("expires on 1971-04-11T")),
            "{last:?}"
        );
        assert_eq!(says(year, 464), last, "it would be written each day");
        assert!(says(year, 466).is_some_and(|w| w.contains("expired on 1971-04-11T")));
        // The last third of 30 days.
        let month = [100, 130];
        assert_eq!(says(month, 119), None);
        assert!(says(month, 120).is_some());
    }
}
