//! OpenSSL without libssl: TLS is rustls's here, and one function was all that libssl was loaded for. That took 0.9 of the
//! 7.3 million instructions of a start (`firstboot --version` in valgrind, OpenSSL 3.0).
//!
//! A part of the program, not of its library: what else is built on that keeps libssl's function.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

unsafe extern "C" {
    fn OPENSSL_init_crypto(options: u64, settings: *const c_void) -> c_int;
}

/// What the crate openssl-sys calls before anything else, in place of libssl's function of that name. libssl's would also
/// load its own messages, and the configuration at once (OPENSSL_init_ssl(3)); OpenSSL 3 loads that when it first
/// needs it.
#[unsafe(no_mangle)]
extern "C" fn OPENSSL_init_ssl(options: u64, settings: *const c_void) -> c_int {
    // SAFETY: the arguments mean the same to both (OPENSSL_init_crypto(3)).
    unsafe { OPENSSL_init_crypto(options, settings) }
}

// For this program alone: should a library that the token's depends on bring libssl, that keeps its own.
std::arch::global_asm!(".hidden OPENSSL_init_ssl");
