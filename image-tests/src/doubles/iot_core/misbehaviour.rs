//! How the double can be told to misbehave.

use serde_json::Value;

use super::provisioning::Rejection;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    CreateCertificate,
    RegisterThing,
}

/// Whom a CONNECT is refused, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// By policy only.
    #[default]
    ByPolicy,
    /// Everybody, by CONNACK "not authorized".
    Refused,
    /// Everybody, by closing the connection.
    Closed,
    /// Everybody is let in, and may subscribe to nothing (SUBACK 0x80).
    NoSubscriptions,
}

/// What becomes of one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Misbehaviour {
    /// As documented.
    Well,
    /// The request is lost.
    Lost,
    /// It is carried out, and the answer is lost.
    Silent,
    /// It is carried out, and the connection is closed in place of the answer.
    HangsUp,
    /// It is carried out; the answer is held back until [`super::IotCore::release`].
    Late,
    /// It is carried out, and answered twice.
    Twice,
    /// Not carried out.
    Rejected(Rejection),
    /// Carried out, and answered as if not.
    RejectedAfterAll(Rejection),
    /// Carried out; the answer's payload is this.
    Says(Vec<u8>),
    /// Carried out; the answer's JSON has this at a top-level key, or lacks it.
    With(&'static str, Option<Value>),
    /// The certificate in the answer is for another key.
    AnotherKeysCertificate,
    /// The answer comes at this topic, to which nobody may have subscribed.
    At(String),
    /// Something else comes first at this topic; then the answer.
    After(String, Vec<u8>),
}

/// The misbehaviour that was ordered: for the next requests of a kind, then well again.
#[derive(Clone, Debug, Default)]
pub struct Orders(Vec<(Call, usize, Misbehaviour)>);

impl Orders {
    pub fn add(&mut self, call: Call, times: usize, misbehaviour: Misbehaviour) {
        self.0.push((call, times, misbehaviour));
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn next(&mut self, call: Call) -> Misbehaviour {
        let waiting = |(of, times, _): &&mut (Call, usize, Misbehaviour)| *of == call && *times > 0;
        match self.0.iter_mut().find(waiting) {
            Some((_, times, misbehaviour)) => {
                *times -= 1;
                misbehaviour.clone()
            }
            None => Misbehaviour::Well,
        }
    }
}
