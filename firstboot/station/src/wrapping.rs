//! A certificate that somebody else issued for a request, AWS IoT for example: checked as the device will check it, and
//! wrapped.

use std::io::Read;
use std::path::{Path, PathBuf};

use firstboot_formats::card::MAX_CERTIFICATE;
use firstboot_formats::clock::Clock;
use firstboot_formats::text;
use firstboot_formats::x509::{Chain, Verdict};
use zeroize::Zeroizing;

use crate::check::Attested;
use crate::error::{Context, Exit, Result};
use crate::request::{CERTIFICATE, Request};

/// Where the certificates are.
pub(crate) enum Certificates {
    /// From standard input, and nowhere else.
    Given(Zeroizing<Vec<u8>>),
    /// A file.
    File(PathBuf),
    /// A directory with `<thing>.pem`.
    Directory(PathBuf),
}

impl Certificates {
    /// From the argument: `-` for standard input, a file, or a directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path != Path::new("-") {
            return Ok(match path.is_dir() {
                true => Self::Directory(path.to_owned()),
                false => Self::File(path.to_owned()),
            });
        }
        let mut pem = Zeroizing::new(Vec::new());
        std::io::stdin()
            .take(MAX_CERTIFICATE as u64 + 1)
            .read_to_end(&mut pem)
            .context(Exit::NoInput, || "cannot read standard input".into())?;
        Ok(Self::Given(pem))
    }

    /// Whether it can serve more than one request.
    pub(crate) fn are_many(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// The certificate for a request: the chain in the device's form, and the serial number. The error says why there
    /// is none.
    pub(crate) fn of(
        &self,
        request: &Request,
        attested: &Attested,
    ) -> std::result::Result<(Zeroizing<Vec<u8>>, String), String> {
        let from = |path: &Path| match text::read(path, MAX_CERTIFICATE) {
            Ok(Some(pem)) => Ok(Zeroizing::new(pem)),
            Ok(None) => Err(format!("there is no certificate {}", path.display())),
            Err(e) => Err(e.to_string()),
        };
        let pem = match self {
            Self::Given(pem) => pem.clone(),
            Self::File(path) => from(path)?,
            Self::Directory(path) => from(&path.join(request.file_name(CERTIFICATE)))?,
        };
        let refused = |why: String| format!("its certificate is refused: {why}");
        let chain = Chain::parse(&pem, &attested.key, &[]).map_err(refused)?;
        match chain.check(&attested.key, &request.record.thing_name, Clock::read()) {
            Verdict::Good | Verdict::GoodBut(_) => {}
            Verdict::Bad(why) => return Err(refused(why)),
        }
        Ok((
            Zeroizing::new(chain.pem().into_bytes()),
            chain.summary().serial,
        ))
    }
}
