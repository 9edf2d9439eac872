//! The commands of the TPM library: code, name and number of handles.
//!
//! Codes and names: TCG TPM 2.0 Library Part 2, §6.5.2, table "TPM_CC". Numbers of handles: each command's handle area
//! in Part 3, as libtpms 0.9.2 reports it in TPMA_CC.cHandles (Part 2, §8.9).

pub const EVICT_CONTROL: u32 = 0x120;
pub const CLEAR: u32 = 0x126;
pub const NV_DEFINE_SPACE: u32 = 0x12A;
pub const CREATE_PRIMARY: u32 = 0x131;
pub const NV_EXTEND: u32 = 0x136;
pub const NV_WRITE: u32 = 0x137;
pub const DICTIONARY_ATTACK_PARAMETERS: u32 = 0x13A;
pub const SEQUENCE_COMPLETE: u32 = 0x13E;
pub const SELF_TEST: u32 = 0x143;
pub const NV_READ: u32 = 0x14E;
pub const CREATE: u32 = 0x153;
pub const HMAC: u32 = 0x155;
pub const IMPORT: u32 = 0x156;
pub const LOAD: u32 = 0x157;
pub const RSA_DECRYPT: u32 = 0x159;
pub const HMAC_START: u32 = 0x15B;
pub const SIGN: u32 = 0x15D;
pub const UNSEAL: u32 = 0x15E;
pub const CONTEXT_LOAD: u32 = 0x161;
pub const CONTEXT_SAVE: u32 = 0x162;
pub const FLUSH_CONTEXT: u32 = 0x165;
pub const LOAD_EXTERNAL: u32 = 0x167;
pub const NV_READ_PUBLIC: u32 = 0x169;
pub const READ_PUBLIC: u32 = 0x173;
pub const START_AUTH_SESSION: u32 = 0x176;
pub const VERIFY_SIGNATURE: u32 = 0x177;
pub const GET_CAPABILITY: u32 = 0x17A;
pub const GET_RANDOM: u32 = 0x17B;
pub const HASH: u32 = 0x17D;
pub const PCR_EXTEND: u32 = 0x182;
pub const HASH_SEQUENCE_START: u32 = 0x186;
pub const TEST_PARMS: u32 = 0x18A;
pub const CREATE_LOADED: u32 = 0x191;

/// A command's name in Part 2, without `TPM_CC_`.
pub fn name(code: u32) -> &'static str {
    find(code).map_or("unknown", |(_, name, _)| name)
}

/// The number of handles in the command's handle area.
pub fn handle_count(code: u32) -> usize {
    find(code).map_or(0, |(_, _, handles)| handles)
}

fn find(code: u32) -> Option<(u32, &'static str, usize)> {
    let at = COMMANDS
        .binary_search_by_key(&code, |&(code, _, _)| code)
        .ok()?;
    Some(COMMANDS[at])
}

/// Sorted by code.
const COMMANDS: &[(u32, &str, usize)] = &[
    (0x11F, "NV_UndefineSpaceSpecial", 2),
    (0x120, "EvictControl", 2),
    (0x121, "HierarchyControl", 1),
    (0x122, "NV_UndefineSpace", 2),
    (0x124, "ChangeEPS", 1),
    (0x125, "ChangePPS", 1),
    (0x126, "Clear", 1),
    (0x127, "ClearControl", 1),
    (0x128, "ClockSet", 1),
    (0x129, "HierarchyChangeAuth", 1),
    (0x12A, "NV_DefineSpace", 1),
    (0x12B, "PCR_Allocate", 1),
    (0x12C, "PCR_SetAuthPolicy", 1),
    (0x12D, "PP_Commands", 1),
    (0x12E, "SetPrimaryPolicy", 1),
    (0x130, "ClockRateAdjust", 1),
    (0x131, "CreatePrimary", 1),
    (0x132, "NV_GlobalWriteLock", 1),
    (0x133, "GetCommandAuditDigest", 2),
    (0x134, "NV_Increment", 2),
    (0x135, "NV_SetBits", 2),
    (0x136, "NV_Extend", 2),
    (0x137, "NV_Write", 2),
    (0x138, "NV_WriteLock", 2),
    (0x139, "DictionaryAttackLockReset", 1),
    (0x13A, "DictionaryAttackParameters", 1),
    (0x13B, "NV_ChangeAuth", 1),
    (0x13C, "PCR_Event", 1),
    (0x13D, "PCR_Reset", 1),
    (0x13E, "SequenceComplete", 1),
    (0x13F, "SetAlgorithmSet", 1),
    (0x140, "SetCommandCodeAuditStatus", 1),
    (0x142, "IncrementalSelfTest", 0),
    (0x143, "SelfTest", 0),
    (0x144, "Startup", 0),
    (0x145, "Shutdown", 0),
    (0x146, "StirRandom", 0),
    (0x147, "ActivateCredential", 2),
    (0x148, "Certify", 2),
    (0x149, "PolicyNV", 3),
    (0x14A, "CertifyCreation", 2),
    (0x14B, "Duplicate", 2),
    (0x14C, "GetTime", 2),
    (0x14D, "GetSessionAuditDigest", 3),
    (0x14E, "NV_Read", 2),
    (0x14F, "NV_ReadLock", 2),
    (0x150, "ObjectChangeAuth", 2),
    (0x151, "PolicySecret", 2),
    (0x152, "Rewrap", 2),
    (0x153, "Create", 1),
    (0x154, "ECDH_ZGen", 1),
    (0x155, "HMAC", 1),
    (0x156, "Import", 1),
    (0x157, "Load", 1),
    (0x158, "Quote", 1),
    (0x159, "RSA_Decrypt", 1),
    (0x15B, "HMAC_Start", 1),
    (0x15C, "SequenceUpdate", 1),
    (0x15D, "Sign", 1),
    (0x15E, "Unseal", 1),
    (0x160, "PolicySigned", 2),
    (0x161, "ContextLoad", 0),
    (0x162, "ContextSave", 1),
    (0x163, "ECDH_KeyGen", 1),
    (0x164, "EncryptDecrypt", 1),
    (0x165, "FlushContext", 0),
    (0x167, "LoadExternal", 0),
    (0x168, "MakeCredential", 1),
    (0x169, "NV_ReadPublic", 1),
    (0x16A, "PolicyAuthorize", 1),
    (0x16B, "PolicyAuthValue", 1),
    (0x16C, "PolicyCommandCode", 1),
    (0x16D, "PolicyCounterTimer", 1),
    (0x16E, "PolicyCpHash", 1),
    (0x16F, "PolicyLocality", 1),
    (0x170, "PolicyNameHash", 1),
    (0x171, "PolicyOR", 1),
    (0x172, "PolicyTicket", 1),
    (0x173, "ReadPublic", 1),
    (0x174, "RSA_Encrypt", 1),
    (0x176, "StartAuthSession", 2),
    (0x177, "VerifySignature", 1),
    (0x178, "ECC_Parameters", 0),
    (0x17A, "GetCapability", 0),
    (0x17B, "GetRandom", 0),
    (0x17C, "GetTestResult", 0),
    (0x17D, "Hash", 0),
    (0x17E, "PCR_Read", 0),
    (0x17F, "PolicyPCR", 1),
    (0x180, "PolicyRestart", 1),
    (0x181, "ReadClock", 0),
    (0x182, "PCR_Extend", 1),
    (0x183, "PCR_SetAuthValue", 1),
    (0x184, "NV_Certify", 3),
    (0x185, "EventSequenceComplete", 2),
    (0x186, "HashSequenceStart", 0),
    (0x187, "PolicyPhysicalPresence", 1),
    (0x188, "PolicyDuplicationSelect", 1),
    (0x189, "PolicyGetDigest", 1),
    (0x18A, "TestParms", 0),
    (0x18B, "Commit", 1),
    (0x18C, "PolicyPassword", 1),
    (0x18D, "ZGen_2Phase", 1),
    (0x18E, "EC_Ephemeral", 0),
    (0x18F, "PolicyNvWritten", 1),
    (0x190, "PolicyTemplate", 1),
    (0x191, "CreateLoaded", 1),
    (0x192, "PolicyAuthorizeNV", 3),
    (0x193, "EncryptDecrypt2", 1),
];
