//! The real software TPM behind the proxy.
//!
//! The proxy asks it whenever a limit or a latency depends on the TPM's state, instead of keeping a copy of that state,
//! which a power cut could make wrong.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};

use anyhow::{Context, Result, bail};

use super::{codes, wire};
use wire::Fields;

/// TPM_CAP_TPM_PROPERTIES: TPM 2.0 Part 2, §6.12, table "TPM_CAP".
const CAP_TPM_PROPERTIES: u32 = 6;
/// TPM_CAP_HANDLES, same table.
const CAP_HANDLES: u32 = 1;

/// The loopback ports of a software TPM (`swtpm socket --server … --ctrl …`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub data: u16,
    pub control: u16,
}

impl Upstream {
    /// The data port; the control channel is on the next one, where the TCTI expects it.
    pub fn at(data: u16) -> Self {
        Self {
            data,
            control: data + 1,
        }
    }

    /// Sends one command and returns the response. Makes a connection for each command, as the swtpm TCTI does: swtpm
    /// serves one client at a time, and a test may bypass the proxy.
    pub fn exchange(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = connect(self.data)?;
        stream.write_all(command)?;
        wire::read_frame(&mut stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The handles and parameters of a command's response. Fails unless the command succeeds.
    pub fn run(&self, code: u32, command: &[u8]) -> Result<Vec<u8>> {
        let name = codes::name(code);
        let response = self
            .exchange(command)
            .with_context(|| format!("TPM2_{name} to the software TPM on port {}", self.data))?;
        match wire::response_code(&response) {
            Some(0) => Ok(response[10..].to_vec()),
            other => bail!("TPM2_{name}: the software TPM answers {other:#X?}"),
        }
    }

    /// The value of one property, Part 2 §6.13, table "TPM_PT".
    pub fn property(&self, property: u32) -> Result<u32> {
        let properties = self.properties(property, 1)?;
        match properties.first() {
            Some(&(found, value)) if found == property => Ok(value),
            _ => bail!("the software TPM has no property {property:#X}"),
        }
    }

    /// At most `count` properties from `first` on, of the same group.
    pub fn properties(&self, first: u32, count: u32) -> Result<Vec<(u32, u32)>> {
        let data = self.capability(CAP_TPM_PROPERTIES, first, count)?;
        let pairs = data.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        Ok(pairs.collect())
    }

    /// All handles in use from `first` on, of the same type.
    pub fn handles(&self, first: u32) -> Result<Vec<u32>> {
        self.capability(CAP_HANDLES, first, 0xFF)
    }

    /// TPMI_ALG_PUBLIC of a loaded or persistent object; `None` if there is no such object.
    pub fn object_type(&self, handle: u32) -> Option<u16> {
        let command = wire::command(codes::READ_PUBLIC, &[handle], None, &[]);
        let parameters = self.run(codes::READ_PUBLIC, &command).ok()?;
        Fields(Fields(&parameters).tpm2b()?).u16()
    }

    /// The list of a capability that consists of 32-bit words.
    fn capability(&self, capability: u32, first: u32, count: u32) -> Result<Vec<u32>> {
        let parameters = [capability, first, count].map(u32::to_be_bytes).concat();
        let command = wire::command(codes::GET_CAPABILITY, &[], None, &parameters);
        let data = self.run(codes::GET_CAPABILITY, &command)?;
        // moreData (1), capability (4), count (4)
        let list = data.get(9..).context("a capability without a list")?;
        let words = list.chunks_exact(4).map(|word| {
            let word: [u8; 4] = word.try_into().unwrap_or_default();
            u32::from_be_bytes(word)
        });
        Ok(words.collect())
    }
}

pub fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
