//! The double of an EST server, with the client of RFC 7030's own examples (appendix A): curl, and the openssl command.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use image_tests::clients::openssl;
use image_tests::doubles::clock::DAY;
use image_tests::doubles::est::{EstServer, Misbehaviour, Options, PASSWORD, USERNAME};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::Version;
use image_tests::process::{bounded, succeed};
use tempfile::TempDir;

struct Client {
    authority: Arc<Authority>,
    server: EstServer,
    files: TempDir,
}

/// An answer: its status line and headers, and its body.
type Answer = (String, String);

impl Client {
    fn new() -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let server = EstServer::start(&authority, Version::Tls13, Options::default())?;
        let files = tempfile::tempdir()?;
        let client = Self {
            authority,
            server,
            files,
        };
        let mut make = openssl::plain(&["req", "-new", "-newkey", "rsa:2048", "-nodes"]);
        make.args(["-config", "/dev/null", "-subj", "/CN=example", "-keyout"]);
        succeed(
            make.arg(client.file("key"))
                .arg("-out")
                .arg(client.file("csr")),
        )?;
        let csr = fs::read_to_string(client.file("csr"))?;
        let digits: Vec<&str> = csr.lines().filter(|line| !line.starts_with('-')).collect();
        fs::write(client.file("body"), digits.join("\n"))?;
        Ok(client)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.files.path().join(name)
    }

    fn curl(&self, operation: &str, arguments: &[&str]) -> Result<Answer> {
        let mut curl = bounded("curl");
        curl.args(["--silent", "--include", "--cacert"])
            .arg(self.authority.certificate_path())
            .args(arguments)
            .arg(format!(
                "https://localhost:{}/.well-known/est/{operation}",
                self.server.port()
            ));
        let said = succeed(&mut curl)?;
        let (head, body) = said.split_once("\r\n\r\n").context("no HTTP")?;
        Ok((head.to_owned(), body.to_owned()))
    }

    /// As in appendices A.2 and A.3.
    fn post(&self, operation: &str, credentials: &[&str]) -> Result<Answer> {
        let body = format!("@{}", self.file("body").display());
        let usual = [
            "--header",
            "Content-Type: application/pkcs10",
            "--data-binary",
            &body,
        ];
        let encoding = ["--header", "Content-Transfer-Encoding: base64"];
        self.curl(operation, &[&usual[..], &encoding, credentials].concat())
    }

    /// The certificates in a body, as OpenSSL reads them.
    fn certificates(&self, body: &str) -> Result<String> {
        fs::write(
            self.file("answer"),
            format!(
                "-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n",
                body.trim()
            ),
        )?;
        let mut read = openssl::plain(&["pkcs7", "-print_certs", "-in"]);
        let said = succeed(read.arg(self.file("answer")))?;
        Ok(said)
    }
}

fn user() -> String {
    format!("{USERNAME}:{PASSWORD}")
}

#[track_caller]
fn assert_has(head: &str, wanted: &[&str]) {
    for line in wanted {
        assert!(
            head.lines().any(|found| found.starts_with(line)),
            "no {line:?} in {head}"
        );
    }
}

/// Appendix A.1.
#[test]
fn the_cas_certificates() -> Result<()> {
    let client = Client::new()?;
    let (head, body) = client.curl("cacerts", &[])?;
    let wanted = [
        "HTTP/1.1 200",
        "Content-Type: application/pkcs7-mime",
        "Content-Transfer-Encoding: base64",
    ];
    assert_has(&head, &wanted);
    let found = client.certificates(&body)?;
    assert!(
        found.contains(client.authority.certificate_pem()?.trim()),
        "{found}"
    );
    Ok(())
}

/// Appendix A.2: refused without a password, and then issued.
#[test]
fn a_first_certificate() -> Result<()> {
    let client = Client::new()?;
    let (head, _) = client.post("simpleenroll", &[])?;
    assert_has(
        &head,
        &["HTTP/1.1 401", "WWW-Authenticate: Basic realm=\"estrealm\""],
    );
    let (head, _) = client.post("simpleenroll", &["--user", "estuser:wrong"])?;
    assert_has(&head, &["HTTP/1.1 401"]);
    let (head, body) = client.post("simpleenroll", &["--user", &user()])?;
    let smime = "Content-Type: application/pkcs7-mime; smime-type=certs-only";
    assert_has(&head, &["HTTP/1.1 200", smime]);
    let found = client.certificates(&body)?;
    assert!(found.contains(client.server.issued()[0].trim()), "{found}");
    assert_eq!(client.server.complaints(), Vec::<String>::new());
    Ok(())
}

/// Appendix A.3: with the certificate that is to be renewed, and with no other.
#[test]
fn one_more_certificate() -> Result<()> {
    let client = Client::new()?;
    client.post("simpleenroll", &["--user", &user()])?;
    fs::write(client.file("certificate"), &client.server.issued()[0])?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let own = [path(&client.file("certificate")), path(&client.file("key"))];
    let (head, _) = client.post("simplereenroll", &["--cert", &own[0], "--key", &own[1]])?;
    assert_has(&head, &["HTTP/1.1 200"]);
    assert_eq!(client.server.shown().len(), 1);
    let claim = client.authority.claim()?;
    let others = [path(&claim.certificate), path(&claim.key)];
    let (head, _) = client.post(
        "simplereenroll",
        &["--cert", &others[0], "--key", &others[1]],
    )?;
    assert_has(&head, &["HTTP/1.1 400"]);
    let (head, _) = client.post("simplereenroll", &["--user", &user()])?;
    assert_has(&head, &["HTTP/1.1 400"]);
    assert_eq!(client.server.issued().len(), 2);
    Ok(())
}

/// The CA's certificates are valid until the end of 2049.
#[test]
fn nobody_connects_with_a_certificate_that_has_ended() -> Result<()> {
    let client = Client::new()?;
    let claim = client.authority.claim()?;
    let [certificate, key] =
        [claim.certificate, claim.key].map(|path| path.to_string_lossy().into_owned());
    let post = || client.post("simpleenroll", &["--cert", &certificate, "--key", &key]);
    client.server.advance(DAY * 1000);
    assert_has(&post()?.0, &["HTTP/1.1 200"]);
    client.server.advance(DAY * 9000);
    assert!(post().is_err());
    let (head, _) = client.post("simpleenroll", &["--user", &user()])?;
    assert_has(&head, &["HTTP/1.1 200"]);
    Ok(())
}

/// What RFC 7030 does not have is refused, and noted.
#[test]
fn it_is_strict() -> Result<()> {
    let client = Client::new()?;
    let password = user();
    let body = format!("@{}", client.file("body").display());
    let pem = format!("@{}", client.file("csr").display());
    let as_pkcs10 = ["--header", "Content-Type: application/pkcs10"];
    let in_base64 = ["--header", "Content-Transfer-Encoding: base64"];
    for (arguments, why) in [
        (
            [&in_base64[..], &["--data-binary", &body]].concat(),
            "Content-Type",
        ),
        (
            [&as_pkcs10[..], &["--data-binary", &body]].concat(),
            "Transfer-Encoding",
        ),
        (
            [&as_pkcs10[..], &in_base64, &["--data-binary", &pem]].concat(),
            "base64",
        ),
        (
            [&as_pkcs10[..], &in_base64, &["--data-binary", "MIIB"]].concat(),
            "PKCS#10",
        ),
        (
            [&as_pkcs10[..], &in_base64, &["--data", &body]].concat(),
            "76",
        ),
    ] {
        let arguments = [&["--user", &password], &arguments[..]].concat();
        let (head, body) = client.curl("simpleenroll", &arguments)?;
        assert_has(&head, &["HTTP/1.1 400"]);
        assert!(body.contains(why), "{why}: {body}");
    }
    assert_eq!(client.server.complaints().len(), 5);
    let (head, _) = client.curl("nonsense/cacerts", &[])?;
    assert_has(&head, &["HTTP/1.1 404"]);
    assert_eq!(client.server.issued().len(), 0);
    Ok(())
}

/// It does what it is told to, once.
#[test]
fn it_misbehaves_when_told_to() -> Result<()> {
    let client = Client::new()?;
    let later = vec![("Retry-After", "120".to_owned())];
    client
        .server
        .misbehave(Misbehaviour::Answers(202, later, ""));
    client.server.misbehave(Misbehaviour::AnotherName);
    let password = user();
    let post = || client.post("simpleenroll", &["--user", &password]);
    assert_has(&post()?.0, &["HTTP/1.1 202", "Retry-After: 120"]);
    assert!(client.certificates(&post()?.1)?.contains("somebody-else"));
    assert!(client.certificates(&post()?.1)?.contains("CN = example"));
    Ok(())
}
