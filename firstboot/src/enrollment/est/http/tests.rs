//! The client against a server that is a list of bytes.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};

use super::*;

/// What the server sends, in pieces of so many bytes, and what it has been sent.
struct Script<'a> {
    to_client: &'a [u8],
    piece: usize,
    from_client: Vec<u8>,
}

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.piece.min(self.to_client.len()).min(buffer.len());
        let (now, later) = self.to_client.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.to_client = later;
        Ok(n)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.from_client.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Script<'_> {
    fn until(&mut self, _deadline: Instant) {}
}

fn post(answer: &[u8], piece: usize) -> (Result<Answer, Trouble>, String) {
    let mut script = Script {
        to_client: answer,
        piece,
        from_client: Vec::new(),
    };
    let answer = post_to(&mut script);
    (answer, String::from_utf8(script.from_client).unwrap())
}

/// What is made of it, and how many bytes of it were left unread.
fn receive(answer: &[u8]) -> (Result<Answer, Trouble>, usize) {
    let mut script = Script {
        to_client: answer,
        piece: 5000,
        from_client: Vec::new(),
    };
    (post_to(&mut script), script.to_client.len())
}

fn post_to(script: &mut Script<'_>) -> Result<Answer, Trouble> {
    let request = Request::post("https://ca.example:8443/.well-known/est/simpleenroll")
        .header("content-length", "4")
        .body(())
        .unwrap();
    exchange(script, request, b"MIIB", Instant::now())
}

#[test]
fn the_request_is_whole_and_names_the_host() {
    let (_, sent) = post(b"HTTP/1.1 204 No Content\r\n\r\n", 100);
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /.well-known/est/simpleenroll HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("host: ca.example:8443"), "{head}");
    assert_eq!(body, "MIIB");
}

/// However the bytes come.
#[test]
fn each_way_to_carry_a_body_gives_the_same() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200",
    ] {
        for piece in [1, 2, 7, 5000] {
            let got = post(answer.as_bytes(), piece).0.unwrap();
            assert_eq!(got.status, 200, "{answer}");
            assert_eq!(got.body, b"hello", "{answer}");
        }
    }
}

#[test]
fn half_an_answer_is_none() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        let got = post(answer.as_bytes(), 5000).0;
        assert!(
            matches!(&got, Err(Trouble::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof),
            "{answer:?}: {got:?}"
        );
    }
}

#[test]
fn what_is_no_http_or_too_long_is_refused() {
    let long_header = format!("HTTP/1.1 200 OK\r\nA: {}\r\n", "x".repeat(2 * MAX_HEAD));
    let long_body = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 * MAX_BODY));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200));
    // Chunks whose extensions, or whose trailers, have no end; and interim answers without one.
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let much = 2 * MAX_RECEIVED;
    let extension = format!("{chunked}1;{}", "x".repeat(much));
    let trailer = format!("{chunked}0\r\nA: {}", "x".repeat(much));
    let crumbs = format!(
        "{chunked}{}",
        "1;xxxxxxxxxxxxxxxxx\r\nx\r\n".repeat(much / 24)
    );
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(much / 28);
    for answer in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 099 No\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &long_header,
        &long_body,
        &many,
        &extension,
        &trailer,
        &crumbs,
        &interim,
    ] {
        let (got, left) = receive(answer.as_bytes());
        assert!(matches!(got, Err(Trouble::Malformed(_))), "{got:?}");
        let read = answer.len() - left;
        assert!(read <= MAX_RECEIVED + 4096, "{read} bytes were read");
    }
}

/// Nobody follows a redirection, and nothing is read of it.
#[test]
fn a_redirection_is_an_answer() {
    let answer =
        b"HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\nContent-Length: 0\r\n\r\n";
    let got = post(answer, 5000).0.unwrap();
    assert_eq!(got.status, 302);
}
