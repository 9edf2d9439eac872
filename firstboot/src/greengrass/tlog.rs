//! The nucleus's transaction log, `config.tlog`: everything that the cloud has deployed, and the current configuration.
//!
//! The nucleus reads the log instead of `config.yaml` if the log is whole (`KernelLifecycle.initConfigAndTlog`), so a
//! setting changed in `config.yaml` alone has no effect. Removing the log is no solution: the deployed components are
//! nowhere else. So the new values are added to it, in its own form (`Tlogline`): one JSON object per line.
//!
//! A value replaces one with the same timestamp (`Topic.withNewerValue`). With the existing timestamp, the new value
//! wins now, whatever this device's clock says, and a later deployment wins over it as before.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use firstboot_formats::files::{self, Access};
use log::{info, warn};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ErrorKind, Result, ResultExt};

/// The nucleus starts a new log after 15,000 lines (`ConfigurationWriter`), usually of a few hundred bytes.
const MAX_LOG: usize = 64 * 1024 * 1024;

/// A line of the log.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    /// Milliseconds since 1970.
    #[serde(rename = "TS", default)]
    timestamp: i64,
    /// The path; the nucleus ignores its case.
    #[serde(rename = "TP")]
    path: Vec<String>,
    #[serde(rename = "W")]
    what: String,
    #[serde(rename = "V", default)]
    value: Value,
}

/// What the log finally says about one path.
#[derive(Debug, Default, PartialEq)]
struct Topic {
    timestamp: i64,
    value: Option<Value>,
}

/// Brings the log at `path` up to date with these values: adds a line for each that differs.
///
/// The log is written to a temporary file and renamed, because a line cut off by a power cut would invalidate all of
/// it. A damaged log is left alone: the nucleus then reads `config.yaml` on top of what it can still find.
pub fn amend(path: &Path, changes: &[(Vec<String>, Value)]) -> Result<()> {
    // If this one exists, the nucleus was interrupted while it wrote the other, and falls back to it.
    let old = path.with_extension("tlog.old");
    let path = match old.symlink_metadata() {
        Ok(_) => &old,
        Err(_) => path,
    };
    if changes.is_empty() {
        return Ok(());
    }
    let log = match files::read(path, MAX_LOG) {
        Ok(Some(log)) => log,
        Ok(None) => return Ok(()),
        Err(e) => {
            warn!("{e}. Changed settings reach the nucleus only through a deployment");
            return Ok(());
        }
    };
    let Some(lines) = parse(&log) else {
        return Ok(());
    };
    let mut amended = log;
    if !amended.ends_with(b"\n") {
        amended.push(b'\n');
    }
    let unchanged = amended.len();
    for (place, wanted) in changes {
        let topic = topic(&lines, place);
        if topic.value.as_ref() == Some(wanted) {
            continue;
        }
        let line = Line {
            timestamp: topic.timestamp.max(1),
            path: place.clone(),
            what: "changed".into(),
            value: wanted.clone(),
        };
        info!("updating {}: {}", path.display(), place.join("."));
        serde_json::to_writer(&mut amended, &line).context(ErrorKind::Other, || {
            format!("cannot encode a line of {}", path.display())
        })?;
        amended.push(b'\n');
    }
    if amended.len() == unchanged {
        return Ok(());
    }
    let metadata = path.symlink_metadata().context(ErrorKind::Other, || {
        format!("cannot access {}", path.display())
    })?;
    let access = Access {
        mode: metadata.mode() & 0o7777,
        group: Some(metadata.gid()),
    };
    Ok(files::write(path, &amended, Some(access))?)
}

/// All lines, if all can be read; otherwise the nucleus rejects the whole log (`validateTlog`).
fn parse(log: &[u8]) -> Option<Vec<Line>> {
    let log = log.strip_suffix(b"\n").unwrap_or(log);
    log.split(|&b| b == b'\n')
        .map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// Plays the log for one path (`ConfigurationReader.mergeTLogInto`).
fn topic(lines: &[Line], place: &[String]) -> Topic {
    let is_above = |above: &[String]| {
        let mut pairs = above.iter().zip(place);
        above.len() <= place.len() && pairs.all(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    let mut topic = Topic::default();
    for line in lines.iter().filter(|line| is_above(&line.path)) {
        let is_itself = line.path.len() == place.len();
        let is_newer = line.timestamp >= topic.timestamp;
        match line.what.as_str() {
            "changed" if is_itself && is_newer => {
                topic = Topic {
                    timestamp: line.timestamp,
                    value: Some(line.value.clone()),
                };
            }
            "timestampUpdated" if is_itself && is_newer => topic.timestamp = line.timestamp,
            "removed" if is_newer => {
                topic = Topic {
                    timestamp: line.timestamp,
                    value: None,
                };
            }
            _ => {}
        }
    }
    topic
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    const LOG: &str = concat!(
        "{\"TS\":5,\"TP\":[\"a\",\"b\"],\"W\":\"changed\",\"V\":\"old\"}\n",
        "{\"TS\":9,\"TP\":[\"A\",\"b\"],\"W\":\"changed\",\"V\":\"new\"}\n",
        "{\"TS\":7,\"TP\":[\"a\",\"b\"],\"W\":\"changed\",\"V\":\"late\"}\n",
        "{\"TS\":8,\"TP\":[\"a\",\"c\"],\"W\":\"changed\",\"V\":3}\n",
        "{\"TS\":9,\"TP\":[\"a\",\"c\"],\"W\":\"timestampUpdated\"}\n",
        "{\"TS\":2,\"TP\":[\"d\",\"e\"],\"W\":\"changed\",\"V\":true}\n",
        "{\"TS\":4,\"TP\":[\"d\"],\"W\":\"removed\"}\n",
    );

    #[test]
    fn the_log_is_played_as_the_nucleus_does() {
        let lines = parse(LOG.as_bytes()).unwrap();
        let found = |place: &str| {
            let topic = topic(&lines, &path(place));
            (topic.timestamp, topic.value)
        };
        assert_eq!(found("a/b"), (9, Some(json!("new"))));
        assert_eq!(found("a/c"), (9, Some(json!(3))));
        assert_eq!(found("d/e"), (4, None));
        assert_eq!(found("x"), (0, None));
    }

    #[test]
    fn only_what_differs_is_added_and_a_damaged_log_is_left_alone() {
        let directory = tempfile();
        let log = directory.join("config.tlog");
        let changes = [
            (path("a/b"), json!("newer")),
            (path("a/c"), json!(3)),
            (path("d/e"), json!("f")),
        ];
        std::fs::write(&log, LOG.trim_end()).unwrap();
        amend(&log, &changes).unwrap();
        let amended = std::fs::read_to_string(&log).unwrap();
        let added = "{\"TS\":9,\"TP\":[\"a\",\"b\"],\"W\":\"changed\",\"V\":\"newer\"}\n\
                     {\"TS\":4,\"TP\":[\"d\",\"e\"],\"W\":\"changed\",\"V\":\"f\"}\n";
        assert_eq!(amended, format!("{LOG}{added}"));
        amend(&log, &changes).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), amended);
        for damaged in ["", "\0\0\0\0", &LOG[..LOG.len() - 9]] {
            std::fs::write(&log, damaged).unwrap();
            amend(&log, &changes).unwrap();
            assert_eq!(std::fs::read_to_string(&log).unwrap(), damaged);
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn tempfile() -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("tlog-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }
}
