//! The questions of the broker's plugin, and the answers: frames on a Unix socket. Integers are in native byte order;
//! each field follows its length in 4 bytes.
//!
//! Question: kind (1 byte), access (1 byte), client ID, certificate (DER), topic, payload.
//! Answer: verdict (1 byte), number of actions (4 bytes), then each: kind (1 byte), client ID, topic, payload.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    GoOn = 0,
    /// CONNACK "not authorized", SUBACK 0x80.
    Refuse = 1,
    /// Close the connection.
    Close = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect,
    MayPublish,
    MaySubscribe,
    Message,
    Disconnect,
    /// About ten times a second: anything else to do?
    Tick,
}

#[derive(Debug)]
pub struct Question {
    pub kind: Kind,
    pub client: String,
    pub certificate: Vec<u8>,
    pub topic: String,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub enum Action {
    /// To one client, whatever its subscriptions.
    Publish {
        client: String,
        topic: String,
        payload: Vec<u8>,
    },
}

#[derive(Debug)]
pub struct Answer {
    pub verdict: Verdict,
    pub actions: Vec<Action>,
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            actions: Vec::new(),
        }
    }
}

/// Answers until the broker exits.
pub fn serve(stream: UnixStream, mut answer: impl FnMut(Question) -> Answer) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(question) = read(&mut reader)? {
        writer.write_all(&encode(&answer(question)))?;
    }
    Ok(())
}

fn read(reader: &mut impl Read) -> io::Result<Option<Question>> {
    let mut head = [0; 2];
    match reader.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let kind = match &head {
        b"C\0" => Kind::Connect,
        b"Aw" => Kind::MayPublish,
        b"As" => Kind::MaySubscribe,
        b"M\0" => Kind::Message,
        b"D\0" => Kind::Disconnect,
        b"T\0" => Kind::Tick,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let client = read_field(reader)?;
    let certificate = read_field(reader)?;
    let topic = read_field(reader)?;
    Ok(Some(Question {
        kind,
        client: String::from_utf8_lossy(&client).into_owned(),
        certificate,
        topic: String::from_utf8_lossy(&topic).into_owned(),
        payload: read_field(reader)?,
    }))
}

fn read_field(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let mut field = vec![0; u32::from_ne_bytes(length) as usize];
    reader.read_exact(&mut field)?;
    Ok(field)
}

fn encode(answer: &Answer) -> Vec<u8> {
    let mut bytes = vec![answer.verdict as u8];
    bytes.extend((answer.actions.len() as u32).to_ne_bytes());
    for action in &answer.actions {
        let Action::Publish {
            client,
            topic,
            payload,
        } = action;
        bytes.push(b'P');
        for field in [client.as_bytes(), topic.as_bytes(), payload] {
            bytes.extend((field.len() as u32).to_ne_bytes());
            bytes.extend(field);
        }
    }
    bytes
}
