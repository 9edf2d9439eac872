//! Where to connect, and whom to believe there.

/// A TLS server.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// Its name, by which it is verified.
    pub host: &'a str,
    /// Its TCP port.
    pub port: u16,
    /// The setting that names it, for the operator.
    pub setting: &'static str,
    /// The application protocol to ask for (ALPN, RFC 7301).
    pub protocol: Option<&'static [u8]>,
    /// Host and port of an HTTP proxy on the way.
    pub proxy: Option<(&'a str, u16)>,
    /// The certificates to one of which the server's has to lead up, PEM.
    pub roots: &'a [u8],
    /// The file that these come from, for the operator.
    pub roots_file: &'static str,
}
