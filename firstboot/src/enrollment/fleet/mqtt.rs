//! The part of MQTT that fleet provisioning needs (MQTT 3.1.1, OASIS standard): connect, subscribe, and one request
//! after the other, each with its answer. Everything has a time limit and a size limit.
//!
//! No wait is as long as the keep alive time, so no PINGREQ is due (§3.1.2.10).

use std::io;
use std::time::{Duration, Instant};

use log::debug;
use mqtt_proto::v3::{
    Connect, ConnectReturnCode, Header, Packet, Publish, Subscribe, SubscribeReturnCode,
};
use mqtt_proto::{Pid, QoS, QosPid, TopicFilter, TopicName};
use zeroize::Zeroizing;

use super::failure::{self, Failure};
use crate::enrollment::network::{Stream, is_closing};
use crate::error::{Error, ErrorKind};

/// The largest message that AWS IoT Core sends is 128 KiB (AWS IoT Core quotas, "Maximum size of MQTT message
/// payload"); topic and header add to that.
pub const MAX_PACKET: usize = 129 * 1024;
/// Seconds without a packet after which the broker may drop the connection.
const KEEP_ALIVE: u16 = 120;
/// How long the broker may take to accept the connection (CONNACK), the TLS handshake included.
const CONNECTING: Duration = Duration::from_secs(20);
/// How long it may take to accept the subscriptions (SUBACK).
const SUBSCRIBING: Duration = Duration::from_secs(10);
/// How long an answer may take: AWS IoT Core calls the account's own Lambda function before it registers a thing, and
/// gives it 5 seconds.
const ANSWERING: Duration = Duration::from_secs(30);
/// How long DISCONNECT may take.
const LEAVING: Duration = Duration::from_secs(2);

/// An accepted MQTT connection.
pub struct Client<S> {
    stream: S,
    // Wiped, because ownership tokens arrive here.
    received: Zeroizing<Vec<u8>>,
    last_pid: Pid,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A message on `…/accepted`.
    Accepted(Zeroizing<Vec<u8>>),
    /// A message on `…/rejected`.
    Rejected(Vec<u8>),
}

impl<S: Stream> Client<S> {
    /// Sends CONNECT, and waits for CONNACK.
    pub fn connect(stream: S, client_id: &str) -> std::result::Result<Self, Failure> {
        let what = "connecting to AWS IoT Core";
        let mut client = Self {
            stream,
            received: Zeroizing::default(),
            last_pid: Pid::default(),
        };
        client.stream.until(Instant::now() + CONNECTING);
        let packet = client
            .send(&Connect::new(client_id.into(), KEEP_ALIVE).into())
            .and_then(|()| client.receive())
            .map_err(|trouble| trouble.failure(what))?;
        match packet {
            Packet::Connack(answer) => match answer.code {
                ConnectReturnCode::Accepted => Ok(client),
                ConnectReturnCode::ServerUnavailable => {
                    Err(Failure::Failed(failure::unavailable()))
                }
                code => Err(Failure::Refused(failure::connection_refused(
                    code, client_id,
                ))),
            },
            _ => Err(Failure::Failed(malformed(
                what,
                "it does not begin with CONNACK",
            ))),
        }
    }

    /// Subscribes to the topics, all or none.
    pub fn subscribe(&mut self, topics: &[String]) -> std::result::Result<(), Failure> {
        let what = "subscribing to the answers of fleet provisioning";
        match self.try_to_subscribe(topics) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Refused(failure::subscription_refused())),
            Err(trouble) => Err(trouble.failure(what)),
        }
    }

    fn try_to_subscribe(&mut self, topics: &[String]) -> std::result::Result<bool, Trouble> {
        let filters = topics
            .iter()
            .map(|topic| Ok((TopicFilter::try_from(topic.as_str())?, QoS::Level1)))
            .collect::<std::result::Result<_, mqtt_proto::Error>>()?;
        let pid = self.next_pid();
        self.stream.until(Instant::now() + SUBSCRIBING);
        self.send(&Subscribe::new(pid, filters).into())?;
        loop {
            match self.receive()? {
                Packet::Suback(answer) if answer.pid == pid => {
                    return Ok(answer.topics.len() == topics.len()
                        && !answer.topics.contains(&SubscribeReturnCode::Failure));
                }
                Packet::Publish(message) => self.acknowledge(&message)?,
                other => debug!("ignoring {:?}", other.get_type()),
            }
        }
    }

    /// Publishes a request, and waits for a message on its topic with `/accepted` or `/rejected`. Messages on other
    /// topics, and repeated ones, are acknowledged and dropped. `what` reads before a colon: "requesting a
    /// certificate".
    pub fn request(
        &mut self,
        topic: &str,
        payload: &[u8],
        what: &str,
    ) -> std::result::Result<Answer, Failure> {
        self.try_to_request(topic, payload)
            .map_err(|trouble| trouble.failure(what))
    }

    fn try_to_request(
        &mut self,
        topic: &str,
        payload: &[u8],
    ) -> std::result::Result<Answer, Trouble> {
        let pid = self.next_pid();
        let name = TopicName::try_from(topic)?;
        let publish = Publish::new(QosPid::Level1(pid), name, payload.to_vec().into());
        self.stream.until(Instant::now() + ANSWERING);
        self.send(&publish.into())?;
        loop {
            match self.receive()? {
                Packet::Publish(message) => {
                    self.acknowledge(&message)?;
                    match message.topic_name.strip_prefix(topic) {
                        Some("/accepted") => {
                            return Ok(Answer::Accepted(message.payload.to_vec().into()));
                        }
                        Some("/rejected") => return Ok(Answer::Rejected(message.payload.to_vec())),
                        _ => debug!("ignoring a message on another topic"),
                    }
                }
                other => debug!("ignoring {:?}", other.get_type()),
            }
        }
    }

    /// Sends DISCONNECT, ignoring errors.
    pub fn disconnect(mut self) {
        self.stream.until(Instant::now() + LEAVING);
        if let Err(trouble) = self.send(&Packet::Disconnect) {
            debug!("{}", trouble.error("disconnecting"));
        }
    }

    fn acknowledge(&mut self, message: &Publish) -> std::result::Result<(), Trouble> {
        match message.qos_pid {
            QosPid::Level0 => Ok(()),
            QosPid::Level1(pid) => self.send(&Packet::Puback(pid)),
            // The broker may send more than was subscribed to (§3.8.4).
            QosPid::Level2(_) => Err(Trouble::Malformed("a message came with QoS 2".into())),
        }
    }

    fn next_pid(&mut self) -> Pid {
        self.last_pid += 1;
        self.last_pid
    }

    fn send(&mut self, packet: &Packet) -> std::result::Result<(), Trouble> {
        let bytes = packet.encode()?;
        self.stream.write_all(bytes.as_ref())?;
        Ok(self.stream.flush()?)
    }

    /// The next packet, whole.
    fn receive(&mut self) -> std::result::Result<Packet, Trouble> {
        loop {
            if let Some(packet) = take_packet(&mut self.received).map_err(Trouble::Malformed)? {
                return Ok(packet);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Trouble::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// What goes wrong with a connection.
enum Trouble {
    Io(io::Error),
    Malformed(String),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<mqtt_proto::Error> for Trouble {
    fn from(e: mqtt_proto::Error) -> Self {
        Self::Malformed(e.to_string())
    }
}

impl Trouble {
    fn error(&self, what: &str) -> Error {
        match self {
            Self::Io(e) => failure::broken(what, e),
            Self::Malformed(why) => malformed(what, why),
        }
    }

    fn failure(&self, what: &str) -> Failure {
        match self {
            Self::Io(e) if failure::is_refusal(e) => Failure::Refused(self.error(what)),
            Self::Io(e) if is_closing(e) => Failure::Closed(self.error(what)),
            _ => Failure::Failed(self.error(what)),
        }
    }
}

/// Takes a packet off the front of the received bytes, if a whole one is there. The error says what is wrong with it.
pub fn take_packet(received: &mut Vec<u8>) -> std::result::Result<Option<Packet>, String> {
    let header = match Header::decode(received) {
        Ok(header) => header,
        Err(e) if e.is_eof() => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let length = mqtt_proto::total_len(header.remaining_len as usize).map_err(|e| e.to_string())?;
    if length > MAX_PACKET {
        return Err(format!(
            "a packet has {length} bytes; AWS IoT Core sends at most {MAX_PACKET}"
        ));
    }
    if received.len() < length {
        return Ok(None);
    }
    let packet = Packet::decode(&received[..length]).map_err(|e| e.to_string())?;
    received.drain(..length);
    packet.map(Some).ok_or_else(|| "a packet ends early".into())
}

fn malformed(what: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Other,
        format!("{what}: the server violated the protocol: {why}"),
    )
}

#[cfg(test)]
mod tests;
