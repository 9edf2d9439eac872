//! EST: what a server answers, the password on the boot partition, and the file kept of a request.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use firstboot::boot_partition::BootPartition;
use firstboot::enrollment::claim;
use firstboot::enrollment::est::answers;
use firstboot::enrollment::est::http::{self, Answer, Trouble};
use firstboot::enrollment::network::Stream;
use firstboot::error::{Error, ErrorKind};
use firstboot::identity::{EstAnswer, Identity};
use firstboot::layout::IDENTITY;
use image_tests::clients::openssl;
use image_tests::process::succeed;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use crate::{Checked, Else, Tree, any_json, assert_printable, cases, damage, damaged};

/// A server that sends these bytes, whatever it is sent.
struct Script<'a>(&'a [u8]);

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.len().min(buffer.len());
        let (now, later) = self.0.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.0 = later;
        Ok(n)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Script<'_> {
    fn until(&mut self, _deadline: Instant) {}
}

fn exchange(answer: &[u8]) -> Result<Answer, Trouble> {
    let mut request = ::http::Request::new(());
    *request.uri_mut() = ::http::Uri::from_static("https://ca.example/.well-known/est/cacerts");
    http::exchange(&mut Script(answer), request, b"", Instant::now())
}

/// An answer is understood, as far as it is one, or refused with a reason. Returns whether there were certificates in it.
fn judge(bytes: &[u8]) -> Checked<bool> {
    let answer = match exchange(bytes) {
        Ok(answer) => answer,
        Err(Trouble::Malformed(why)) => {
            assert_printable(&Error::other(why).to_string())?;
            return Ok(false);
        }
        Err(Trouble::Io(_)) => return Ok(false),
    };
    answers::retry_after(&answer.headers, Duration::from_secs(1));
    match answers::certificates(&answer) {
        Ok(pem) => {
            prop_assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{}", pem);
            Ok(true)
        }
        Err(why) => {
            assert_printable(&Error::other(why).to_string())?;
            Ok(false)
        }
    }
}

/// As a server sends it: by its length, and in chunks.
fn answers_with_certificates() -> Checked<[Vec<u8>; 2]> {
    let amazon = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../firstboot/conf/AmazonTrustServices.pem"
    );
    let mut make = openssl::plain(&["crl2pkcs7", "-nocrl", "-certfile", amazon]);
    let pem = succeed(&mut make).or_fail()?;
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with('-'))
        .flat_map(|l| [l, "\n"])
        .collect();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime\r\nRetry-After: 7\r\n";
    let length = body.len();
    Ok([
        format!("{head}Content-Length: {length}\r\n\r\n{body}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
    ]
    .map(String::into_bytes))
}

#[test]
fn answers_of_a_server() -> Checked {
    let valid = answers_with_certificates()?;
    for answer in &valid {
        prop_assert!(judge(answer)?);
    }
    proptest!(cases(600), |(which in 0..2usize, damage in damage())| {
        judge(&damaged(&valid[which], &damage))?;
    });
    // In the head alone, where most of the bytes have a meaning.
    proptest!(cases(600), |(which in 0..2usize, damage in damage())| {
        let (head, body) = valid[which].split_at(110);
        judge(&[damaged(head, &damage), body.to_vec()].concat())?;
    });
    proptest!(cases(300), |(bytes in vec(any::<u8>(), 0..200))| {
        judge(&bytes)?;
        judge(&[&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat())?;
        judge(&[&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &bytes].concat())?;
    });
    for status in 0..1000 {
        judge(format!("HTTP/1.1 {status:03} x\r\n\r\n").as_bytes())?;
    }
    Ok(())
}

#[test]
fn passwords() -> Checked {
    let tree = Tree::new()?;
    let boot = BootPartition::new(&tree.layout);
    let judge = |content: &[u8]| -> Checked {
        tree.write("/boot/firstboot/claim.password", content)?;
        match claim::password(&boot) {
            Ok(password) => {
                let password = password.ok_or_else(|| TestCaseError::fail("no file"))?;
                prop_assert!(!password.is_empty() && !password.contains(char::is_control));
            }
            Err(e) => {
                prop_assert_eq!(e.kind, ErrorKind::Settings);
                assert_printable(&e.to_string())?;
            }
        }
        Ok(())
    };
    proptest!(cases(300), |(content in vec(any::<u8>(), 0..60))| judge(&content)?);
    proptest!(cases(300), |(content in "\\PC{0,40}\r?\n?")| judge(content.as_bytes())?);
    Ok(())
}

#[test]
fn the_kept_file() -> Checked {
    let tree = Tree::new()?;
    let identity = Identity::new(&tree.layout, PathBuf::from("/none"), "none", None);
    let kept = json!({
        "about": "ab",
        "circumstances": "ca.example/ none",
        "at": 10,
        "again": 20,
        "unusable": 1,
        "answer": { "certificates": "-----BEGIN CERTIFICATE-----\n" },
    });
    let judge = |content: &[u8]| -> Checked<bool> {
        tree.write(&format!("{IDENTITY}/est.json"), content)?;
        let mut note = identity.est_note().unwrap_or_default();
        let now = Duration::from_secs(15);
        let again = note.again_after(now);
        note.answered(EstAnswer::Unreadable("html".into()), false, now);
        prop_assert!(note.again_after(now).is_some());
        Ok(again == Some(Duration::from_secs(20)))
    };
    let kept = kept.to_string();
    prop_assert!(judge(kept.as_bytes())?);
    proptest!(cases(300), |(damage in damage())| {
        judge(&damaged(kept.as_bytes(), &damage))?;
    });
    proptest!(cases(200), |(content in any_json())| {
        judge(content.to_string().as_bytes())?;
    });
    Ok(())
}
