//! What is next for the networks' own key.

#[cfg(test)]
pub(in crate::provision) mod table;

use crate::enrollment::Offer;
use crate::provision::context::Memory;
use crate::provision::own_key::{OwnKey, OwnKeyStep};

/// The step that is due, if one is. What has failed once is not tried again by this process.
pub(super) fn step(own: &OwnKey, memory: &Memory) -> Option<OwnKeyStep> {
    if memory.own_key_stays.is_some() {
        return None;
    }
    let made = match own {
        OwnKey::NotWanted | OwnKey::Unknown(_) | OwnKey::Foreign(_) => return None,
        OwnKey::StoreUpgradeCut => return Some(OwnKeyStep::RepairStore),
        OwnKey::Useless(why) => return Some(OwnKeyStep::Remove(why.clone())),
        OwnKey::Absent => return Some(OwnKeyStep::Make),
        OwnKey::Made(made) => made,
    };
    if !made.request_is_current {
        return Some(OwnKeyStep::RenewRequest);
    }
    // If this process has failed to publish one, it does not try again.
    if made.asks() && !made.request_is_published && memory.request_stays.is_none() {
        return Some(OwnKeyStep::PublishRequest);
    }
    match &*memory.judge(&made.offer) {
        Offer::Certificate(chain, remark) => {
            Some(OwnKeyStep::Accept(chain.clone(), remark.clone()))
        }
        Offer::Reply(wrapped) => Some(OwnKeyStep::OpenReply(wrapped.clone())),
        _ => None,
    }
}
