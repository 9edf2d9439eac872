//! What real chips report, read out of crocs-muni/tpmscan-dataset at 9522a3a.
//!
//! 7.63: `IFX/7.63.13.6400/c2526d443325f0e4/detail/Capability_*.txt`
//! 7.85: `IFX/7.85.17.51968/768d20d1e8288b3a/detail/Capability_*.txt`
//!
//! Property numbers: TPM 2.0 Part 2, §6.13, table "TPM_PT"; algorithms: §6.3; curves: §6.4.

use super::Firmware;

/// Properties that the model itself uses.
pub const NV_INDEX_MAX: u32 = 0x117;
pub const MAX_COMMAND_SIZE: u32 = 0x11E;
pub const MAX_DIGEST: u32 = 0x120;
pub const NV_BUFFER_MAX: u32 = 0x12C;
pub const HR_TRANSIENT_MIN: u32 = 0x10E;

/// PT_FIXED, sorted.
pub fn fixed_properties(firmware: Firmware) -> &'static [(u32, u32)] {
    match firmware {
        Firmware::V7_63 => &FIXED_7_63,
        Firmware::V7_85 => &FIXED_7_85,
    }
}

/// TPMA_CC of each command, sorted by code, the vendor's own command last.
pub fn commands(firmware: Firmware) -> impl Iterator<Item = u32> {
    let known = move |attributes: &u32| {
        firmware == Firmware::V7_85 || !ONLY_7_85.contains(&(attributes & 0xFFFF))
    };
    COMMANDS.iter().copied().filter(known)
}

/// Algorithm and TPMA_ALGORITHM (Part 2, §8.2), the same on every firmware.
pub const ALGORITHMS: [(u16, u32); 19] = [
    (0x01, 0x009), // rsa
    (0x04, 0x004), // sha1
    (0x05, 0x104), // hmac
    (0x06, 0x002), // aes
    (0x08, 0x30C), // keyedhash
    (0x0A, 0x006), // xor
    (0x0B, 0x004), // sha256
    (0x14, 0x101), // rsassa
    (0x15, 0x201), // rsaes
    (0x16, 0x101), // rsapss
    (0x17, 0x201), // oaep
    (0x18, 0x501), // ecdsa
    (0x19, 0x401), // ecdh
    (0x1A, 0x101), // ecdaa
    (0x20, 0x404), // kdf1_sp800_56a
    (0x22, 0x404), // kdf1_sp800_108
    (0x23, 0x009), // ecc
    (0x25, 0x008), // symcipher
    (0x43, 0x202), // cfb
];

/// NIST P-256 and BN P-256, the same on every firmware.
pub const CURVES: [u16; 2] = [0x03, 0x10];

/// HR_PERSISTENT_AVAIL of a chip without persistent objects and with the factory's two indices. It
/// shrinks with further indices, in no simple proportion.
pub fn empty_persistent_slots(firmware: Firmware) -> u32 {
    match firmware {
        Firmware::V7_63 => 0x12,
        Firmware::V7_85 => 0x0F,
    }
}

const FIXED_7_63: [(u32, u32); 44] = [
    (0x100, 0x322E3000), // FAMILY_INDICATOR
    (0x101, 0x0),        // LEVEL
    (0x102, 0x74),       // REVISION, shown as 1.16 there
    (0x103, 0x109),      // DAY_OF_YEAR
    (0x104, 0x7E0),      // YEAR
    (0x105, 0x49465800), // MANUFACTURER
    (0x106, 0x534C4239), // VENDOR_STRING_1
    (0x107, 0x36373000), // VENDOR_STRING_2
    (0x108, 0x0),        // VENDOR_STRING_3
    (0x109, 0x0),        // VENDOR_STRING_4
    (0x10A, 0x0),        // VENDOR_TPM_TYPE
    (0x10B, 0x7003F),    // FIRMWARE_VERSION_1
    (0x10C, 0xD1900),    // FIRMWARE_VERSION_2
    (0x10D, 0x400),      // INPUT_BUFFER
    (0x10E, 0x3),        // HR_TRANSIENT_MIN
    (0x10F, 0x7),        // HR_PERSISTENT_MIN
    (0x110, 0x3),        // HR_LOADED_MIN
    (0x111, 0x40),       // ACTIVE_SESSIONS_MAX
    (0x112, 0x18),       // PCR_COUNT
    (0x113, 0x3),        // PCR_SELECT_MIN
    (0x114, 0xFFFF),     // CONTEXT_GAP_MAX
    (0x116, 0x8),        // NV_COUNTERS_MAX
    (0x117, 0x680),      // NV_INDEX_MAX
    (0x118, 0x6),        // MEMORY
    (0x119, 0x4000),     // CLOCK_UPDATE
    (0x11A, 0xB),        // CONTEXT_HASH
    (0x11B, 0x6),        // CONTEXT_SYM
    (0x11C, 0x80),       // CONTEXT_SYM_SIZE
    (0x11D, 0xFF),       // ORDERLY_COUNT
    (0x11E, 0x500),      // MAX_COMMAND_SIZE
    (0x11F, 0x500),      // MAX_RESPONSE_SIZE
    (0x120, 0x20),       // MAX_DIGEST
    (0x121, 0x2B4),      // MAX_OBJECT_CONTEXT
    (0x122, 0x12D),      // MAX_SESSION_CONTEXT
    (0x123, 0x1),        // PS_FAMILY_INDICATOR
    (0x124, 0x0),        // PS_LEVEL
    (0x125, 0x100),      // PS_REVISION
    (0x126, 0x0),        // PS_DAY_OF_YEAR
    (0x127, 0x0),        // PS_YEAR
    (0x128, 0x80),       // SPLIT_MAX
    (0x129, 0x5A),       // TOTAL_COMMANDS
    (0x12A, 0x59),       // LIBRARY_COMMANDS
    (0x12B, 0x1),        // VENDOR_COMMANDS
    (0x12C, 0x300),      // NV_BUFFER_MAX
];

const FIXED_7_85: [(u32, u32); 45] = [
    (0x100, 0x322E3000), // FAMILY_INDICATOR
    (0x101, 0x0),        // LEVEL
    (0x102, 0x8A),       // REVISION
    (0x103, 0x8),        // DAY_OF_YEAR
    (0x104, 0x7E2),      // YEAR
    (0x105, 0x49465800), // MANUFACTURER
    (0x106, 0x534C4239), // VENDOR_STRING_1
    (0x107, 0x36373000), // VENDOR_STRING_2
    (0x108, 0x0),        // VENDOR_STRING_3
    (0x109, 0x0),        // VENDOR_STRING_4
    (0x10A, 0x0),        // VENDOR_TPM_TYPE
    (0x10B, 0x70055),    // FIRMWARE_VERSION_1
    (0x10C, 0x11CB00),   // FIRMWARE_VERSION_2
    (0x10D, 0x400),      // INPUT_BUFFER
    (0x10E, 0x4),        // HR_TRANSIENT_MIN
    (0x10F, 0x7),        // HR_PERSISTENT_MIN
    (0x110, 0x3),        // HR_LOADED_MIN
    (0x111, 0x40),       // ACTIVE_SESSIONS_MAX
    (0x112, 0x18),       // PCR_COUNT
    (0x113, 0x3),        // PCR_SELECT_MIN
    (0x114, 0xFFFF),     // CONTEXT_GAP_MAX
    (0x116, 0x8),        // NV_COUNTERS_MAX
    (0x117, 0x800),      // NV_INDEX_MAX
    (0x118, 0x6),        // MEMORY
    (0x119, 0x4000),     // CLOCK_UPDATE
    (0x11A, 0xB),        // CONTEXT_HASH
    (0x11B, 0x6),        // CONTEXT_SYM
    (0x11C, 0x80),       // CONTEXT_SYM_SIZE
    (0x11D, 0xFF),       // ORDERLY_COUNT
    (0x11E, 0x58C),      // MAX_COMMAND_SIZE
    (0x11F, 0x58C),      // MAX_RESPONSE_SIZE
    (0x120, 0x20),       // MAX_DIGEST
    (0x121, 0x38F),      // MAX_OBJECT_CONTEXT
    (0x122, 0x1EE),      // MAX_SESSION_CONTEXT
    (0x123, 0x1),        // PS_FAMILY_INDICATOR
    (0x124, 0x0),        // PS_LEVEL
    (0x125, 0x103),      // PS_REVISION
    (0x126, 0x0),        // PS_DAY_OF_YEAR
    (0x127, 0x0),        // PS_YEAR
    (0x128, 0x80),       // SPLIT_MAX
    (0x129, 0x61),       // TOTAL_COMMANDS
    (0x12A, 0x60),       // LIBRARY_COMMANDS
    (0x12B, 0x1),        // VENDOR_COMMANDS
    (0x12C, 0x300),      // NV_BUFFER_MAX
    (0x12D, 0x1),        // MODES
];

/// GetTime, NV_Certify, PolicyTemplate, CreateLoaded and PolicyAuthorizeNV came with 7.85, ChangeEPS
/// and ChangePPS with 7.83.
const ONLY_7_85: [u32; 7] = [0x124, 0x125, 0x14C, 0x184, 0x190, 0x191, 0x192];

/// All commands of 7.85.
#[rustfmt::skip]
const COMMANDS: [u32; 97] = [
    0x0440011F, 0x04400120, 0x02C00121, 0x04400122, 0x02C00124, 0x02C00125, 0x02C00126, 0x02400127,
    0x02400128, 0x02400129, 0x0240012A, 0x0240012B, 0x0240012E, 0x02000130, 0x12000131, 0x04400134,
    0x04400135, 0x04400136, 0x04400137, 0x04400138, 0x02400139, 0x0240013A, 0x0240013B, 0x0240013C,
    0x0240013D, 0x0300013E, 0x00400142, 0x00400143, 0x00400144, 0x00400145, 0x00400146, 0x04000147,
    0x04000148, 0x06000149, 0x0400014A, 0x0400014B, 0x0400014C, 0x0600014D, 0x0400014E, 0x0400014F,
    0x04000150, 0x04000151, 0x02000153, 0x02000154, 0x02000155, 0x02000156, 0x12000157, 0x02000158,
    0x02000159, 0x1200015B, 0x0200015C, 0x0200015D, 0x0200015E, 0x04000160, 0x10000161, 0x02000162,
    0x02000163, 0x00000165, 0x10000167, 0x02000168, 0x02000169, 0x0200016A, 0x0200016B, 0x0200016C,
    0x0200016D, 0x0200016E, 0x0200016F, 0x02000170, 0x02000171, 0x02000172, 0x02000173, 0x02000174,
    0x14000176, 0x02000177, 0x00000178, 0x0000017A, 0x0000017B, 0x0000017C, 0x0000017D, 0x0000017E,
    0x0200017F, 0x02000180, 0x00000181, 0x02400182, 0x06000184, 0x05400185, 0x10000186, 0x02000188,
    0x02000189, 0x0000018A, 0x0200018B, 0x0200018C, 0x0200018F, 0x02000190, 0x12000191, 0x06000192,
    0x2200012F,
];
