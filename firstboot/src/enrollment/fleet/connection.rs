//! The connection to AWS IoT Core: TCP, perhaps through an HTTP proxy, and TLS 1.2 or 1.3 with a client certificate.
//! The server is verified, by name, against one file of root certificates.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firstboot_formats::x509::Chain;
use log::debug;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::failure::{self, waiting};
use super::mqtt::Stream;
use super::server::Verifier;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::settings::Settings;

/// Time limit for connecting, for all addresses of a name together.
const CONNECTING: Duration = Duration::from_secs(15);
/// ALPN for MQTT with a client certificate on port 443 (AWS IoT Core developer guide, "Device communication
/// protocols").
const ALPN: &[u8] = b"x-amzn-mqtt-ca";
/// The port on which AWS IoT Core wants ALPN.
const ALPN_PORT: u16 = 443;
/// Maximum size of a proxy's answer, bytes.
const MAX_PROXY_ANSWER: usize = 8 * 1024;

/// A TLS connection with a time limit.
pub type Connection = StreamOwned<ClientConnection, Timed>;

/// A TCP connection on which every operation has a deadline.
pub struct Timed {
    tcp: TcpStream,
    deadline: Instant,
}

/// Connects, and leaves the TLS handshake to the first write.
pub fn connect(
    settings: &Settings,
    root_ca: &[u8],
    certificate: CertifiedKey,
) -> Result<Connection> {
    let host = settings.greengrass.iot_data_endpoint.as_str();
    let port = settings.enrollment.port;
    let config = configuration(root_ca, certificate, port)?;
    let name = ServerName::try_from(host.to_owned()).context(ErrorKind::Settings, || {
        format!("greengrass.iot_data_endpoint: {host:?} is not a host name")
    })?;
    let deadline = Instant::now() + CONNECTING;
    let tcp = match settings.enrollment.proxy() {
        None => dial(host, port, deadline)?,
        Some((proxy, proxy_port)) => {
            let mut timed = Timed {
                tcp: dial(proxy, proxy_port, deadline)?,
                deadline,
            };
            tunnel(&mut timed, host, port).context(ErrorKind::Waiting, || {
                format!("cannot connect through the proxy {proxy}:{proxy_port}")
            })?;
            timed.tcp
        }
    };
    let tls = ClientConnection::new(Arc::new(config), name)
        .context(ErrorKind::Other, || "cannot set up TLS".into())?;
    Ok(StreamOwned::new(tls, Timed { tcp, deadline }))
}

fn configuration(root_ca: &[u8], certificate: CertifiedKey, port: u16) -> Result<ClientConfig> {
    let setting_up = || "cannot set up TLS".to_owned();
    let provider = Arc::new(rustls_openssl::default_provider());
    let verifier = Verifier::new(root_ca, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(ErrorKind::Other, setting_up)?
        // By rustls's own rules, only with a better message.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.resumption = Resumption::disabled();
    if port == ALPN_PORT {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(config)
}

/// Connects to the first of the name's addresses that answers.
fn dial(host: &str, port: u16, deadline: Instant) -> Result<TcpStream> {
    let addresses = (host, port).to_socket_addrs().map_err(|e| {
        waiting(format!("cannot resolve {host}: {e}. Is the network up?")).caused_by(e)
    })?;
    let mut last = None;
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(tcp) => {
                // Requests and answers are few and small: none should wait to be merged with another.
                tcp.set_nodelay(true)
                    .context(ErrorKind::Other, || "cannot set TCP_NODELAY".into())?;
                return Ok(tcp);
            }
            Err(e) => last = Some(e),
        }
    }
    Err(match last {
        Some(e) => waiting(format!(
            "cannot reach {host}:{port}: {e}. Is the network up, and the port open?"
        ))
        .caused_by(e),
        None => waiting(format!(
            "cannot reach {host}:{port}: the name has no address"
        )),
    })
}

/// Connects through a proxy (RFC 9110 §9.3.6, CONNECT).
fn tunnel(proxy: &mut Timed, host: &str, port: u16) -> io::Result<()> {
    let other = |text: String| io::Error::other(text);
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    // A proxy may refuse before it has read everything: its answer is there all the same.
    if let Err(e) = proxy.write_all(request.as_bytes()) {
        debug!("cannot send CONNECT to the proxy: {e}");
    }
    let mut answer = Vec::new();
    // Byte by byte: TLS begins right after the empty line.
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if answer.len() == MAX_PROXY_ANSWER || proxy.read(&mut byte)? == 0 {
            return Err(other("its answer is incomplete or too long".into()));
        }
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    let mut words = status.split(' ');
    let is_http = words.next().is_some_and(|v| v.starts_with("HTTP/1."));
    let code = words.next().unwrap_or_default();
    if is_http && code.len() == 3 && code.starts_with('2') {
        return Ok(());
    }
    Err(other(format!(
        "it answered {:?}",
        failure::truncate(status)
    )))
}

impl Stream for Connection {
    fn until(&mut self, deadline: Instant) {
        self.sock.deadline = deadline;
    }
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        self.tcp.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        self.tcp.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// The certificate chain and its key, as TLS presents them.
pub fn certified(chain: &Chain, key: Arc<dyn rustls::sign::SigningKey>) -> CertifiedKey {
    let (leaf, issuers) = chain.objects();
    let all = std::iter::once(leaf).chain(issuers);
    CertifiedKey::new(all.map(|c| CertificateDer::from(c.value)).collect(), key)
}
