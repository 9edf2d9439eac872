//! Ways in which the double can misbehave.

use serde_json::Value;

use super::provisioning::Rejection;

/// The API call that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    CreateCertificate,
    RegisterThing,
}

/// Which connections the broker accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Those that the policies allow.
    #[default]
    ByPolicy,
    /// None: CONNACK "not authorized".
    Refused,
    /// None: the connection is closed.
    Closed,
    /// All, but every subscription is refused (SUBACK 0x80).
    NoSubscriptions,
}

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Misbehaviour {
    /// As documented.
    Well,
    /// The request is lost.
    Lost,
    /// It is carried out; the answer is lost.
    Silent,
    /// It is carried out; instead of an answer, the connection is closed.
    HangsUp,
    /// It is carried out; the answer waits for [`super::IotCore::release`].
    Late,
    /// It is carried out and answered twice.
    Twice,
    /// It is refused, and not carried out.
    Rejected(Rejection),
    /// It is carried out, and answered as if refused.
    RejectedAfterAll(Rejection),
    /// It is carried out; the answer has this payload.
    Says(Vec<u8>),
    /// It is carried out; in the answer, this top-level key has this value, or is missing.
    With(&'static str, Option<Value>),
    /// The answer's certificate is for another key.
    AnotherKeysCertificate,
    /// The answer goes to this topic, whether or not the client has subscribed to it.
    At(String),
    /// Another message comes first, at this topic; then the answer.
    After(String, Vec<u8>),
}

/// Misbehaviour that was asked for: for how many requests of which kind.
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
