//! OpenSSL without libssl: rustls does TLS here, and libssl was loaded for only one function. That took 0.9 of the 7.3
//! million instructions of a start (`firstboot --version` in valgrind, OpenSSL 3.0).
//!
//! It is also the first library that the program names. The dynamic linker goes through the libraries in this order for
//! each symbol, and most symbols are libcrypto's own: 0.5 million instructions less than after five others.
//!
//! A part of the program, not of its library: other users of the library keep libssl's function.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

#[link(name = "crypto")]
unsafe extern "C" {
    fn OPENSSL_init_crypto(options: u64, settings: *const c_void) -> c_int;
}

/// The crate openssl-sys calls this before anything else, in place of libssl's function of that name. libssl's would
/// also load its own messages, and the configuration at once (OPENSSL_init_ssl(3)), which OpenSSL 3 otherwise loads
/// when it first needs it.
#[unsafe(no_mangle)]
extern "C" fn OPENSSL_init_ssl(options: u64, settings: *const c_void) -> c_int {
    // SAFETY: the arguments mean the same to both (OPENSSL_init_crypto(3)).
    unsafe { OPENSSL_init_crypto(options, settings) }
}

// Only for this program: if a dependency of the PKCS#11 library loads libssl, it keeps its own function.
std::arch::global_asm!(".hidden OPENSSL_init_ssl");
