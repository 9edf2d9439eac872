//! TCP, perhaps through an HTTP proxy, and TLS 1.2 or 1.3, with a client certificate where there is one. The server is
//! verified, by name, against one file of root certificates.

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

use super::Stream;
use super::server::Server;
use super::trouble::{is_closing, truncate, waiting};
use super::verifier::Verifier;
use crate::error::{ErrorKind, Result, ResultExt};

/// Time limit for connecting, for all addresses of a name together.
const CONNECTING: Duration = Duration::from_secs(15);
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
pub fn connect(server: &Server<'_>, certificate: Option<CertifiedKey>) -> Result<Connection> {
    let Server { host, port, .. } = *server;
    let config = configuration(server, certificate)?;
    let name = ServerName::try_from(host.to_owned()).context(ErrorKind::Settings, || {
        format!("{}: {host:?} is not a host name", server.setting)
    })?;
    let deadline = Instant::now() + CONNECTING;
    let tcp = match server.proxy {
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

fn configuration(server: &Server<'_>, certificate: Option<CertifiedKey>) -> Result<ClientConfig> {
    let setting_up = || "cannot set up TLS".to_owned();
    let provider = Arc::new(rustls_openssl::default_provider());
    let verifier = Verifier::new(server, Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(ErrorKind::Other, setting_up)?
        // By rustls's own rules, only with a better message.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certificate {
        Some(certificate) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)))
        }
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = server.protocol.map(<[u8]>::to_vec).into_iter().collect();
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
    // An IPv6 address is told from the port by its brackets (RFC 3986 §3.2.2).
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    proxy.write_all(request.as_bytes())?;
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
    Err(other(format!("it answered {:?}", truncate(status))))
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
        match self.tcp.write(buffer) {
            // The other side has closed. It may have said why before it had read everything: that can still be read, and
            // where there is nothing to read, reading says that the connection is closed.
            Err(e) if is_closing(&e) => {
                debug!("the other side does not listen any more: {e}");
                Ok(buffer.len())
            }
            done => done,
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// A connection to somebody who does this with the other end.
    fn connected(other: impl FnOnce(TcpStream) + Send + 'static) -> Timed {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (end, _) = listener.accept().unwrap();
        std::thread::spawn(move || other(end)).join().unwrap();
        Timed {
            tcp,
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    #[test]
    fn what_was_said_before_the_connection_closed_is_read() {
        let mut timed = connected(|mut end| end.write_all(b"no").unwrap());
        // The first write tells this side that the connection is closed; the second one would fail.
        for _ in 0..2 {
            timed.write_all(b"please").unwrap();
        }
        let mut said = [0; 2];
        timed.read_exact(&mut said).unwrap();
        assert_eq!(said, *b"no");
        assert!(
            timed
                .read(&mut said)
                .map_or_else(|e| is_closing(&e), |n| n == 0)
        );
    }

    #[test]
    fn a_proxy_is_given_an_ipv6_address_in_brackets() {
        for (host, wanted) in [("::1", "CONNECT [::1]:443 "), ("a.b", "CONNECT a.b:443 ")] {
            let (tell, told) = std::sync::mpsc::channel();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            std::thread::spawn(move || {
                let (mut end, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    end.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                end.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                tell.send(String::from_utf8(request).unwrap()).unwrap();
            });
            let mut timed = Timed {
                tcp,
                deadline: Instant::now() + Duration::from_secs(60),
            };
            tunnel(&mut timed, host, 443).unwrap();
            let request = told.recv().unwrap();
            assert!(request.starts_with(wanted), "{request}");
        }
    }
}
