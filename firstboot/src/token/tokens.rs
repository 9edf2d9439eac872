//! Lists a store's tokens without the library, which would write to the store.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::DATABASE;
use crate::error::{ErrorKind, Result, ResultExt};

/// The content of a store, whoever made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The tokens' labels, in the order in which they were made.
    pub labels: Vec<String>,
    /// Primary objects that were prepared for tokens (tpm2_ptool init).
    pub primaries: u32,
}

impl Tokens {
    /// Reads the store in `directory`; nothing if there is no store, or no database. Only reads, and does not roll back
    /// what a power cut left half-written: that is left to the store's owner, and an error here.
    ///
    /// Layout: tpm2-pkcs11 1.9.0 to 1.10.1, src/lib/db.c (schema 8 and 9).
    pub fn read(directory: &Path) -> Result<Self> {
        let database = directory.join(DATABASE);
        if !database.is_file() {
            return Ok(Self::default());
        }
        match query(&database) {
            Err(rusqlite::Error::SqliteFailure(e, _)) if e.code == ErrorCode::NotADatabase => {
                Ok(Self::default())
            }
            found => found.context(ErrorKind::Other, || {
                format!("cannot list the tokens in {}", database.display())
            }),
        }
    }
}

fn query(database: &Path) -> rusqlite::Result<Tokens> {
    let store = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let has = |table: &str| {
        store.query_row(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1",
            [table],
            |row| row.get::<_, u32>(0),
        )
    };
    let mut tokens = Tokens::default();
    if has("tokens")? > 0 {
        tokens.labels = store
            .prepare("SELECT label FROM tokens ORDER BY id")?
            .query_map([], |row| {
                row.get::<_, Option<String>>(0)
                    .map(Option::unwrap_or_default)
            })?
            .collect::<rusqlite::Result<_>>()?;
    }
    if has("pobjects")? > 0 {
        tokens.primaries =
            store.query_row("SELECT count(*) FROM pobjects", [], |row| row.get(0))?;
    }
    Ok(tokens)
}
