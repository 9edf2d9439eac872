//! One HTTP/1.1 request and its answer over a connection that serves no other (RFC 9112). ureq-proto knows the protocol
//! and does no I/O; here are the connection, the time and the sizes.

use std::io;
use std::time::Instant;

use http::{HeaderMap, Request, StatusCode};
use ureq_proto::BodyMode;
use ureq_proto::client::{Call, RecvResponseResult, SendRequestResult, state};
use zeroize::Zeroizing;

use crate::enrollment::network::Stream;

/// An answer's status line and headers may have this many bytes: some hundred are usual.
const MAX_HEAD: usize = 16 * 1024;
/// An answer may have this many bytes: a certificate has 1 to 2 KB, a CA's chain some times that.
const MAX_BODY: usize = 64 * 1024;
/// In all, an answer may take this many bytes: chunks and interim answers (1xx) carry more than they bring.
const MAX_RECEIVED: usize = MAX_HEAD + 2 * MAX_BODY;
/// A request's line and headers have at most this many bytes: the longest has a password of 1 KiB.
const MAX_REQUEST_HEAD: usize = 4 * 1024;

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, without what carried it.
    pub body: Vec<u8>,
}

/// What goes wrong with an exchange.
#[derive(Debug)]
pub enum Trouble {
    /// The connection broke, or the time was over.
    Io(io::Error),
    /// What came is no answer; in words.
    Malformed(String),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<ureq_proto::Error> for Trouble {
    fn from(e: ureq_proto::Error) -> Self {
        Self::Malformed(e.to_string())
    }
}

/// Sends a request, and waits for the answer until this moment. A body has to be announced in the request's
/// Content-Length.
pub fn exchange(
    stream: &mut impl Stream,
    request: Request<()>,
    body: &[u8],
    deadline: Instant,
) -> Result<Answer, Trouble> {
    stream.until(deadline);
    let mut call = Call::new(request)?.proceed();
    // The password is in the headers. What the libraries keep of it ends with this process.
    let mut head = Zeroizing::new(vec![0; MAX_REQUEST_HEAD]);
    let length = call.write(&mut head)?;
    stream.write_all(&head[..length])?;
    let mut call = match call.proceed()? {
        Some(SendRequestResult::RecvResponse(call)) => call,
        Some(SendRequestResult::SendBody(mut call)) => {
            stream.write_all(body)?;
            call.consume_direct_write(body.len())?;
            call.proceed().ok_or_else(|| unfinished("request"))?
        }
        Some(SendRequestResult::Await100(_)) | None => return Err(unfinished("request")),
    };
    stream.flush()?;
    let mut received = Received::default();
    let (status, headers) = loop {
        let (used, answer) = call.try_response(&received.bytes, false)?;
        received.take(used);
        if let Some(answer) = answer {
            let (head, ()) = answer.into_parts();
            break (head.status, head.headers);
        }
        // After a 1xx the next answer may be here already.
        if used == 0 {
            if received.bytes.len() > MAX_HEAD {
                return Err(Trouble::Malformed("its headers are too long".into()));
            }
            received.must_have_more(stream)?;
        }
    };
    let body = match call.proceed() {
        Some(RecvResponseResult::RecvBody(call)) => read_body(stream, call, received)?,
        // Without a body; and nobody follows a redirection.
        Some(RecvResponseResult::Cleanup(_) | RecvResponseResult::Redirect(_)) => Vec::new(),
        None => return Err(unfinished("answer")),
    };
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn read_body(
    stream: &mut impl Stream,
    mut call: Call<state::RecvBody>,
    mut received: Received,
) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    let mut piece = [0; 4096];
    let ends_with_connection = call.body_mode() == BodyMode::CloseDelimited;
    loop {
        let (used, length) = call.read(&received.bytes, &mut piece)?;
        received.take(used);
        body.extend_from_slice(&piece[..length]);
        if body.len() > MAX_BODY {
            return Err(Trouble::Malformed(format!(
                "it has more than {MAX_BODY} bytes"
            )));
        }
        if ends_with_connection {
            if used == 0 && !received.more(stream)? {
                break;
            }
        } else if call.can_proceed() {
            break;
        } else if used == 0 {
            received.must_have_more(stream)?;
        }
    }
    Ok(body)
}

fn unfinished(what: &str) -> Trouble {
    Trouble::Malformed(format!("the {what} is unfinished"))
}

/// What has come and is not understood yet.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    /// How many bytes have come in all.
    total: usize,
}

impl Received {
    fn take(&mut self, used: usize) {
        self.bytes.drain(..used);
    }

    /// Waits for more. False at the end, if the other side has said that it is one: a TLS connection that is cut off is
    /// an error.
    fn more(&mut self, stream: &mut impl Stream) -> Result<bool, Trouble> {
        let mut chunk = [0; 4096];
        let n = loop {
            match stream.read(&mut chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        self.bytes.extend_from_slice(&chunk[..n]);
        self.total += n;
        if self.total > MAX_RECEIVED {
            return Err(Trouble::Malformed(format!(
                "it takes more than {MAX_RECEIVED} bytes"
            )));
        }
        Ok(n > 0)
    }

    fn must_have_more(&mut self, stream: &mut impl Stream) -> Result<(), Trouble> {
        if self.more(stream)? {
            return Ok(());
        }
        Err(Trouble::Io(io::ErrorKind::UnexpectedEof.into()))
    }
}

#[cfg(test)]
mod tests;
