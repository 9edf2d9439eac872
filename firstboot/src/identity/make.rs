//! Making an identity: the token in memory, tested with a signature; then everything in the staging directory, and one
//! rename.
//!
//! tpm2-pkcs11's SQLite syncs 48 times while it makes a token and a key: on a card that takes longer than everything
//! else. Nothing depends on these syncs before the rename. So the store is made in /run, and copied when it is
//! complete.

use firstboot_formats::attestation::Evidence;
use firstboot_formats::countersignature::Countersignature;
use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use firstboot_formats::public_key::{KeyFamily, KeyType, PublicKey, Scheme};
use firstboot_formats::record::Record;
use firstboot_formats::x509::{Chain, Request};

use super::unlock::unlock;
use super::{DATABASE, GENERATION, Identity, PIN, RECORD, REQUEST, SRK_NAME, token_slot};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::secret::Pin;
use crate::token::{self, Library, Login, Store, StoredKey};
use crate::tpm::Tpm;

/// The contents of a request.
pub struct Plan<'a> {
    /// The kind of key.
    pub key: KeyType,
    /// Subject name of the request.
    pub subject: Vec<(&'static str, &'a str)>,
    /// The record, except for what is known only afterwards (`key_sha256`, `csr_sha256`, `evidence`).
    pub record: Record,
    /// DER of the EK certificate, or why there is none.
    pub ek: std::result::Result<Vec<u8>, String>,
    /// If there is one: the identity in service with its certificate, which vouches for another key.
    pub in_service: Option<(&'a Identity, Chain)>,
}

/// The token's PINs.
pub struct Pins {
    /// Its user's.
    pub user: Pin,
    /// Its security officer's: forgotten as soon as the token is made.
    pub officer: Pin,
}

/// What an identity consists of, except for the storage root key's Name.
struct Made {
    database: Vec<u8>,
    request: String,
    record: String,
}

/// Maximum size of a store, bytes: with a new key in it, a token's has 28 KiB.
const MAX_STORE: usize = 1024 * 1024;

impl Identity {
    /// Makes the identity below the storage root key of this Name: token, key, request, proof; then the rename.
    pub fn make(
        &self,
        plan: &Plan<'_>,
        tpm: &mut Tpm,
        srk_name: &str,
        pins: Pins,
        generation: u64,
    ) -> Result<()> {
        if let Some(parent) = self.staging.parent() {
            files::make_directory(parent, 0o755)?;
        }
        files::make_directory(&self.staging, 0o700)?;
        let (store, pin) = self.make_in_memory(plan, tpm, srk_name, pins)?;
        let generation = (generation > 0).then(|| generation.to_string());
        let generation = generation.iter().map(|text| (GENERATION, text.as_bytes()));
        for (name, content) in [
            (DATABASE, store.database.as_slice()),
            (PIN, pin.expose().as_bytes()),
            (SRK_NAME, srk_name.as_bytes()),
            (REQUEST, store.request.as_bytes()),
            (RECORD, store.record.as_bytes()),
        ]
        .into_iter()
        .chain(generation)
        {
            files::write_without_dir_sync(
                &self.staging.join(name),
                content,
                Some(self.access(0o440)),
            )?;
        }
        // This also syncs the names in it.
        files::set_access(&self.staging, self.access(0o750))?;
        Ok(files::rename(&self.staging, &self.directory)?)
    }

    /// Token, key, request, proof.
    fn make_in_memory(
        &self,
        plan: &Plan<'_>,
        tpm: &mut Tpm,
        srk_name: &str,
        Pins { user, officer }: Pins,
    ) -> Result<(Made, Pin)> {
        // A killed process may have left it; a power cut leaves nothing.
        files::remove_tree(&self.token_build)?;
        files::make_directory(&self.token_build, 0o700)?;
        let staged = Store {
            directory: self.token_build.clone(),
            ..self.store.clone()
        };
        let mut id = [0; 16];
        getrandom::fill(&mut id).context(ErrorKind::Other, || {
            "cannot get random bytes from the kernel".into()
        })?;

        let library = Library::open(&staged)?;
        let slot = library.make_token(&officer, &user)?;
        drop(officer);
        let login = library.login(slot, &user)?;
        let key =
            crate::progress::with_progress(&making(plan.key), || login.make_key(plan.key, &id))?;
        let (request, mut record) = self.request(plan, &key, &login)?;
        drop(login);
        drop(library);
        record.countersignature = plan.countersign(tpm, &request)?;
        if plan.key == KeyType::Rsa2048 {
            offer_pss(tpm, srk_name, &staged, &key, &user)?;
        }
        let database = self.token_build.join(DATABASE);
        let database = files::read(&database, MAX_STORE)?
            .ok_or_else(|| Error::other(format!("{} is missing", database.display())))?;
        files::remove_tree(&self.token_build)?;
        let made = Made {
            database,
            request: request.pem()?,
            record: json(&record)?,
        };
        Ok((made, user))
    }

    /// Another request for the same key, and its record, because the thing's name or the subject changed. Keeps nothing
    /// yet.
    pub fn sign_request(&self, plan: &Plan<'_>, tpm: &mut Tpm) -> Result<[Vec<u8>; 2]> {
        let library = Library::open(&self.store)?;
        let login = library.login(token_slot(&library)?, &self.pin()?)?;
        let key = login.public_key()?;
        let (request, mut record) = self.request(plan, &key, &login)?;
        drop(login);
        drop(library);
        record.countersignature = plan.countersign(tpm, &request)?;
        Ok([request.pem()?.into_bytes(), json(&record)?.into_bytes()])
    }

    /// Keeps a request and its record, replacing the existing ones.
    pub fn keep_request(&self, [request, record]: &[Vec<u8>; 2]) -> Result<()> {
        self.write(REQUEST, request)?;
        self.write(RECORD, record)
    }

    fn request(
        &self,
        plan: &Plan<'_>,
        key: &PublicKey,
        login: &Login,
    ) -> Result<(Request, Record)> {
        let name = firstboot_formats::x509::name(&plan.subject).map_err(Error::settings)?;
        let request = Request::make(name, key, |message| login.sign(Scheme::X509, message))?;
        let pem = request.pem()?;
        let record = Record {
            key: plan.key,
            key_sha256: key.fingerprint(),
            csr_sha256: to_hex(&sha256(pem.as_bytes())),
            evidence: Some(Evidence {
                key_public: login.tpm_public()?,
                ek_certificate: plan.ek.clone().ok(),
                unattested: plan.ek.clone().err(),
            }),
            ..plan.record.clone()
        };
        Ok((request, record))
    }
}

impl Plan<'_> {
    /// The signature of the key in service, if there is one that vouches.
    fn countersign(&self, tpm: &mut Tpm, request: &Request) -> Result<Option<Countersignature>> {
        let Some((identity, certificate)) = &self.in_service else {
            return Ok(None);
        };
        identity.countersign(tpm, request, certificate).map(Some)
    }
}

fn json(record: &Record) -> Result<String> {
    let text = serde_json::to_string_pretty(record).context(ErrorKind::Other, || {
        "cannot encode the request's record".into()
    })?;
    Ok(text + "\n")
}

/// Offers RSA-PSS if, and only if, the TPM's signatures have the salt that TLS 1.3 requires. Asks the TPM without the
/// library, which would have to be opened again: 9 commands instead of 33.
fn offer_pss(
    tpm: &mut Tpm,
    srk_name: &str,
    staged: &Store,
    key: &PublicKey,
    pin: &Pin,
) -> Result<()> {
    const MESSAGE: &[u8] = b"firstboot tests the salt length of RSA-PSS";
    let stored = StoredKey::read(&staged.directory)?;
    let (channel, auth) = unlock(tpm, srk_name, &stored, pin)?;
    let stored = (&stored.key).into();
    let signature = channel.sign(stored, &auth, KeyFamily::Rsa, Scheme::Pss, MESSAGE);
    if signature.is_ok_and(|s| key.verifies(Scheme::Pss, MESSAGE, &s)) {
        return token::record_pss(&staged.directory);
    }
    log::warn!(
        "this TPM's RSA-PSS signatures do not have the salt length that TLS 1.3 requires: with this RSA key, only TLS \
         1.2 works. \"key\": \"ecc-p256\" has no such limit"
    );
    Ok(())
}

fn making(key: KeyType) -> String {
    match key {
        KeyType::EccP256 => "generating the ECC P-256 key in the TPM".into(),
        KeyType::Rsa2048 => {
            "generating the RSA-2048 key in the TPM (10 s on average on an SLB 9670, sometimes 50 s)"
                .into()
        }
    }
}
