//! What a client's first, unencrypted message says.

use rustls::server::Acceptor;

/// The server's name that a client asks for (SNI), and its application protocols (ALPN).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    pub server_name: Option<String>,
    pub protocols: Vec<String>,
}

impl Hello {
    /// Parses a connection's first record; `None` if it is not a ClientHello.
    pub fn parse(mut record: &[u8]) -> Option<Self> {
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut record).ok()?;
        let accepted = acceptor.accept().ok()??;
        let hello = accepted.client_hello();
        let protocols = hello.alpn().into_iter().flatten();
        Some(Self {
            server_name: hello.server_name().map(str::to_owned),
            protocols: protocols
                .map(|protocol| String::from_utf8_lossy(protocol).into_owned())
                .collect(),
        })
    }
}
