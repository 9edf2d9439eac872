//! Settings that work: they are accepted, some with a warning.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};
use serde_json::{Value, json};

fn provisioned(change: impl FnOnce(&mut Value)) -> Result<String> {
    let device = Device::unprovisioned()?;
    let mut settings = offline_settings("nucleus", KeyType::EccP256);
    change(&mut settings);
    device.settings(&settings)?;
    let outcome = device.run(&["provision"])?;
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    Ok(outcome.stderr)
}

fn warnings(log: &str) -> Vec<&str> {
    let is_remark = |line: &&str| line.contains("WARN") && !line.contains("EK certificate");
    log.lines().filter(is_remark).collect()
}

#[test]
fn settings_that_do_not_work_everywhere_cause_a_warning() -> Result<()> {
    let log = provisioned(|s| {
        s["thing_name"] = json!("x".repeat(65));
        s["greengrass"]["iot_data_endpoint"] = json!("abc123.iot.eu-central-1.amazonaws.com");
    })?;
    let warnings = warnings(&log);
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(warnings[0].contains("65 characters"), "{log}");
    assert!(warnings[1].contains("no \"-ats\": "), "{log}");
    Ok(())
}

#[test]
fn the_endpoints_of_every_partition_are_accepted() -> Result<()> {
    for (region, data, credentials) in [
        (
            "us-gov-west-1",
            "data.iot-fips.us-gov-west-1.amazonaws.com",
            "data.credentials.iot-fips.us-gov-west-1.amazonaws.com",
        ),
        (
            "cn-north-1",
            "abc123.ats.iot.cn-north-1.amazonaws.com.cn",
            "def456.credentials.iot.cn-north-1.amazonaws.com.cn",
        ),
        (
            "eu-west-1",
            "abc123-ats.iot.eu-west-1.api.aws",
            "credentials.example.com",
        ),
    ] {
        let log = provisioned(|s| {
            s["thing_name"] = json!("x".repeat(64));
            s["greengrass"]["aws_region"] = json!(region);
            s["greengrass"]["iot_data_endpoint"] = json!(data);
            s["greengrass"]["iot_credential_endpoint"] = json!(credentials);
        })?;
        assert_eq!(warnings(&log), Vec::<&str>::new());
    }
    Ok(())
}
