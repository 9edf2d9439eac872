//! The double's answer to each question of its broker.

use std::time::Instant;

use anyhow::Result;
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::Value;

use super::event_log::{Entry, Event, EventLog, Who};
use super::link::{Action, Answer, Kind, Question, Verdict};
use super::memory::Memory;
use super::misbehaviour::{Admission, Call, Misbehaviour, Orders};
use super::policy::Renewing;
use super::provisioning::Rejection;
use super::registry::Status;
use super::{policy, topics};
use crate::doubles::pki::hex;

/// What the connections share.
pub struct Shared {
    pub memory: Memory,
    pub orders: Orders,
    pub admission: Admission,
    pub events: EventLog,
    /// Answers held back, and whether to send them now.
    held: Vec<Action>,
    pub released: bool,
}

impl Shared {
    pub fn new(memory: Memory) -> Self {
        Self {
            memory,
            orders: Orders::default(),
            admission: Admission::default(),
            events: EventLog::default(),
            held: Vec::new(),
            released: false,
        }
    }

    pub fn answer(&mut self, question: &Question) -> Answer {
        if question.kind == Kind::Tick {
            return self.tick();
        }
        let who = self.who(&question.certificate);
        let topic = || question.topic.clone();
        let (event, answer) = match question.kind {
            Kind::Connect => {
                let verdict = self.connect(&who, question);
                let event = match verdict {
                    Verdict::GoOn => Event::Connected,
                    _ => Event::Refused,
                };
                (event, verdict.into())
            }
            Kind::MaySubscribe => {
                let verdict = match self.admission {
                    Admission::NoSubscriptions => Verdict::Refuse,
                    _ => policy::may_subscribe(&who, &question.topic, self.memory.renewing),
                };
                let event = match verdict {
                    Verdict::GoOn => Event::Subscribed(topic()),
                    _ => Event::Denied(topic()),
                };
                (event, verdict.into())
            }
            Kind::MayPublish => {
                let verdict = policy::may_publish(&who, &question.topic, self.memory.renewing);
                if verdict == Verdict::GoOn {
                    return verdict.into();
                }
                (Event::Denied(topic()), verdict.into())
            }
            Kind::Message => {
                self.note(
                    question,
                    &who,
                    Event::Published(topic(), question.payload.clone()),
                );
                return self.message(question, &who);
            }
            // Without a client ID, a connection was never let in.
            Kind::Disconnect if question.client.is_empty() => return Verdict::GoOn.into(),
            Kind::Disconnect | Kind::Tick => (Event::Disconnected, Verdict::GoOn.into()),
        };
        self.note(question, &who, event);
        answer
    }

    fn note(&mut self, question: &Question, who: &Who, event: Event) {
        self.events.0.push(Entry {
            at: Instant::now(),
            client: question.client.clone(),
            who: who.clone(),
            event,
        });
    }

    fn who(&self, certificate: &[u8]) -> Who {
        let Ok(id) = openssl::hash::hash(MessageDigest::sha256(), certificate) else {
            return Who::Unknown;
        };
        let id = hex(&id);
        if id == self.memory.claim {
            return Who::Claim;
        }
        let registry = &self.memory.service.registry;
        if let Some(thing) = registry.just_in_time(&id) {
            let thing = thing.to_owned();
            return Who::Device {
                certificate: id,
                thing,
            };
        }
        match registry.certificate(&id) {
            Some(known) => match (&known.thing, known.status) {
                (Some(thing), Status::Active) => Who::Device {
                    certificate: id,
                    thing: thing.clone(),
                },
                _ => Who::NotActive { certificate: id },
            },
            None => Who::Unknown,
        }
    }

    fn connect(&mut self, who: &Who, question: &Question) -> Verdict {
        match self.admission {
            Admission::Refused => return Verdict::Refuse,
            Admission::Closed => return Verdict::Close,
            Admission::ByPolicy | Admission::NoSubscriptions => {}
        }
        if *who == Who::Unknown
            && let Some((id, thing)) = self.signed_by_registered(&question.certificate)
        {
            // The first connection creates thing and policy, and is closed; the device reconnects.
            let registry = &mut self.memory.service.registry;
            registry.provision_just_in_time(&id, &thing);
            return Verdict::Close;
        }
        policy::may_connect(who, &question.client, self.memory.client_ids)
    }

    /// The certificate's ID and its common name, if a registered CA has signed it.
    fn signed_by_registered(&self, der: &[u8]) -> Option<(String, String)> {
        let certificate = X509::from_der(der).ok()?;
        let mut authorities = self.memory.registered.iter();
        let signed = |ca: &X509| {
            let key = ca.public_key();
            key.is_ok_and(|key| certificate.verify(&key).unwrap_or(false))
        };
        authorities.find(|ca| signed(ca))?;
        let mut names = certificate
            .subject_name()
            .entries_by_nid(openssl::nid::Nid::COMMONNAME);
        let name = names.next()?.data().to_string().ok()?;
        let id = certificate.digest(MessageDigest::sha256()).ok()?;
        Some((hex(&id), name))
    }

    fn tick(&mut self) -> Answer {
        let actions = if self.released {
            std::mem::take(&mut self.held)
        } else {
            Vec::new()
        };
        self.released = false;
        Answer {
            verdict: Verdict::GoOn,
            actions,
        }
    }

    fn message(&mut self, question: &Question, who: &Who) -> Answer {
        let topic = &question.topic;
        let Some(call) = topics::call(topic) else {
            return Verdict::GoOn.into();
        };
        let misbehaviour = self.orders.next(call);
        let is_device = matches!(who, Who::Device { .. });
        let result = match &misbehaviour {
            Misbehaviour::Lost => return Verdict::GoOn.into(),
            Misbehaviour::Rejected(rejection) => Err(rejection.clone()),
            _ if is_device && self.memory.renewing == Renewing::Rejected(call) => {
                Err(Rejection::new(403, "AccessDenied", "no claim certificate"))
            }
            _ => self.carry_out(call, question),
        };
        let mut actions = Vec::new();
        let mut say = |topic: String, payload: Vec<u8>| {
            actions.push(Action::Publish {
                client: question.client.clone(),
                topic,
                payload,
            });
        };
        let (at, payload) = match &result {
            Ok(value) => (topics::accepted(topic), value.to_string().into_bytes()),
            Err(rejection) => (topics::rejected(topic), rejection.payload()),
        };
        match misbehaviour {
            Misbehaviour::HangsUp => return Verdict::Close.into(),
            Misbehaviour::Silent => return Verdict::GoOn.into(),
            Misbehaviour::Twice => {
                say(at.clone(), payload.clone());
                say(at, payload);
            }
            Misbehaviour::RejectedAfterAll(rejection) => {
                say(topics::rejected(topic), rejection.payload());
            }
            Misbehaviour::Says(payload) => say(at, payload),
            Misbehaviour::With(key, new) => say(at, changed(result, key, new)),
            Misbehaviour::AnotherKeysCertificate => {
                let pem = self.another_keys_certificate().unwrap_or_default();
                say(at, changed(result, "certificatePem", Some(pem.into())));
            }
            Misbehaviour::At(topic) => say(topic, payload),
            Misbehaviour::After(first, noise) => {
                say(first, noise);
                say(at, payload);
            }
            Misbehaviour::Late => {
                say(at, payload);
                self.held.extend(actions);
                return Verdict::GoOn.into();
            }
            Misbehaviour::Well | Misbehaviour::Lost | Misbehaviour::Rejected(_) => say(at, payload),
        }
        for Action::Publish { topic, payload, .. } in &actions {
            let event = Event::Answered(topic.clone(), payload.clone());
            self.note(question, who, event);
        }
        Answer {
            verdict: Verdict::GoOn,
            actions,
        }
    }

    fn carry_out(&mut self, call: Call, question: &Question) -> Result<Value, Rejection> {
        let service = &mut self.memory.service;
        match call {
            Call::CreateCertificate => service.create(&question.payload),
            Call::RegisterThing => service.register(&question.topic, &question.payload),
        }
    }

    fn another_keys_certificate(&self) -> Result<String> {
        let issued = self.memory.service.issuer.issue_for_another_key()?;
        Ok(String::from_utf8(issued.to_pem()?)?)
    }
}

/// The answer with one key changed or removed.
fn changed(result: Result<Value, Rejection>, key: &str, new: Option<Value>) -> Vec<u8> {
    let mut value = result.unwrap_or_default();
    if let Value::Object(map) = &mut value {
        match new {
            Some(new) => map.insert(key.to_owned(), new),
            None => map.remove(key),
        };
    }
    value.to_string().into_bytes()
}
