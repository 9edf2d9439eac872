//! What a client says of itself before anything is encrypted: the server's name that it wants, and protocols.
//!
//! Source: RFC 8446 §4.1.2 (ClientHello), RFC 6066 §3 (server_name), RFC 7301 §3.1 (ALPN).

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    pub server_name: Option<String>,
    pub protocols: Vec<String>,
}

impl Hello {
    /// Of a connection's first record; `None` if that is no ClientHello.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let mut rest = record.strip_prefix(&[22])?.get(4..)?.strip_prefix(&[1])?;
        // length, legacy_version, random
        take(&mut rest, 3 + 2 + 32)?;
        for width in [1, 2, 1] {
            // legacy_session_id, cipher_suites, legacy_compression_methods
            vector(&mut rest, width)?;
        }
        let mut extensions = vector(&mut rest, 2)?;
        let mut hello = Self::default();
        while !extensions.is_empty() {
            let kind = take(&mut extensions, 2)?;
            let mut body = vector(&mut extensions, 2)?;
            match kind {
                [0, 0] => {
                    let mut list = vector(&mut body, 2)?;
                    // host_name(0)
                    take(&mut list, 1)?;
                    hello.server_name = text(vector(&mut list, 2)?);
                }
                [0, 16] => {
                    let mut list = vector(&mut body, 2)?;
                    while !list.is_empty() {
                        hello.protocols.extend(text(vector(&mut list, 1)?));
                    }
                }
                _ => {}
            }
        }
        Some(hello)
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// Bytes after their length, which has `width` bytes.
fn vector<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let length = take(rest, width)?;
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    take(rest, length)
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
