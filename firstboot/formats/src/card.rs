//! The card: what device and station exchange lies on the FAT partition, in the folder `firstboot/`.

/// A certificate chain or a root certificate may have this many bytes.
pub const MAX_CERTIFICATE: usize = 64 * 1024;
