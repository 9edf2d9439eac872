//! Requests of one run that cannot both be right: for one name, or with one key. The station cannot know which of them
//! is, so it answers none. A thing's key and that for its networks may both be right, if they name the same TPM.

use std::collections::BTreeMap;
use std::path::PathBuf;

use firstboot_formats::thing_name::fat_name;

use crate::request::Request;

/// A request that has passed every check of its own, so that its record names its key.
pub(crate) struct Candidate<T> {
    /// The record's path.
    pub(crate) path: PathBuf,
    /// The request.
    pub(crate) request: Request,
    /// What the checks have found out.
    pub(crate) checked: T,
}

/// For each of them, why it is not answered, if another one conflicts with it.
pub(crate) fn objections<T>(candidates: &[Candidate<T>]) -> Vec<Option<String>> {
    let names = groups(candidates, |c| {
        let name = fat_name(&c.request.record.thing_name);
        (name, c.request.is_for_networks())
    });
    let keys = groups(candidates, |c| c.request.record.key_sha256.clone());
    let tpms = elsewhere(candidates);
    let objection = |(one, (same_name, same_key)): (
        &Candidate<T>,
        (Option<usize>, Option<usize>),
    )| {
        let name = |c: &Candidate<T>| c.request.record.thing_name.clone();
        let other = same_name.or(same_key).and_then(|at| candidates.get(at))?;
        let (thing, path) = (name(other), other.path.display());
        Some(match same_name {
            Some(_) if thing == name(one) => format!(
                "another request in this run is for \"{thing}\", too: {path}. Keep only the right one"
            ),
            Some(_) => format!(
                "another request in this run is for \"{thing}\", whose files have the same names on a card: {path}"
            ),
            None => format!(
                "another request in this run has the same key, for \"{thing}\": {path}. If the device was renamed, \
                 remove the request under its old name"
            ),
        })
    };
    let names = names.into_iter().zip(tpms);
    let others = names.map(|(name, tpm)| name.or(tpm)).zip(keys);
    candidates.iter().zip(others).map(objection).collect()
}

/// For each candidate, another one of the same name, for networks where it is not, that names another TPM.
fn elsewhere<T>(candidates: &[Candidate<T>]) -> Vec<Option<usize>> {
    let mut named: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (candidate, at) in candidates.iter().zip(0..) {
        let name = fat_name(&candidate.request.record.thing_name);
        named.entry(name).or_default().push(at);
    }
    let other = |one: &Candidate<T>| {
        let name = fat_name(&one.request.record.thing_name);
        let ek = |c: &Candidate<T>| c.request.evidence.ek_certificate.clone();
        let mut same = named.get(&name)?.iter().copied();
        same.find(|at| {
            candidates
                .get(*at)
                .is_some_and(|other| ek(other) != ek(one))
        })
    };
    candidates.iter().map(other).collect()
}

/// For each candidate, another one that has something in common with it.
fn groups<T, K: Ord>(
    candidates: &[Candidate<T>],
    of: impl Fn(&Candidate<T>) -> K,
) -> Vec<Option<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (candidate, at) in candidates.iter().zip(0..) {
        groups.entry(of(candidate)).or_default().push(at);
    }
    let mut others = vec![None; candidates.len()];
    for group in groups.values() {
        // Each has the next one, the last has the first.
        for (at, other) in group.iter().zip(group.iter().cycle().skip(1)) {
            if let Some(entry) = others.get_mut(*at).filter(|_| at != other) {
                *entry = Some(*other);
            }
        }
    }
    others
}
