//! Every client uses a token and completes TLS with client authentication, or is refused if it should be.

use anyhow::Result;
use image_tests::clients::{KeyType, User, java, openssl, p11tool, pkcs11_tool};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::{TlsServer, Version};

use crate::token::{THING, Token};

#[test]
fn the_tools_list_and_sign_with_either_key() -> Result<()> {
    for key in KeyType::BOTH {
        let token = Token::new(key)?;
        assert_eq!(p11tool::list(&token.identity)?.len(), 2);
        p11tool::test_sign(&token.identity)?;
        assert_eq!(pkcs11_tool::slot(&token.identity)?, 1);
        assert!(pkcs11_tool::list(&token.identity)?.contains("greenkey"));
        pkcs11_tool::sign_and_verify(&token.identity)?;
    }
    Ok(())
}

#[test]
fn openssl_completes_tls() -> Result<()> {
    let token = Token::new(KeyType::EccP256)?;
    token.certify()?;
    for version in Version::BOTH {
        let server = TlsServer::start(&token.authority, version)?;
        assert!(!server.authenticated(THING));
        openssl::connect(
            &token.identity,
            &token.identity.uri("cert"),
            &token.openssl_conf()?,
            &server,
        )?;
        assert!(server.authenticated(THING), "{}", server.log());
        assert!(!server.authenticated("harness-0002"));
    }
    Ok(())
}

#[test]
fn java_completes_tls() -> Result<()> {
    let token = Token::new(KeyType::EccP256)?;
    token.certify()?;
    for version in Version::BOTH {
        let server = TlsServer::start(&token.authority, version)?;
        java::connect(&token.identity, &server)?;
        assert!(server.authenticated(THING), "{}", server.log());
    }
    Ok(())
}

#[test]
fn a_server_of_another_operator_accepts_nobody() -> Result<()> {
    let token = Token::new(KeyType::EccP256)?;
    token.certify()?;
    let other = Authority::new()?;
    for version in Version::BOTH {
        let server = TlsServer::start(&other, version)?;
        let connected = openssl::connect(
            &token.identity,
            &token.identity.uri("cert"),
            &token.openssl_conf()?,
            &server,
        );
        assert!(connected.is_err());
        assert!(java::connect(&token.identity, &server).is_err());
        assert!(!server.authenticated(THING));
    }
    Ok(())
}

#[test]
fn only_a_user_with_read_access_completes_tls() -> Result<()> {
    let root = nix::unistd::getuid().is_root();
    anyhow::ensure!(root, "only root can change its user: run this test as root");
    let (owner, other) = (64_001, 64_003);
    let mut token = Token::new(KeyType::EccP256)?;
    token.certify()?;
    let configuration = token.openssl_conf()?;
    let server = TlsServer::start(&token.authority, Version::Tls13)?;
    token.hand_over(User {
        uid: owner,
        gid: owner,
    })?;

    let mut identity = token.identity.clone();
    identity.user = Some(User {
        uid: other,
        gid: other,
    });
    assert!(openssl::connect(&identity, &identity.uri("cert"), &configuration, &server).is_err());
    assert!(!server.authenticated(THING));

    openssl::connect(
        &token.identity,
        &token.identity.uri("cert"),
        &configuration,
        &server,
    )?;
    assert!(server.authenticated(THING), "{}", server.log());
    Ok(())
}
