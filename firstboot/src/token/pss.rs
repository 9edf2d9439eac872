//! Telling tpm2-pkcs11 that the TPM's RSA-PSS signatures are usable.
//!
//! A TPM may choose the salt's length; TLS 1.3 requires it to be as long as the digest (RFC 8446 §4.2.3). tpm2-pkcs11
//! offers PSS only if the token's configuration says `pss-sigs-good`, which it never writes itself:
//! `db_update_token_config` never steps its statement, and only tpm2_ptool writes it (docs/findings/tpm2-pkcs11.md,
//! "RSA-PSS"; 1.9.0 to 1.10.1). So firstboot writes it into the staged store, once a signature has proved it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::TOKEN_LABEL;
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// A line of the token's configuration: tagged YAML, as the library's own emitter writes it.
const LINE: &str = "? !!str \"pss-sigs-good\" : !!bool \"true\",";

/// Records in the store of `directory` that PSS signatures are good. The library must not be open on the store.
pub fn record(directory: &Path) -> Result<()> {
    let recording = || "cannot record in the token's store that RSA-PSS works".to_owned();
    let database = Connection::open_with_flags(
        directory.join(super::DATABASE),
        OpenFlags::SQLITE_OPEN_READ_WRITE,
    )
    .context(ErrorKind::Other, recording)?;
    let config: String = database
        .query_row(
            "SELECT config FROM tokens WHERE label = ?1",
            [TOKEN_LABEL],
            |row| row.get(0),
        )
        .context(ErrorKind::Other, recording)?;
    let changed = with_line(&config)
        .ok_or_else(|| Error::other(format!("{}: unknown configuration format", recording())))?;
    database
        .execute(
            "UPDATE tokens SET config = ?1 WHERE label = ?2",
            [changed.as_str(), TOKEN_LABEL],
        )
        .context(ErrorKind::Other, recording)?;
    Ok(())
}

/// The configuration, a YAML flow mapping, with [`LINE`].
fn with_line(config: &str) -> Option<String> {
    if config.contains(LINE) {
        return Some(config.to_owned());
    }
    let (before, after) = config.rsplit_once("\n}")?;
    Some(format!("{before}\n    {LINE}\n}}{after}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_line_comes_once() {
        let config =
            "%YAML 1.1\n---\n!!map {\n    ? !!str \"token-init\"\n    : !!bool \"true\",\n}\n";
        let with = with_line(config).unwrap();
        assert_eq!(with.replace(&format!("    {LINE}\n"), ""), config);
        assert_eq!(with_line(&with).unwrap(), with);
    }

    #[test]
    fn an_unknown_form_is_left_alone() {
        assert!(with_line("token-init: true\n").is_none());
    }
}
