//! The inventory: a line for each certificate, without the certificate, which also records who has which name. CSV, or
//! JSON lines with the parameters of AWS IoT's bulk registration (developer guide, "Bulk registration": one JSON object
//! per line).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use firstboot_formats::output;
use firstboot_formats::thing_name::fat_name;
use serde_json::{Map, Value};

use crate::error::{Context, Error, Exit, Result};
use crate::lock::lock;

/// The names of the columns, and of a template's parameters.
const COLUMNS: [&str; 7] = [
    "ThingName",
    "SerialNumber",
    "Tpm",
    "EkTpm",
    "EkSha256",
    "KeySha256",
    "CertificateSerial",
];

/// What is recorded about one certificate.
pub(crate) struct Line {
    /// The thing's name.
    pub(crate) thing_name: String,
    /// The board's serial number.
    pub(crate) serial: String,
    /// Manufacturer, model and firmware, as the device reports them.
    pub(crate) tpm: String,
    /// Manufacturer, model and firmware at manufacture, as the EK certificate has them.
    pub(crate) ek_tpm: String,
    /// SHA-256 of the EK certificate; empty if the certificate was not wrapped for a TPM.
    pub(crate) ek_sha256: String,
    /// SHA-256 of the key (SubjectPublicKeyInfo).
    pub(crate) key_sha256: String,
    /// The certificate's serial number, hexadecimal.
    pub(crate) certificate_serial: String,
}

impl Line {
    fn values(&self) -> [String; COLUMNS.len()] {
        [
            &self.thing_name,
            &self.serial,
            &self.tpm,
            &self.ek_tpm,
            &self.ek_sha256,
            &self.key_sha256,
            &self.certificate_serial,
        ]
        .map(|value| plain(value))
    }
}

/// A file to which lines are added, locked for as long as this lives.
pub(crate) struct Inventory {
    path: PathBuf,
    file: File,
    csv: bool,
    /// Who has each name.
    holders: BTreeMap<String, Holder>,
}

/// Who has a name, by its latest line.
pub(crate) struct Holder {
    /// SHA-256 of the EK certificate; empty if the certificate was not wrapped for a TPM.
    pub(crate) ek_sha256: String,
    /// SHA-256 of the key (SubjectPublicKeyInfo).
    pub(crate) key_sha256: String,
}

impl Inventory {
    /// Opens the file, a new or an existing one; the end of its name says which form it has.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let csv = match path.extension().and_then(|end| end.to_str()) {
            Some("csv") => true,
            Some("jsonl") => false,
            _ => {
                return Err(Error::settings(format!(
                    "--inventory {}: its name must end in .csv or .jsonl",
                    path.display()
                )));
            }
        };
        let writing = || format!("cannot write {}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .context(Exit::CannotWrite, writing)?;
        lock(&file, path);
        if !file
            .metadata()
            .context(Exit::CannotWrite, writing)?
            .is_file()
        {
            return Err(Error::new(
                Exit::CannotWrite,
                format!("{}: it is not a regular file", writing()),
            ));
        }
        let mut text = String::new();
        (&file)
            .read_to_string(&mut text)
            .context(Exit::Settings, || {
                format!("--inventory {}: it cannot be read as UTF-8", path.display())
            })?;
        let mut inventory = Self {
            path: path.to_owned(),
            file,
            csv,
            holders: BTreeMap::new(),
        };
        // The length of the whole lines.
        let (whole, rest) = text.split_at(text.rfind('\n').map_or(0, |end| end + 1));
        let rest_stays = !rest.is_empty() && inventory.end(whole, rest)?;
        for line in whole.lines().chain(rest_stays.then_some(rest)) {
            if let Some([name, ek_sha256, key_sha256]) = inventory.read(line) {
                let holder = Holder {
                    ek_sha256,
                    key_sha256,
                };
                inventory.holders.insert(fat_name(&name), holder);
            }
        }
        if csv && whole.is_empty() && !rest_stays {
            inventory.write(COLUMNS.join(","))?;
        }
        Ok(inventory)
    }

    /// Ends an unterminated last line, or removes it. Returns whether it stays. It is whole if an editor has left out
    /// its end. Otherwise the power went or the disk was full while it was written. The reply is written after it, so
    /// nothing was issued: the rest of the line is removed, and the next run adds it again.
    fn end(&mut self, whole: &str, rest: &str) -> Result<bool> {
        if self.is_whole(rest) {
            self.write(String::new())?;
            return Ok(true);
        }
        output::say(&format!(
            "{}: removed the last line, which was cut off: {rest}",
            self.path.display()
        ));
        self.file
            .set_len(whole.len() as u64)
            .and_then(|()| self.file.sync_data())
            .context(Exit::CannotWrite, || {
                format!("cannot write {}", self.path.display())
            })?;
        Ok(false)
    }

    fn is_whole(&self, line: &str) -> bool {
        match self.csv {
            true => self.read(line).is_some(),
            false => serde_json::from_str::<Map<String, Value>>(line).is_ok(),
        }
    }

    /// Name, EK and key of a whole line.
    fn read(&self, line: &str) -> Option<[String; 3]> {
        if self.csv {
            let values: Vec<&str> = line.trim_end().split(',').collect();
            return match values[..] {
                [name, _, _, _, ek, key, serial, ..] if !serial.is_empty() => {
                    Some([name, ek, key].map(str::to_owned))
                }
                _ => None,
            };
        }
        let object: Map<String, Value> = serde_json::from_str(line).ok()?;
        let value = |column| Some(object.get(column)?.as_str()?.to_owned());
        Some([value("ThingName")?, value("EkSha256")?, value("KeySha256")?])
    }

    /// Who has a name, if anybody has.
    pub(crate) fn holder(&self, thing_name: &str) -> Option<&Holder> {
        self.holders.get(&fat_name(&plain(thing_name)))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line, durably.
    pub(crate) fn add(&mut self, line: &Line) -> Result<()> {
        let values = line.values();
        if self.csv {
            return self.write(values.join(","));
        }
        let names = COLUMNS.iter().map(|name| (*name).to_owned());
        let object: Map<String, Value> = names.zip(values.map(Value::String)).collect();
        self.write(Value::Object(object).to_string())
    }

    fn write(&mut self, line: String) -> Result<()> {
        // In one call, so that lines of two stations do not mix.
        self.file
            .write_all((line + "\n").as_bytes())
            .and_then(|()| self.file.sync_data())
            .context(Exit::CannotWrite, || {
                format!("cannot write {}", self.path.display())
            })
    }
}

/// A text as a value that needs no quotes in CSV, is allowed in an AWS IoT thing's attribute (API reference,
/// AttributePayload: `[a-zA-Z0-9_.,@/:#=\[\]-]*`, at most 800), and is not taken for a formula by any spreadsheet.
fn plain(value: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || "_.:/-".contains(c);
    let text: String = value
        .chars()
        .map(|c| if kept(c) { c } else { '_' })
        .take(800)
        .collect();
    match text.starts_with('-') {
        true => format!("_{text}"),
        false => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            thing_name: "gw-1".into(),
            serial: "=cmd|' /C calc'!A0,\"\n".into(),
            tpm: "Infineon SLB 9670, firmware 7.85".into(),
            ek_tpm: "id:49465800 SLB 9670 id:00070055".into(),
            ek_sha256: "aa".into(),
            key_sha256: "bb".into(),
            certificate_serial: "0102".into(),
        }
    }

    #[test]
    fn lines_are_added_in_either_form() {
        let directory = std::env::temp_dir().join(format!("inventory-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let [csv, jsonl] = ["a.csv", "a.jsonl"].map(|name| directory.join(name));
        for path in [&csv, &csv, &jsonl, &jsonl] {
            Inventory::open(path).unwrap().add(&line()).unwrap();
        }
        let table = std::fs::read_to_string(csv).unwrap();
        let object = std::fs::read_to_string(jsonl).unwrap();
        let refused = Inventory::open(&directory.join("a.txt"));
        std::fs::remove_dir_all(directory).unwrap();
        let mut rows = table.lines();
        assert_eq!(rows.next().unwrap(), COLUMNS.join(","));
        assert_eq!(rows.clone().count(), 2);
        let row = "gw-1,_cmd___/C_calc__A0___,Infineon_SLB_9670__firmware_7.85,id:49465800_SLB_9670_id:00070055,aa,bb,0102";
        assert!(rows.all(|r| r == row), "{table}");
        let values: Vec<Value> = object
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(values.len(), 2);
        assert_eq!(values[0]["ThingName"], "gw-1");
        assert_eq!(values[0].as_object().unwrap().len(), COLUMNS.len());
        assert!(refused.is_err());
    }

    #[test]
    fn a_last_line_without_its_end_is_ended_or_removed() {
        let directory = std::env::temp_dir().join(format!("torn-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        for name in ["a.csv", "a.jsonl"] {
            let path = directory.join(name);
            Inventory::open(&path).unwrap().add(&line()).unwrap();
            let one = std::fs::read_to_string(&path).unwrap();
            Inventory::open(&path).unwrap().add(&line()).unwrap();
            let two = std::fs::read_to_string(&path).unwrap();
            // The last byte is the line feed alone, the one before it belongs to the serial number or ends the object.
            let ends = [one.len() - 1, one.len(), two.len() - 4, two.len() - 1];
            for length in (0..two.len()).step_by(61).chain(ends) {
                std::fs::write(&path, &two[..length]).unwrap();
                drop(Inventory::open(&path).unwrap());
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.is_empty() || text.ends_with('\n'), "{length}: {text}");
                let whole = text.trim_end() == two[..length].trim_end();
                assert!(
                    whole || one.starts_with(&text) || name == "a.csv" && text.lines().count() == 1,
                    "{length}: {text}"
                );
                Inventory::open(&path).unwrap().add(&line()).unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                let last = two.lines().last().unwrap();
                assert_eq!(text.lines().last().unwrap(), last, "{length}");
            }
            std::fs::write(&path, two.clone() + "\0\0\0").unwrap();
            Inventory::open(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), two);
            std::fs::write(&path, [0xFF, 0xFE, b'a', 0]).unwrap();
            assert!(Inventory::open(&path).is_err());
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
