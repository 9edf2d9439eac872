//! TPM commands and responses as bytes.
//!
//! Layout: TCG TPM 2.0 Library Part 1, §18 "Command/Response Structure"; big-endian throughout.

use std::io::{self, Read};

use super::codes;

/// TPM_ST_NO_SESSIONS and TPM_ST_SESSIONS: Part 2, §6.9, table "TPM_ST".
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// Length of the header, bytes: tag (2), size (4), command or response code (4).
const HEADER: usize = 10;
/// The longest command or response that is accepted, bytes; libtpms' own buffer has 4096.
const LONGEST: usize = 0x1_0000;
/// TPM_RS_PW, the password pseudo-session: Part 2, §7.4, table "TPM_RH".
const PASSWORD_SESSION: u32 = 0x4000_0009;

/// Reads one command or response; `None` if the peer hung up before it.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0; HEADER];
    if stream.read(&mut frame[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut frame[1..])?;
    let size = u32::from_be_bytes([frame[2], frame[3], frame[4], frame[5]]) as usize;
    if !(HEADER..=LONGEST).contains(&size) {
        let reason = format!("a TPM frame that claims {size} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    frame.resize(size, 0);
    stream.read_exact(&mut frame[HEADER..])?;
    Ok(Some(frame))
}

/// A command, as far as it can be parsed without its sessions' keys.
pub struct Command<'a> {
    pub bytes: &'a [u8],
    pub code: u32,
    pub handles: Vec<u32>,
    pub has_sessions: bool,
    /// Sessions with a key: all but passwords.
    pub keyed_sessions: usize,
    pub parameters: Fields<'a>,
}

impl<'a> Command<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let tag = fields.u16()?;
        fields.u32()?;
        let code = fields.u32()?;
        let handles = (0..codes::handle_count(code))
            .map(|_| fields.u32())
            .collect::<Option<_>>()?;
        let has_sessions = tag == SESSIONS;
        let mut keyed_sessions = 0;
        if has_sessions {
            let size = fields.u32()?;
            let mut area = Fields(fields.take(size as usize)?);
            while !area.0.is_empty() {
                let handle = area.u32()?;
                let _nonce = area.tpm2b()?;
                let _attributes = area.u8()?;
                let _authorization = area.tpm2b()?;
                keyed_sessions += usize::from(handle != PASSWORD_SESSION);
            }
        }
        Some(Self {
            bytes,
            code,
            handles,
            has_sessions,
            keyed_sessions,
            parameters: fields,
        })
    }
}

/// The rest of a structure that is being parsed.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// The content of a TPM2B: a size in two bytes, then as many bytes.
    pub fn tpm2b(&mut self) -> Option<&'a [u8]> {
        let size = self.u16()?;
        self.take(size.into())
    }
}

/// A command with one password session, or without sessions.
pub fn command(code: u32, handles: &[u32], password: Option<&[u8]>, parameters: &[u8]) -> Vec<u8> {
    let tag = if password.is_some() {
        SESSIONS
    } else {
        NO_SESSIONS
    };
    let mut body: Vec<u8> = handles
        .iter()
        .flat_map(|handle| handle.to_be_bytes())
        .collect();
    if let Some(password) = password {
        let mut session = PASSWORD_SESSION.to_be_bytes().to_vec();
        session.extend([0, 0, 0]); // Empty nonce, no attributes.
        session.extend(tpm2b(password));
        body.extend((session.len() as u32).to_be_bytes());
        body.extend(session);
    }
    body.extend(parameters);
    frame(tag, code, &body)
}

/// A response without sessions. It has parameters only if `code` is TPM_RC_SUCCESS.
pub fn response(code: u32, parameters: &[u8]) -> Vec<u8> {
    frame(NO_SESSIONS, code, parameters)
}

/// The code of a response.
pub fn response_code(response: &[u8]) -> Option<u32> {
    let mut fields = Fields(response.get(6..)?);
    fields.u32()
}

/// `bytes` as a TPM2B.
pub fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn frame(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let size = (HEADER + body.len()) as u32;
    [
        &tag.to_be_bytes()[..],
        &size.to_be_bytes(),
        &code.to_be_bytes(),
        body,
    ]
    .concat()
}
