//! One connection through the relay, TLS record by TLS record.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use super::hello::Hello;
use super::relay::{Direction, Shared};
use crate::doubles::tpm_proxy::When;

/// Length of a record's header, bytes: type, version, length (RFC 8446 §5.1).
const HEADER: usize = 5;

pub fn serve(shared: &Shared, upstream: u16, device: TcpStream) -> io::Result<()> {
    {
        let mut state = shared.state();
        if !state.powered {
            return Ok(());
        }
        state.streams.push(device.try_clone()?);
        state.open += 1;
    }
    let result = pass(shared, upstream, &device);
    let mut state = shared.state();
    state.open -= 1;
    shared.changed.notify_all();
    result
}

fn pass(shared: &Shared, upstream: u16, device: &TcpStream) -> io::Result<()> {
    let cloud = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    device.set_nodelay(true)?;
    cloud.set_nodelay(true)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Even if the device is gone, read until the broker closes: by then it has handled everything.
            let _ = one_way(shared, &cloud, device, Direction::ToDevice);
            let _ = io::copy(&mut &cloud, &mut io::sink());
            let _ = device.shutdown(Shutdown::Both);
        });
        let _ = one_way(shared, device, &cloud, Direction::ToCloud);
        let _ = cloud.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// Passes records on until the stream ends or the connection is cut.
fn one_way(
    shared: &Shared,
    mut from: &TcpStream,
    mut to: &TcpStream,
    direction: Direction,
) -> io::Result<()> {
    let mut first = true;
    while let Some(record) = read_record(&mut from)? {
        // Locked while the record is passed on, so that the other direction does not overtake it.
        let mut state = shared.state();
        if std::mem::take(&mut first) && direction == Direction::ToCloud {
            state.hellos.extend(Hello::parse(&record));
        }
        if !state.powered {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.counts[direction as usize] += 1;
        if state.cut_at(direction, When::Before) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let passed = to.write_all(&record);
        if state.cut_at(direction, When::After) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        passed?;
    }
    Ok(())
}

fn read_record(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut record = vec![0; HEADER];
    match from.read_exact(&mut record) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(HEADER + length, 0);
    from.read_exact(&mut record[HEADER..])?;
    Ok(Some(record))
}
