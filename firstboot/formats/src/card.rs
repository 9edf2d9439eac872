//! The card: device and station exchange files in the folder `firstboot/` on the FAT partition.

/// Maximum size of a file with a certificate chain or root certificates, bytes.
pub const MAX_CERTIFICATE: usize = 64 * 1024;
