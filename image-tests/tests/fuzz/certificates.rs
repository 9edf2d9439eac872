//! Certificates on the boot partition: only the device's own are accepted, and they are kept unchanged.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use ::openssl::pkey::PKey;
use ::openssl::x509::X509;
use anyhow::{Context, Result};
use firstboot_formats::clock::Clock;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::x509::{Chain, Request, Verdict};
use image_tests::clients::openssl;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::process::succeed;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::{Checked, Else, assert_printable, cases, damage, damaged};

const THING: &str = "gateway-1";

/// A device's key, and certificates for it, in PEM.
struct Fixture {
    key: PublicKey,
    leaf: String,
    /// The leaf, then the intermediate CA that issued it.
    chain: String,
    /// Blocks that a file may contain: the above, an expired one, another key's, a root, and other kinds of PEM.
    blocks: Vec<String>,
}

static FIXTURE: LazyLock<Result<Fixture>> = LazyLock::new(|| {
    let directory = tempfile::tempdir()?;
    let [request, key] = ["request.pem", "key.pem"].map(|name| directory.path().join(name));
    let curve = "ec_paramgen_curve:P-256";
    let subject = format!("/CN={THING}");
    let mut make = openssl::plain(&["req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes"]);
    make.args(["-config", "/dev/null", "-subj", &subject, "-out"]);
    succeed(make.arg(&request).arg("-keyout").arg(&key))?;

    let authority = Authority::new()?;
    let leaf = authority.sign(&request)?;
    let chain = authority.sign_by_intermediate(&request)?;
    let mut blocks = vec![leaf.clone(), fs::read_to_string(&key)?];
    let (signed, intermediate) = chain.split_at(chain.rfind("-----BEGIN").context("no chain")?);
    blocks.extend([signed.to_owned(), intermediate.to_owned()]);
    blocks.push(authority.sign_valid(&request, Validity::Expired)?);
    blocks.push(authority.certificate_of_another_key(THING)?);
    blocks.push(authority.certificate_pem()?);
    blocks.push(fs::read_to_string(&request)?);
    blocks.push("Subject: text around it is fine\r\n".to_owned());
    Ok(Fixture {
        key: Request::parse(&fs::read(&request)?)?.public_key()?,
        leaf,
        chain,
        blocks,
    })
});

fn fixture() -> Checked<&'static Fixture> {
    FIXTURE.as_ref().or_fail()
}

/// In 2024, when the authority's certificates are valid.
const CLOCK: Clock = Clock {
    now: Duration::from_secs(1_704_067_200),
    synchronised: true,
};

/// Reads this file: a chain, or a reason for the operator. Returns whether the device would accept it.
fn judge(fixture: &Fixture, pem: &[u8]) -> Checked<bool> {
    let chain = match Chain::parse(pem, &fixture.key, &[]) {
        Ok(chain) => chain,
        Err(why) => {
            assert_printable(&why)?;
            return Ok(false);
        }
    };
    assert_printable(&chain.describe())?;
    // Written and read again it is the same, and made of certificates that were there, byte for byte: a
    // signature is only good for those.
    let written = chain.pem();
    prop_assert_eq!(Chain::stored(written.as_bytes()), Some(chain.clone()));
    prop_assert!(chain.is_all_of(written.as_bytes()));
    let again = Chain::parse(written.as_bytes(), &fixture.key, &[]);
    prop_assert_eq!(again, Ok(chain.clone()));
    let given = certificates(pem);
    for certificate in certificates(written.as_bytes()) {
        prop_assert!(given.contains(&certificate), "a certificate was changed");
    }
    let (leaf, _) = chain.objects();
    match chain.check(&fixture.key, THING, CLOCK) {
        Verdict::Bad(why) => {
            assert_printable(&why)?;
            Ok(false)
        }
        Verdict::Good | Verdict::GoodBut(_) => {
            // The same key, whatever the form of its point: as OpenSSL, which will use it, reads both.
            let key = PKey::public_key_from_der(fixture.key.spki()).or_fail()?;
            let certified = X509::from_der(&leaf.value).and_then(|leaf| leaf.public_key());
            let has_key = certified.or_fail()?.public_eq(&key);
            prop_assert!(has_key, "accepted with another key");
            prop_assert!(
                chain
                    .common_name()
                    .is_none_or(|n| n == THING || n == "AWS IoT Certificate")
            );
            Ok(true)
        }
    }
}

/// The DER of all certificates in a text, even of those whose end shares its dashes with what follows.
fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let text = String::from_utf8_lossy(pem);
    text.match_indices(BEGIN)
        .filter_map(|(at, _)| text[at + BEGIN.len()..].split_once("-----END CERTIFICATE-----"))
        .map(|(body, _)| base64(body))
        .collect()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0u32, 0);
    let digits = text
        .bytes()
        .filter_map(|b| DIGITS.iter().position(|d| *d == b));
    for digit in digits {
        bits = bits << 6 | digit as u32;
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    bytes
}

#[test]
fn valid_ones_are_accepted() -> Checked {
    let fixture = fixture()?;
    assert!(judge(fixture, fixture.leaf.as_bytes())?);
    assert!(judge(fixture, fixture.chain.as_bytes())?);
    Ok(())
}

#[test]
fn any_bytes_get_a_verdict() -> Checked {
    let fixture = fixture()?;
    proptest!(cases(300), |(content in vec(any::<u8>(), 0..200), wrapped: bool)| {
        let text = String::from_utf8_lossy(&content);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        judge(fixture, if wrapped { pem.as_bytes() } else { &content })?;
    });
    Ok(())
}

#[test]
fn blocks_in_any_order_get_a_verdict() -> Checked {
    let fixture = fixture()?;
    let blocks = vec((select(fixture.blocks.clone()), any::<bool>()), 0..6);
    proptest!(cases(500), |(blocks in blocks)| {
        let text = blocks.into_iter().map(|(block, crlf)| {
            if crlf { block.replace('\n', "\r\n") } else { block }
        });
        judge(fixture, text.collect::<String>().as_bytes())?;
    });
    Ok(())
}

#[test]
fn damaged_text_gets_a_verdict() -> Checked {
    let fixture = fixture()?;
    proptest!(cases(700), |(damage in damage(), long: bool)| {
        let pem = if long { &fixture.chain } else { &fixture.leaf };
        judge(fixture, &damaged(pem.as_bytes(), &damage))?;
    });
    Ok(())
}

/// Changes base64 digits: the damage is in the certificate, not around it.
#[test]
fn damaged_certificates_get_a_verdict() -> Checked {
    let fixture = fixture()?;
    let changes = vec((any::<Index>(), "[A-Za-z0-9+/]"), 1..4);
    proptest!(cases(3000), |(changes in changes, long: bool)| {
        let mut pem = if long { fixture.chain.clone() } else { fixture.leaf.clone() }.into_bytes();
        let body = pem.iter().position(|b| *b == b'\n').unwrap_or(0);
        for (place, digit) in changes {
            let at = body + place.index(pem.len() - body - 26);
            if pem[at].is_ascii_alphanumeric() {
                pem[at] = digit.as_bytes()[0];
            }
        }
        judge(fixture, &pem)?;
    });
    Ok(())
}

/// A text means the same in each form that editors, shells and tools write.
#[test]
fn each_form_is_judged_alike() -> Checked {
    let fixture = fixture()?;
    let blocks = vec(select(fixture.blocks.clone()), 0..5);
    proptest!(cases(300), |(blocks in blocks, form in 0..5)| {
        let text = blocks.concat();
        let units = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{FEFF}{text}").encode_utf16().flat_map(bytes).collect()
        };
        let content = match form {
            0 => units(u16::to_le_bytes),
            1 => units(u16::to_be_bytes),
            2 => format!("\u{FEFF}{text}").into_bytes(),
            3 => text.replace('\n', "\\n").into_bytes(),
            _ => text.replace("-----\n-----", "----------").into_bytes(),
        };
        let parse = |content: &[u8]| Chain::parse(content, &fixture.key, &[]).ok();
        prop_assert_eq!(parse(&content), parse(text.as_bytes()));
    });
    Ok(())
}

/// Parts of one certificate in another.
#[test]
fn spliced_certificates_get_a_verdict() -> Checked {
    let fixture = fixture()?;
    let block = || select(fixture.blocks.clone());
    proptest!(cases(700), |(one in block(), other in block(), at: Index, from: Index)| {
        let mut pem = one.as_bytes()[..at.index(one.len())].to_vec();
        pem.extend(&other.as_bytes()[from.index(other.len())..]);
        judge(fixture, &pem)?;
    });
    Ok(())
}

/// One certificate after another, joined within the last lines of the first.
#[test]
fn joined_certificates_get_a_verdict() -> Checked {
    let fixture = fixture()?;
    for (one, other) in fixture.blocks.iter().zip(fixture.blocks.iter().rev()) {
        for at in one.len().saturating_sub(60)..=one.len() {
            judge(fixture, format!("{}{other}", &one[..at]).as_bytes())?;
        }
    }
    Ok(())
}

/// As large as the limit allows.
#[test]
fn the_worst_files_within_the_limit_get_a_verdict() -> Checked {
    let fixture = fixture()?;
    let intermediate = &fixture.blocks[3];
    let many = intermediate.repeat(64 * 1024 / intermediate.len());
    judge(fixture, format!("{}{many}", fixture.leaf).as_bytes())?;
    for unit in [
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "\n",
        "MIIB",
    ] {
        let many = unit.repeat(64 * 1024 / unit.len());
        judge(fixture, many.as_bytes())?;
        let whole = format!("-----BEGIN CERTIFICATE-----\n{many}\n-----END CERTIFICATE-----\n");
        judge(fixture, whole.as_bytes())?;
    }
    Ok(())
}
