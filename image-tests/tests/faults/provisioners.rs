//! Several instances of firstboot on one device: one works, the others wait, and all succeed.

use std::fs::File;
use std::io::BufReader;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use anyhow::Result;
use image_tests::device::{Device, STORE};
use image_tests::process::{Background, finish};

use crate::{resource_manager, scenario, usual, wrong_after_start};

/// Starts them together, each with the TPM through the resource manager: their exit statuses and messages.
fn together(device: &mut Device, commands: &[&str]) -> Result<Vec<(i32, String)>> {
    let manager = resource_manager(device)?;
    let mut open = Vec::new();
    let mut programs: Vec<Command> = Vec::new();
    for command in commands {
        let opened = manager.open()?;
        device.tcti = Some(opened.tcti());
        programs.push(device.firstboot(&[command])?);
        open.push(opened);
    }
    let barrier = Barrier::new(programs.len());
    thread::scope(|scope| {
        let running: Vec<_> = programs
            .iter_mut()
            .map(|program| {
                scope.spawn(|| {
                    barrier.wait();
                    finish(program)
                })
            })
            .collect();
        running
            .into_iter()
            .map(|program| {
                let finished = program
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("a panic"))?;
                Ok((finished.code, finished.stderr))
            })
            .collect()
    })
}

/// Not even the lock's directory exists. Whichever comes first, the result is the same.
#[test]
fn two_first_boots_at_once_make_one_identity() -> Result<()> {
    for commands in [
        ["provision", "provision"],
        ["provision", "enroll"],
        ["enroll", "enroll"],
        ["provision", "reset"],
    ] {
        let mut device = usual()?;
        for ((code, said), command) in together(&mut device, &commands)?.iter().zip(commands) {
            let expected = if command == "enroll" { 75 } else { 0 };
            assert_eq!(*code, expected, "{command} of {commands:?}: {said}");
        }
        // What the operator may have seen stays true.
        let request = device.request().ok().map(std::fs::read).transpose()?;
        let reset = commands.contains(&"reset");
        let wrong = wrong_after_start_keeping(device, request.filter(|_| !reset))?;
        assert!(wrong.is_empty(), "{commands:?}: {wrong:?}");
    }
    Ok(())
}

/// Like [`wrong_after_start`], for a device on which this request was published.
fn wrong_after_start_keeping(device: Device, request: Option<Vec<u8>>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    if let Some(request) = request
        && std::fs::read(device.path(STORE).join("device.csr.pem"))? != request
    {
        wrong.push("the request on the card is another identity's".to_owned());
    }
    wrong.extend(wrong_after_start(device, scenario("provision")?)?);
    Ok(wrong)
}

/// The second one does nothing, not even with the TPM, until the first one is done.
#[test]
fn one_waits_while_another_works() -> Result<()> {
    let mut device = usual()?;
    let path = device.path("/run/firstboot/lock");
    device.write("/run/firstboot/lock", "")?;
    let lock = File::options().write(true).open(&path)?;
    lock.lock()?;

    let manager = resource_manager(&device)?;
    let opened = manager.open()?;
    device.tcti = Some(opened.tcti());
    let before = device.snapshot()?;
    manager.take_commands();
    let (said, errors) = std::io::pipe()?;
    let mut firstboot = device.firstboot(&["provision"])?;
    let mut waiting = Background::start(firstboot.stderr(errors))?;
    let mut said = BufReader::new(said);
    let seen = waiting.read_until("firstboot to say that it waits", &mut said, |line| {
        line.contains("another firstboot is running").then_some(())
    });
    let commands = manager.take_commands().0.len();
    let after = device.snapshot();
    // Before any assertion fails, or it would wait for ever.
    drop(lock);
    let code = waiting.wait()?;
    seen?;
    before.assert_same(&after?);
    assert_eq!((commands, code), (0, 0));
    drop(opened);
    drop(manager);
    let wrong = wrong_after_start(device, scenario("provision")?)?;
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

/// Both find no directory, and both create it: how two first boots begin.
#[test]
fn a_directory_can_be_made_by_several_at_once() -> Result<()> {
    const AT_ONCE: usize = 4;
    let root = tempfile::tempdir()?;
    for round in 0..100 {
        let path = root.path().join(format!("{round}/run/firstboot"));
        let barrier = Barrier::new(AT_ONCE);
        let make = || {
            barrier.wait();
            firstboot_formats::files::make_directory(&path, 0o700)
        };
        thread::scope(|scope| {
            let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(make)).collect();
            for one in all {
                let made = one.join().unwrap_or_else(|_| unreachable!());
                assert!(made.is_ok(), "{made:?}");
            }
        });
    }
    Ok(())
}
