//! The client against a broker that is a list of bytes.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{Read, Write};

use mqtt_proto::v3::{Connack, Suback};

use super::*;

const TOPIC: &str = "$aws/certificates/create-from-csr/json";

/// What the broker sends, one piece per read, and what it has received.
#[derive(Default)]
struct Script {
    to_client: VecDeque<Vec<u8>>,
    from_client: Vec<u8>,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.to_client.front_mut() else {
            return Ok(0);
        };
        let n = piece.len().min(buffer.len());
        buffer[..n].copy_from_slice(&piece[..n]);
        piece.drain(..n);
        if piece.is_empty() {
            self.to_client.pop_front();
        }
        Ok(n)
    }
}

impl Write for Script {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.from_client.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Script {
    fn until(&mut self, _deadline: Instant) {}
}

fn bytes(packet: Packet) -> Vec<u8> {
    packet.encode().unwrap().as_ref().to_vec()
}

fn connack(code: ConnectReturnCode) -> Vec<u8> {
    bytes(Connack::new(false, code).into())
}

fn message(topic: &str, payload: &[u8], pid: u16) -> Vec<u8> {
    let pid = QosPid::Level1(Pid::try_from(pid).unwrap());
    let topic = TopicName::try_from(topic).unwrap();
    bytes(Publish::new(pid, topic, payload.to_vec().into()).into())
}

/// A connection that is accepted and then receives this.
fn connected(pieces: Vec<Vec<u8>>) -> Client<Script> {
    let mut to_client = VecDeque::from([connack(ConnectReturnCode::Accepted)]);
    to_client.extend(pieces);
    let script = Script {
        to_client,
        ..Script::default()
    };
    Client::connect(script, "gw-1").unwrap()
}

/// Everything that the client has sent.
fn sent(client: &mut Client<Script>) -> Vec<Packet> {
    let mut packets = Vec::new();
    while let Some(packet) = take_packet(&mut client.stream.from_client).unwrap() {
        packets.push(packet);
    }
    packets
}

fn refused(code: ConnectReturnCode) -> Failure {
    let script = Script {
        to_client: VecDeque::from([connack(code)]),
        ..Script::default()
    };
    Client::connect(script, "gw-1").err().unwrap()
}

#[test]
fn a_refusal_a_closing_and_a_busy_broker_are_told_apart() {
    use ConnectReturnCode::{NotAuthorized, ServerUnavailable};
    assert!(matches!(refused(NotAuthorized), Failure::Refused(_)));
    assert!(matches!(refused(ServerUnavailable), Failure::Failed(_)));
    let closed = Client::connect(Script::default(), "gw-1").err().unwrap();
    assert!(matches!(closed, Failure::Closed(_)));
}

#[test]
fn an_answer_is_found_among_other_messages_and_all_are_acknowledged() {
    let accepted = format!("{TOPIC}/accepted");
    let mut client = connected(vec![
        message("some/other/topic", b"x", 1),
        bytes(Packet::Puback(Pid::default())),
        message(TOPIC, b"our own", 2),
        message(&accepted, b"yes", 3),
        message(&accepted, b"yes", 3),
    ]);
    let answer = client.request(TOPIC, b"{}", "asking").unwrap();
    assert_eq!(answer, Answer::Accepted(b"yes".to_vec().into()));
    let acknowledged: Vec<u16> = sent(&mut client)
        .iter()
        .filter_map(|packet| match packet {
            Packet::Puback(pid) => Some(pid.value()),
            _ => None,
        })
        .collect();
    assert_eq!(acknowledged, [1, 2, 3]);
    // A repeated message is not the answer to the next request.
    let error = client.request("other", b"{}", "asking again").unwrap_err();
    assert!(matches!(error, Failure::Closed(_)));
    let error = Error::from(error);
    assert_eq!(error.kind, ErrorKind::Waiting);
}

#[test]
fn answers_come_in_any_pieces() {
    let mut stream = message(&format!("{TOPIC}/rejected"), &[b'x'; 9000], 7);
    stream.extend(bytes(Packet::Pingresp));
    for size in [1, 2, 5, 4096] {
        let pieces = stream.chunks(size).map(<[u8]>::to_vec).collect();
        let mut client = connected(pieces);
        let answer = client.request(TOPIC, b"{}", "asking").unwrap();
        assert_eq!(answer, Answer::Rejected(vec![b'x'; 9000]), "{size}");
    }
}

#[test]
fn a_subscription_counts_when_all_of_it_is_granted() {
    use SubscribeReturnCode::{Failure, MaxLevel1};
    let topics = ["a".to_owned(), "b".to_owned()];
    let granted = |codes: Vec<SubscribeReturnCode>, pid: u16| {
        let suback = Suback::new(Pid::try_from(pid).unwrap(), codes);
        connected(vec![bytes(suback.into())]).subscribe(&topics)
    };
    assert!(granted(vec![MaxLevel1, MaxLevel1], 2).is_ok());
    assert!(granted(vec![MaxLevel1, Failure], 2).is_err());
    assert!(granted(vec![MaxLevel1], 2).is_err());
    assert!(granted(vec![MaxLevel1, MaxLevel1], 9).is_err());
}

#[test]
fn what_is_too_large_or_not_mqtt_is_refused_before_it_is_read() {
    // PUBLISH, remaining length 2^28 - 1 (§2.2.3).
    let gigantic = vec![0x32, 0xFF, 0xFF, 0xFF, 0x7F];
    // A remaining length of five bytes, a reserved packet type, QoS 3, a topic that is longer than its packet.
    let malformed: [&[u8]; 4] = [
        &[0x32, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
        &[0xF0, 0x00],
        &[0x36, 0x03, 0x00, 0x01, b'a'],
        &[0x32, 0x03, 0x00, 0x09, b'a'],
    ];
    for bytes in malformed.map(<[u8]>::to_vec).into_iter().chain([gigantic]) {
        let mut client = connected(vec![bytes.clone()]);
        let error = client.request(TOPIC, b"{}", "asking").unwrap_err();
        let error = Error::from(error);
        assert_eq!(error.kind, ErrorKind::Other, "{bytes:?}: {error}");
    }
}
