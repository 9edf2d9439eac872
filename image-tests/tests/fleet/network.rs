//! The connection to AWS IoT Core: no server, the wrong server, or somebody in between.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::doubles::iot_core::{IotCore, Options};
use image_tests::doubles::pki::{Authority, Pair, Validity};
use image_tests::faults::network::Cloud;
use image_tests::ports::PortPair;
use serde_json::{Value, json};

use crate::{Enrolling, exit};

const KEY: KeyType = KeyType::EccP256;

impl Enrolling {
    /// Changes the enrollment settings.
    fn change(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut settings = self.cloud.settings("nucleus-lite", KEY);
        change(&mut settings["enrollment"]);
        self.device.settings(&settings)
    }

    /// Waits for this reason without a request; succeeds with the right settings.
    fn waits_and_recovers(&self, words: &str) -> Result<()> {
        self.ends(exit::WAITING, words)?;
        self.assert_certificates(0, 0);
        assert_eq!(self.device.status()?["state"], "AwaitingCertificate");
        self.device
            .settings(&self.cloud.settings("nucleus-lite", KEY))?;
        self.ends_done()?;
        self.assert_certificates(1, 1);
        Ok(())
    }
}

#[test]
fn without_a_server_the_device_waits() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let ports = PortPair::reserve()?;
    enrolling.change(|enrollment| enrollment["port"] = json!(ports.first()))?;
    enrolling.waits_and_recovers("cannot reach localhost")
}

/// Waiting for the network writes nothing, however often the device tries.
#[test]
fn a_device_without_network_writes_nothing() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let ports = PortPair::reserve()?;
    enrolling.change(|enrollment| enrollment["port"] = json!(ports.first()))?;
    enrolling.ends(exit::WAITING, "cannot reach")?;
    let before = enrolling.device.snapshot()?;
    for _ in 0..3 {
        enrolling.ends(exit::WAITING, "cannot reach")?;
    }
    before.assert_same(&enrolling.device.snapshot()?);
    Ok(())
}

/// A double whose server presents this certificate, and a device that trusts the root.
fn server(root: Authority, pair: &Pair) -> Result<Enrolling> {
    let root = Arc::new(root);
    let memory = IotCore::start(&root, Options::default())?.memory();
    let cloud = Cloud::before(Arc::clone(&root), IotCore::serve(pair, memory)?)?;
    Enrolling::at(cloud, "nucleus-lite", KEY)
}

#[test]
fn the_wrong_server_is_refused() -> Result<()> {
    let root = Authority::new()?;
    let elsewhere = root.server_elsewhere()?;
    let expired = root.server_valid(Validity::Expired)?;
    let not_yet = root.server_valid(Validity::NotYet)?;
    let client = root.claim()?;
    let stranger = Authority::new()?;
    let foreign = stranger.server()?;
    let root = Arc::new(root);
    let memory = IotCore::start(&root, Options::default())?.memory();
    for (pair, words) in [
        (elsewhere, "for another name"),
        (expired, "cannot be trusted"),
        (not_yet, "cannot be trusted"),
        (client, "cannot be trusted"),
        (foreign, "chains up to \"CN=Operator Root CA\""),
    ] {
        let core = IotCore::serve(&pair, memory.clone())?;
        let cloud = Cloud::before(Arc::clone(&root), core)?;
        let enrolling = Enrolling::at(cloud, "nucleus-lite", KEY)?;
        enrolling.ends(exit::WAITING, words)?;
        assert_eq!(enrolling.cloud.core.events().0.len(), 0, "{words}");
        assert!(enrolling.device.exists("/boot/firstboot/claim.key.pem"));
    }
    Ok(())
}

/// The image has Amazon's root certificate: without the operator's, this server is not trusted.
#[test]
fn without_the_operators_root_only_amazon_is_trusted() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.device.remove("/boot/firstboot/root-ca.pem")?;
    enrolling.ends(exit::WAITING, "CN=Amazon Root CA 3,O=Amazon,C=US; ")
}

#[test]
fn a_good_server_is_trusted() -> Result<()> {
    let root = Authority::new()?;
    let pair = root.server()?;
    server(root, &pair)?.ends_done()
}

/// Port 443 needs ALPN. The double has another port, so a proxy forwards to it.
#[test]
fn a_proxy_and_port_443_lead_to_the_server() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let proxy = HttpProxy::start(
        Some(enrolling.cloud.relay.port()),
        "HTTP/1.1 200 OK\r\n\r\n",
    )?;
    enrolling.change(|enrollment| {
        enrollment["port"] = json!(443);
        enrollment["http_proxy"] = json!(proxy.url());
    })?;
    enrolling.ends_done()?;
    let requests = proxy.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(
        requests[0].starts_with("CONNECT localhost:443 HTTP/1.1\r\n"),
        "{requests:?}"
    );
    let hello = &enrolling.cloud.relay.hellos()[0];
    assert_eq!(hello.server_name.as_deref(), Some("localhost"));
    assert_eq!(hello.protocols, ["x-amzn-mqtt-ca"]);
    Ok(())
}

#[test]
fn a_proxy_that_refuses_is_named() -> Result<()> {
    for (answer, words) in [
        (
            "HTTP/1.1 407 HttpProxy \u{1b}[2J Authentication Required\r\n\r\n",
            "407",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", "the proxy"),
        ("", "the proxy"),
        (&"x".repeat(20_000), "the proxy"),
    ] {
        let enrolling = Enrolling::new()?;
        let proxy = HttpProxy::start(None, answer)?;
        enrolling.change(|enrollment| enrollment["http_proxy"] = json!(proxy.url()))?;
        enrolling.waits_and_recovers(words)?;
    }
    Ok(())
}

/// Another service at the port, which speaks first, and not TLS.
#[test]
fn a_server_without_tls_is_refused() -> Result<()> {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\u{16}\u{3}\u{3}\u{ff}\u{ff}",
        "",
    ] {
        let enrolling = Enrolling::new()?;
        let server = HttpProxy::start(None, answer)?;
        enrolling.change(|enrollment| enrollment["port"] = json!(server.port))?;
        let outcome = enrolling.enroll()?;
        assert_eq!(
            outcome.code,
            exit::WAITING,
            "{answer:?}: {}",
            outcome.stderr
        );
        enrolling
            .device
            .settings(&enrolling.cloud.settings("nucleus-lite", KEY))?;
        enrolling.ends_done()?;
    }
    Ok(())
}

/// An HTTP proxy with CONNECT, or a server with a fixed answer. Each connection gets the answer to its request, and is
/// then forwarded.
struct HttpProxy {
    port: u16,
    requests: Arc<std::sync::Mutex<Vec<String>>>,
}

impl HttpProxy {
    /// Accepts connections until the test program ends.
    fn start(forwards_to: Option<u16>, answer: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        let answer = answer.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = Self::serve(stream, forwards_to, &answer, &heard);
            }
        });
        Ok(Self { port, requests })
    }

    fn serve(
        mut stream: TcpStream,
        forwards_to: Option<u16>,
        answer: &str,
        heard: &std::sync::Mutex<Vec<String>>,
    ) -> Result<()> {
        // A whole request to a proxy, in however many pieces, or the first bytes of a TLS record.
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"\r\n\r\n") && request.first() != Some(&22) {
            match stream.read(&mut piece)? {
                0 => break,
                length => request.extend(&piece[..length]),
            }
        }
        if let Ok(mut heard) = heard.lock() {
            heard.push(String::from_utf8_lossy(&request).into_owned());
        }
        stream.write_all(answer.as_bytes())?;
        let Some(port) = forwards_to else {
            return Ok(());
        };
        let server = TcpStream::connect(("127.0.0.1", port))?;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::io::copy(&mut &server, &mut &stream);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
            let _ = std::io::copy(&mut &stream, &mut &server);
            let _ = server.shutdown(std::net::Shutdown::Write);
        });
        Ok(())
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn requests(&self) -> Vec<String> {
        self.requests
            .lock()
            .map(|requests| requests.clone())
            .unwrap_or_default()
    }
}
