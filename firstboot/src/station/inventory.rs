//! The inventory: a line for each certificate, without the certificate. CSV, or JSON lines in the shape of the
//! parameters that AWS IoT's bulk registration takes (developer guide, "Bulk registration": one JSON object a line).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Doing, Error, Exit, Result};

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

/// What is written of one.
pub(super) struct Line {
    /// The thing's name.
    pub(super) thing_name: String,
    /// The board's serial number.
    pub(super) serial: String,
    /// Maker, model and firmware, as the device says.
    pub(super) tpm: String,
    /// Maker, model and firmware at the time of its making, as the TPM's maker says.
    pub(super) ek_tpm: String,
    /// SHA-256 of the EK certificate.
    pub(super) ek_sha256: String,
    /// SHA-256 of the key (SubjectPublicKeyInfo).
    pub(super) key_sha256: String,
    /// The certificate's serial number, hexadecimal.
    pub(super) certificate_serial: String,
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

/// A file to which lines are added.
pub(super) struct Inventory {
    path: PathBuf,
    file: File,
    csv: bool,
}

impl Inventory {
    /// Opens the file, a new one or one that goes on; its name's end says which form it has.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let csv = match path.extension().and_then(|end| end.to_str()) {
            Some("csv") => true,
            Some("jsonl") => false,
            _ => {
                return Err(Error::settings(format!(
                    "--inventory {}: its name has to end in .csv or .jsonl",
                    path.display()
                )));
            }
        };
        let writing = || format!("cannot write {}", path.display());
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .doing(Exit::CannotWrite, writing)?;
        let is_new = file.metadata().doing(Exit::CannotWrite, writing)?.len() == 0;
        let mut inventory = Self {
            path: path.to_owned(),
            file,
            csv,
        };
        if csv && is_new {
            inventory.write(COLUMNS.join(","))?;
        }
        Ok(inventory)
    }

    /// Adds a line, durably.
    pub(super) fn add(&mut self, line: &Line) -> Result<()> {
        let values = line.values();
        if self.csv {
            return self.write(values.join(","));
        }
        let names = COLUMNS.iter().map(|name| (*name).to_owned());
        let object: Map<String, Value> = names.zip(values.map(Value::String)).collect();
        self.write(Value::Object(object).to_string())
    }

    fn write(&mut self, line: String) -> Result<()> {
        // In one call: lines of two stations do not mix.
        self.file
            .write_all((line + "\n").as_bytes())
            .and_then(|()| self.file.sync_data())
            .doing(Exit::CannotWrite, || {
                format!("cannot write {}", self.path.display())
            })
    }
}

/// Words as one value that needs no quotes in CSV and is allowed in an AWS IoT thing's attribute (API reference,
/// AttributePayload: `[a-zA-Z0-9_.,@/:#=\[\]-]*`, at most 800), and that no spreadsheet takes for a formula.
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
}
