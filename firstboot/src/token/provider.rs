//! OpenSSL's way to the token: pkcs11-provider.

use std::path::Path;

use super::{OBJECT_LABEL, TOKEN_LABEL};

/// The PKCS#11 URI (RFC 7512) of our private key, for those who look for it in the token by its label.
pub fn key_uri() -> String {
    format!("pkcs11:token={TOKEN_LABEL};object={OBJECT_LABEL};type=private")
}

/// The OpenSSL configuration of `whose` programs (config(5ossl), provider-pkcs11(7)): `default` stays active, for keys
/// in files. The PIN is in a file of the identity, which has this directory.
pub fn openssl_configuration(
    whose: &str,
    provider: &Path,
    module: &Path,
    identity: &str,
) -> String {
    format!(
        "\
# Written by firstboot: {whose} reaches the TPM's key through this.
openssl_conf = openssl_init

[openssl_init]
providers = provider_sect

[provider_sect]
default = default_sect
pkcs11 = pkcs11_sect

[default_sect]
activate = 1

[pkcs11_sect]
module = {provider}
pkcs11-module-path = {module}
pkcs11-module-token-pin = file:{identity}/pin
activate = 1
",
        provider = provider.display(),
        module = module.display(),
    )
}
