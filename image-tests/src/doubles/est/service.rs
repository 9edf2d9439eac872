//! What the server makes of a request: RFC 7030 §4, and what it must not do.

use std::collections::VecDeque;
use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openssl::base64;
use openssl::x509::{X509, X509Req};

use super::http::{Answer, Request};
use crate::doubles::pki::{Authority, Issuing, Validity, hex};
use crate::process::succeed;

/// The user of RFC 7030's examples, and the password.
pub const USERNAME: &str = "estuser";
pub const PASSWORD: &str = "estpwd-7f3a";

/// How the server is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The CA label of its paths.
    pub label: Option<&'static str>,
    /// It issues by a CA below the authority.
    pub intermediate: bool,
    /// It closes each connection after its answer.
    pub closes: bool,
    /// Its answers come in chunks.
    pub chunked: bool,
    /// It issues with an organization and an alternative name, whatever was requested.
    pub renames: bool,
}

/// Names and values.
pub type Headers = Vec<(&'static str, String)>;

/// What it does instead of what it should, with one request for a certificate.
#[derive(Debug, Clone)]
pub enum Misbehaviour {
    /// Nothing is issued, and this is the status, with these headers.
    Answers(u16, Headers, &'static str),
    /// Nothing is issued, and the connection ends.
    Closes,
    /// A certificate is issued, and the connection ends.
    ClosesAfterIssuing,
    /// A certificate is issued, and half of the answer comes.
    Half,
    /// Nothing is issued, and the last certificate is sent again.
    Again,
    /// A certificate is issued, and this is sent in its place, as this type.
    Says(&'static str, Vec<u8>),
    /// The certificate is for another key.
    AnotherKey,
    /// … for another name.
    AnotherName,
    /// … from another CA.
    AnotherCa(Arc<Authority>),
    /// … valid at another time.
    AnotherTime(Validity),
    /// Something happens while the client waits for this.
    Meanwhile(Happening, Box<Misbehaviour>),
}

/// Something that a test has happen.
#[derive(Clone)]
pub struct Happening(Arc<dyn Fn() + Send + Sync>);

impl Happening {
    pub fn new(happens: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(happens))
    }
}

impl fmt::Debug for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Happening").finish_non_exhaustive()
    }
}

/// How many of what there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub cacerts: usize,
    /// Requests for a certificate, whatever came of them.
    pub enrolls: usize,
    pub reenrolls: usize,
    /// Certificates issued.
    pub issued: usize,
}

/// What to do with the connection.
pub enum Reaction {
    Answer(Answer),
    /// The bytes of an answer that is cut off there.
    Part(Answer),
    Close,
}

/// The double's state at one moment, from which another one can continue.
#[derive(Debug, Clone)]
pub struct Memory(pub(super) Service);

impl Memory {
    /// That of a server of this authority that nobody has asked yet.
    pub fn new(authority: &Arc<Authority>, options: Options) -> Result<Self> {
        Service::new(Arc::clone(authority), options).map(Self)
    }
}

#[derive(Debug, Clone)]
pub struct Service {
    options: Options,
    authority: Arc<Authority>,
    issuing: Issuing,
    /// How far the server's clock is ahead of this host's.
    pub ahead: Duration,
    /// Of the certificates that it issues.
    pub validity: Validity,
    pub counts: Counts,
    pub orders: VecDeque<Misbehaviour>,
    /// Statuses and headers in place of the CA's certificates.
    pub refusals: VecDeque<(u16, Headers)>,
    /// What clients have sent that RFC 7030 does not have.
    pub complaints: Vec<String>,
    /// Each certificate issued, PEM, in order.
    pub issued: Vec<String>,
    /// The serial numbers of the certificates that were shown for a renewal.
    pub shown: Vec<String>,
    /// The bodies of requests for a certificate.
    pub requests: Vec<Vec<u8>>,
}

impl Service {
    pub fn new(authority: Arc<Authority>, options: Options) -> Result<Self> {
        let issuing = authority.issuing(options.intermediate)?;
        Ok(Self {
            options,
            authority,
            issuing,
            ahead: Duration::ZERO,
            validity: Validity::Recent,
            counts: Counts::default(),
            orders: VecDeque::new(),
            refusals: VecDeque::new(),
            complaints: Vec::new(),
            issued: Vec::new(),
            shown: Vec::new(),
            requests: Vec::new(),
        })
    }

    /// Handles a request of a client that has shown this certificate in TLS.
    pub fn handle(&mut self, request: &Request, host: &str, client: Option<&X509>) -> Reaction {
        match self.reaction(request, host, client) {
            Ok(reaction) => reaction,
            Err(why) => {
                self.complaints.push(format!("{why:#}"));
                let why = format!("{why:#}");
                Reaction::Answer(Answer::new(400).saying("text/plain", why))
            }
        }
    }

    fn reaction(
        &mut self,
        request: &Request,
        host: &str,
        client: Option<&X509>,
    ) -> Result<Reaction> {
        // RFC 9112 §3.2.
        ensure!(
            request.header("host") == host,
            "Host: {:?}",
            request.header("host")
        );
        let label = self
            .options
            .label
            .map_or(String::new(), |label| format!("/{label}"));
        let base = format!("/.well-known/est{label}/");
        let operation = request.path.strip_prefix(&base);
        let Some(operation) = operation.filter(|path| !path.contains('/')) else {
            return Ok(Reaction::Answer(Answer::new(404)));
        };
        match (request.method.as_str(), operation) {
            ("GET", "cacerts") => self.ca_certificates(request).map(Reaction::Answer),
            ("POST", "simpleenroll") => {
                self.counts.enrolls += 1;
                let csr = self.certificate_request(request)?;
                if client.is_none() && !has_password(request) {
                    let realm = "Basic realm=\"estrealm\"";
                    return Ok(Reaction::Answer(
                        Answer::new(401).with("WWW-Authenticate", realm),
                    ));
                }
                self.issue(&csr)
            }
            ("POST", "simplereenroll") => {
                self.counts.reenrolls += 1;
                let csr = self.certificate_request(request)?;
                let client = client.context("simplereenroll without a certificate")?;
                ensure!(!has_password(request), "simplereenroll with a password");
                // RFC 7030 §4.2.2.
                ensure!(
                    csr.subject_name().to_der()? == client.subject_name().to_der()?,
                    "simplereenroll under another name"
                );
                ensure!(
                    asks_for_names_of(&csr, client)?,
                    "simplereenroll under other alternative names"
                );
                let serial = client.serial_number().to_bn()?.to_vec();
                self.shown.push(hex(&serial));
                self.issue(&csr)
            }
            (method, path) => {
                self.complaints.push(format!("{method} {path}"));
                Ok(Reaction::Answer(Answer::new(405)))
            }
        }
    }

    fn ca_certificates(&mut self, request: &Request) -> Result<Answer> {
        ensure!(request.body.is_empty(), "cacerts with a body");
        let authorization = request.header("authorization");
        ensure!(authorization.is_empty(), "cacerts with a password");
        self.counts.cacerts += 1;
        if let Some((status, headers)) = self.refusals.pop_front() {
            let mut answer = Answer::new(status);
            answer.headers.extend(headers);
            return Ok(answer);
        }
        let root = X509::from_pem(self.authority.certificate_pem()?.as_bytes())?;
        let mut all = vec![root];
        if self.options.intermediate {
            all.push(self.issuing.certificate().clone());
        }
        self.certificates(&all, "application/pkcs7-mime")
    }

    /// The request in the body (RFC 7030 §4.2.1).
    fn certificate_request(&mut self, request: &Request) -> Result<X509Req> {
        self.requests.push(request.body.clone());
        ensure!(
            request.header("content-type") == "application/pkcs10",
            "Content-Type: {:?}",
            request.header("content-type")
        );
        ensure!(
            request.header("content-transfer-encoding") == "base64",
            "no Content-Transfer-Encoding: base64"
        );
        let text = str::from_utf8(&request.body).context("a body that is not base64")?;
        // RFC 2045 §6.8.
        let long = text.lines().find(|line| line.len() > 76);
        ensure!(
            long.is_none(),
            "a line of base64 with more than 76 characters"
        );
        let digits: String = text.split(['\r', '\n']).collect();
        let der = base64::decode_block(&digits).context("a body that is not base64")?;
        let csr = X509Req::from_der(&der).context("no PKCS#10")?;
        ensure!(csr.to_der()? == der, "something beside the PKCS#10");
        let key = csr.public_key()?;
        ensure!(csr.verify(&key)?, "a request with a wrong signature");
        Ok(csr)
    }

    fn issue(&mut self, csr: &X509Req) -> Result<Reaction> {
        let mut order = self.orders.pop_front();
        if let Some(Misbehaviour::Meanwhile(happening, then)) = order {
            (happening.0)();
            order = Some(*then);
        }
        if let Some(Misbehaviour::Answers(status, headers, words)) = order {
            let mut answer = Answer::new(status).saying("text/plain", words);
            answer.headers.extend(headers);
            return Ok(Reaction::Answer(answer));
        }
        if let Some(Misbehaviour::Closes) = order {
            return Ok(Reaction::Close);
        }
        let smime = "application/pkcs7-mime; smime-type=certs-only";
        if let (Some(Misbehaviour::Again), Some(last)) = (&order, self.issued.last()) {
            let last = X509::from_pem(last.as_bytes())?;
            return Ok(Reaction::Answer(self.certificates(&[last], smime)?));
        }
        let issued = match &order {
            Some(Misbehaviour::AnotherKey) => self.issuing.issue_for_another_key(csr)?,
            Some(Misbehaviour::AnotherName) => {
                self.issuing.issue_for_another_name(csr, "somebody-else")?
            }
            Some(Misbehaviour::AnotherCa(other)) => {
                other.issuing(false)?.issue(csr, Validity::Now)?
            }
            Some(Misbehaviour::AnotherTime(validity)) => self.issuing.issue(csr, *validity)?,
            _ if self.options.renames => self.issuing.issue_renamed(csr, self.validity)?,
            _ => self.issuing.issue(csr, self.validity)?,
        };
        self.counts.issued += 1;
        self.issued.push(String::from_utf8(issued.to_pem()?)?);
        let answer = self.certificates(&[issued], smime)?;
        Ok(match order {
            Some(Misbehaviour::ClosesAfterIssuing) => Reaction::Close,
            Some(Misbehaviour::Half) => Reaction::Part(answer),
            Some(Misbehaviour::Says(content_type, body)) => {
                Reaction::Answer(Answer::new(200).saying(content_type, body))
            }
            _ => Reaction::Answer(answer),
        })
    }

    /// An answer with certificates: a certs-only PKCS#7 as OpenSSL makes it, base64 in lines.
    fn certificates(&self, certificates: &[X509], content_type: &str) -> Result<Answer> {
        let mut file = tempfile::NamedTempFile::new()?;
        for certificate in certificates {
            std::io::Write::write_all(&mut file, &certificate.to_pem()?)?;
        }
        let mut openssl = Command::new("openssl");
        openssl
            .args(["crl2pkcs7", "-nocrl", "-certfile"])
            .arg(file.path());
        let pem = succeed(openssl.env("OPENSSL_CONF", "/dev/null"))?;
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let answer = Answer::new(200).saying(content_type, lines.join("\r\n"));
        Ok(Answer {
            chunked: self.options.chunked,
            closes: self.options.closes,
            ..answer.with("Content-Transfer-Encoding", "base64")
        })
    }
}

/// Whether the request asks for the certificate's alternative names, and for none if it has none.
fn asks_for_names_of(csr: &X509Req, certificate: &X509) -> Result<bool> {
    let Some(names) = certificate.subject_alt_names() else {
        return Ok(csr.extensions().map_or(0, |asked| asked.len()) == 0);
    };
    let der = csr.to_der()?;
    // dNSName, [2] (RFC 5280 §4.2.1.6): the only kind that this CA issues.
    Ok(names.iter().filter_map(|name| name.dnsname()).all(|name| {
        let encoded = [&[0x82, name.len() as u8], name.as_bytes()].concat();
        der.windows(encoded.len()).any(|window| window == encoded)
    }))
}

/// Whether the request has the password (RFC 7617).
fn has_password(request: &Request) -> bool {
    let basic = base64::encode_block(format!("{USERNAME}:{PASSWORD}").as_bytes());
    request.header("authorization") == format!("Basic {basic}")
}
