//! Without /dev/tpmrm0, the kernel's view of the board tells why, and what to do.

use std::os::unix::fs::symlink;

use anyhow::Result;
use image_tests::device::Device;

use crate::{assert_ends, exit, usual};

const TREE: &str = "/sys/firmware/devicetree/base";
/// SPI0 of a Pi 4 and, behind the RP1, of a Pi 5.
const CONTROLLERS: [&str; 2] = ["soc/spi@7e204000", "axi/pcie@1000120000/rp1/spi@50000"];
const TPM: &str = "infineon,slb9670\0tcg,tpm_tis-spi\0";

/// A device whose TPM cannot be opened.
fn without_a_tpm() -> Result<Device> {
    let mut device = usual()?;
    device.tcti = Some("device:/dev/no-such-tpm".into());
    Ok(device)
}

/// Adds a node to the device tree.
fn node(device: &Device, path: &str, compatible: &str, reg: u8) -> Result<()> {
    device.write(format!("{TREE}/{path}/compatible"), compatible)?;
    device.write(format!("{TREE}/{path}/reg"), [0, 0, 0, reg])
}

fn disable(device: &Device, path: &str) -> Result<()> {
    device.write(format!("{TREE}/{path}/status"), "disabled\0")
}

/// Adds the kernel's device for a node, with a driver or without.
fn add_device(
    device: &Device,
    bus: &str,
    name: &str,
    of: &str,
    driver: Option<&str>,
) -> Result<()> {
    let directory = format!("/sys/bus/{bus}/devices/{name}");
    device.write(format!("{directory}/modalias"), "")?;
    let node = device.path(format!("{TREE}/{of}"));
    symlink(node, device.path(format!("{directory}/of_node")))?;
    if let Some(driver) = driver {
        let path = format!("/sys/bus/{bus}/drivers/{driver}");
        device.write(format!("{path}/bind"), "")?;
        symlink(
            device.path(path),
            device.path(format!("{directory}/driver")),
        )?;
    }
    Ok(())
}

#[track_caller]
fn assert_explains(device: &Device, words: &[&str]) -> Result<()> {
    let outcome = device.run(&["provision"])?;
    for words in words {
        assert_ends(&outcome, exit::NO_TPM, words);
    }
    assert!(!outcome.stderr.contains("has no TPM"), "{}", outcome.stderr);
    Ok(())
}

#[test]
fn a_taken_chip_select_is_explained() -> Result<()> {
    for controller in CONTROLLERS {
        for (select, compatible) in [(0, "winbond,w25q32\0jedec,spi-nor\0"), (1, "adi,adxl345\0")] {
            let device = without_a_tpm()?;
            let tpm = format!("{controller}/tpm@{select}");
            let other = format!("{controller}/other@{select}");
            let (name, beside) = (format!("spi10.{select}"), 1 - select);
            node(&device, &tpm, TPM, select)?;
            node(&device, &other, compatible, select)?;
            add_device(&device, "spi", &name, &other, None)?;
            // One at the other chip select does not matter, nor one at the same chip select of another controller.
            let neighbour = format!("{controller}/adc@{beside}");
            node(&device, &neighbour, "microchip,mcp3008\0", beside)?;
            add_device(
                &device,
                "spi",
                &format!("spi10.{beside}"),
                &neighbour,
                Some("mcp320x"),
            )?;
            node(&device, "soc/spi@1/eeprom@0", "atmel,at25\0", select)?;
            add_device(&device, "spi", "spi0.0", "soc/spi@1/eeprom@0", Some("at25"))?;
            let first = compatible.split('\0').next().unwrap_or_default();
            assert_explains(&device, &[&format!("CE{select}"), &name, first])?;
        }
    }
    Ok(())
}

#[test]
fn a_controller_that_does_not_run_is_explained() -> Result<()> {
    for controller in CONTROLLERS {
        let device = without_a_tpm()?;
        node(&device, &format!("{controller}/tpm@1"), TPM, 1)?;
        node(&device, controller, "brcm,bcm2835-spi\0", 0)?;
        // The kernel knows the controller, but no driver has started it.
        add_device(&device, "platform", "spi", controller, None)?;
        assert_explains(&device, &["SPI controller", "is not running", "pins"])?;
        disable(&device, controller)?;
        assert_explains(&device, &["SPI controller", "dtparam=spi=on"])?;
    }
    Ok(())
}

#[test]
fn a_controller_without_a_device_is_explained() -> Result<()> {
    let device = without_a_tpm()?;
    let [controller, _] = CONTROLLERS;
    node(&device, &format!("{controller}/tpm@1"), TPM, 1)?;
    node(&device, controller, "brcm,bcm2835-spi\0", 0)?;
    add_device(&device, "platform", "spi", controller, Some("spi-bcm2835"))?;
    assert_explains(&device, &["is running, but has created no device", "dmesg"])
}

/// Of two nodes, the enabled one counts.
#[test]
fn a_disabled_node_is_explained() -> Result<()> {
    let device = without_a_tpm()?;
    let [controller, _] = CONTROLLERS;
    let off = format!("{controller}/tpm@0");
    node(&device, &off, TPM, 0)?;
    disable(&device, &off)?;
    assert_explains(&device, &["disables the TPM", "tpm@0"])?;
    node(&device, &format!("{controller}/tpm@1"), TPM, 1)?;
    node(&device, &format!("{controller}/touch@1"), "ti,ads7846\0", 1)?;
    add_device(
        &device,
        "spi",
        "spi0.1",
        &format!("{controller}/touch@1"),
        None,
    )?;
    assert_explains(&device, &["CE1", "ads7846"])
}

#[test]
fn a_chip_that_did_not_answer_is_explained() -> Result<()> {
    let device = without_a_tpm()?;
    let tpm = format!("{}/tpm@1", CONTROLLERS[1]);
    node(&device, &tpm, TPM, 1)?;
    add_device(&device, "spi", "spi0.1", &tpm, None)?;
    assert_explains(
        &device,
        &["other chip select", "speed=", "reset", "power off and on"],
    )
}

#[test]
fn a_tpm_1_2_is_reported() -> Result<()> {
    let device = without_a_tpm()?;
    let tpm = format!("{}/tpm@1", CONTROLLERS[0]);
    node(&device, &tpm, TPM, 1)?;
    add_device(&device, "spi", "spi0.1", &tpm, Some("tpm_tis_spi"))?;
    device.write("/sys/class/tpm/tpm0/tpm_version_major", "1\n")?;
    assert_explains(&device, &["TPM 1.2"])?;
    device.write("/sys/class/tpm/tpm0/tpm_version_major", "2\n")?;
    assert_explains(&device, &["may firstboot open it"])
}
