//! Whatever is on the boot partition, in another program's file or on a damaged disk, firstboot accepts it or refuses
//! it with a reason, and never crashes. Its functions run in this process, so that a panic or an overflow is seen.
//!
//! `make test` draws the same inputs each time. PROPTEST_CASES sets their number, and then they differ each time.

mod certificates;
mod configuration;
mod documents;
mod est;
mod fleet;
mod identity;
mod names;
mod replies;
mod requests;
mod settings;
mod unreadable;

use std::fs;
use std::path::{Path, PathBuf};

use firstboot::layout::{BOOT, IMAGE_SETTINGS, Layout};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use serde_json::Value;
use tempfile::TempDir;

/// The result of a property, and of a test of several.
type Checked<T = ()> = Result<T, TestCaseError>;

/// A property's number of inputs: this one, or that of PROPTEST_CASES.
fn cases(usual: u32) -> Config {
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => Config {
            cases: usual,
            rng_seed: RngSeed::Fixed(u64::from(usual)),
            ..config
        },
    }
}

/// A device's file tree with only what a test puts there.
struct Tree {
    root: TempDir,
    layout: Layout,
}

impl Tree {
    fn new() -> Checked<Self> {
        // In memory, if possible: firstboot syncs each file that it writes.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() {
            TempDir::new_in(memory)?
        } else {
            TempDir::new()?
        };
        let layout = Layout::new(root.path());
        let tree = Self { root, layout };
        tree.write(
            "/sys/firmware/devicetree/base/serial-number",
            b"10000000a1b2c3d4\0",
        )?;
        tree.write("/etc/machine-id", b"0123456789abcdef0123456789abcdef\n")?;
        tree.write("/etc/group", b"root:x:0:\nggcore:x:0:\n")?;
        tree.write(IMAGE_SETTINGS, IMAGE.as_bytes())?;
        Ok(tree)
    }

    fn write(&self, path: &str, content: &[u8]) -> Checked {
        let path = self.layout.at(path);
        fs::create_dir_all(path.parent().unwrap_or(self.root.path()))?;
        Ok(fs::write(path, content)?)
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.layout.at(path)).ok()
    }

    fn boot(&self) -> PathBuf {
        self.layout.at(BOOT)
    }
}

/// The image's settings, with libraries in other places, which the boot partition must not change.
const IMAGE: &str = r#"{
    "thing_name": "gateway-${serial}",
    "greengrass": { "aws_region": "eu-central-1" },
    "platform": { "pkcs11_module": "/opt/image/p11.so", "openssl_provider": "/opt/image/provider.so" }
}"#;

/// Text such as people and attackers write.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9:_.-]{0,20}",
        "\\PC{0,12}",
        any::<Vec<char>>().prop_map(|c| c.into_iter().take(12).collect()),
        Just("../../etc/shadow".to_owned()),
        Just("${serial}${machine_id}".to_owned()),
        Just("\u{1b}[31m\r\n\0".to_owned()),
    ]
}

/// Any JSON value, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any_text(), inner), 0..4).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// Damage to a file: bytes changed, removed or inserted, or the end cut off.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    vec((any::<prop::sample::Index>(), 0..5u8, any::<u8>()), 1..6)
}

fn damaged(content: &[u8], damage: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut content = content.to_vec();
    for (place, kind, byte) in damage {
        let at = place.index(content.len().max(1));
        match kind {
            _ if content.is_empty() => content.push(*byte),
            0 => content[at] = *byte,
            1 => content[at] ^= 1 << (byte % 8),
            2 => drop(content.remove(at)),
            3 => content.insert(at, *byte),
            _ => content.truncate(at),
        }
    }
    content
}

/// A message that can be printed: it is not empty, and has no control characters.
fn assert_printable(words: &str) -> Checked {
    prop_assert!(!words.is_empty());
    let odd = words.chars().find(|c| c.is_control());
    prop_assert!(odd.is_none(), "{:?} in {:?}", odd, words);
    Ok(())
}

/// Errors of the test itself, inside a property.
trait Else<T> {
    fn or_fail(self) -> Checked<T>;
}

impl<T, E: std::fmt::Display> Else<T> for Result<T, E> {
    fn or_fail(self) -> Checked<T> {
        self.map_err(|e| TestCaseError::fail(e.to_string()))
    }
}
