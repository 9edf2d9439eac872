//! OpenSSL without libssl: TLS is rustls's here, and one function was all that libssl was loaded for, at each boot.

use std::ffi::{c_int, c_void};

unsafe extern "C" {
    fn OPENSSL_init_crypto(options: u64, settings: *const c_void) -> c_int;
}

/// What the crate openssl-sys calls before anything else, in place of libssl's function of that name, which does the
/// same and loads libssl's own messages (OPENSSL_init_ssl(3)).
#[unsafe(no_mangle)]
extern "C" fn OPENSSL_init_ssl(options: u64, settings: *const c_void) -> c_int {
    // SAFETY: the arguments mean the same to both (OPENSSL_init_crypto(3)).
    unsafe { OPENSSL_init_crypto(options, settings) }
}

// For this program alone: should a library that the token's depends on bring libssl, that keeps its own.
std::arch::global_asm!(".hidden OPENSSL_init_ssl");
