//! firstboot accepts each example of firstboot.json: each block of JSON with `thing_name`, and each that is marked as a
//! part of the file (```json firstboot.json).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use firstboot::layout::{IMAGE_SETTINGS, Layout};
use firstboot::settings::Settings;
use serde_json::Value;
use tempfile::TempDir;

use crate::markdown::Block;
use crate::{check_pages, markdown, repository};

/// The operator's file.
const FILE: &str = "/boot/firstboot/firstboot.json";
/// The page whose example completes a part of the file.
const WHOLE: &str = "docs/operator.md";

/// What is wrong with the examples of this page.
fn refused(_: &Path, text: &str) -> Result<Vec<String>> {
    let (_, blocks) = markdown::parse(text);
    let mut wrong = Vec::new();
    for block in blocks.iter().filter(|block| block.info.starts_with("json")) {
        if let Err(why) = judge(block) {
            wrong.push(format!("line {}: {why:#}", block.line));
        }
    }
    Ok(wrong)
}

fn judge(block: &Block) -> Result<()> {
    let is_marked = block.info == "json firstboot.json";
    // A part of an object is shown without its braces.
    let text = if block.text.trim_start().starts_with(['{', '[']) {
        block.text.clone()
    } else {
        format!("{{{}}}", block.text)
    };
    let value: Value = serde_json::from_str(&text)?;
    // A request's record, a reply and a status have a version.
    let is_whole = value.get("thing_name").is_some() && value.get("version").is_none();
    if is_whole {
        read(&image()?, &text)
    } else if is_marked {
        read(&example()?, &text)
    } else {
        Ok(())
    }
}

/// Has firstboot read it, on top of these settings of the image.
fn read(image: &str, text: &str) -> Result<()> {
    let root = TempDir::new()?;
    let layout = Layout::new(root.path());
    for (path, content) in [
        (IMAGE_SETTINGS, image),
        (FILE, text),
        (
            "/sys/firmware/devicetree/base/serial-number",
            "10000000a1b2c3d4\0",
        ),
        ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ] {
        let path = layout.at(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, content)?;
    }
    Settings::read(&layout)?;
    Ok(())
}

/// The settings that every image has.
fn image() -> Result<String> {
    Ok(fs::read_to_string(
        repository().join("firstboot/conf/firstboot.json"),
    )?)
}

/// The example in the operator's guide, which is complete.
fn example() -> Result<String> {
    let text = fs::read_to_string(repository().join(WHOLE))?;
    let (_, blocks) = markdown::parse(&text);
    let mut blocks = blocks.into_iter().map(|block| block.text);
    blocks
        .find(|text| text.contains("thing_name"))
        .with_context(|| format!("{WHOLE} has no example"))
}

#[test]
fn every_example_of_settings_is_accepted() -> Result<()> {
    assert!(refused(Path::new(WHOLE), &example()?)?.is_empty());
    check_pages(refused)
}

#[test]
fn examples_that_no_device_accepts_are_found() -> Result<()> {
    let whole = example()?;
    let page = |info: &str, text: &str| format!("# Page\n\n```{info}\n{text}\n```\n");
    for (info, text, why) in [
        (
            "json",
            whole.replace("\"aws_region\"", "\"aws_regoin\""),
            "aws_regoin",
        ),
        (
            "json",
            whole.replace(
                "\"greengrass\": {",
                "\"greengrass\": { \"edition\": \"nucleus-light\",",
            ),
            "nucleus-light",
        ),
        (
            "json",
            whole.replace("eu-central-1\"", "eu-central-1"),
            "line",
        ),
        (
            "json firstboot.json",
            "\"enrollment\": { \"method\": \"by mail\" }".into(),
            "by mail",
        ),
        (
            "json firstboot.json",
            "\"enrollment\": { \"issuers\": [\"12:34\"] }".into(),
            "issuers",
        ),
    ] {
        let found = refused(Path::new("page.md"), &page(info, &text))?;
        assert!(
            found.len() == 1 && found[0].contains(why),
            "{why}: {found:?}"
        );
    }
    // … and these are refused.
    for text in [
        whole.as_str(),
        "{ \"Version\": \"2012-10-17\" }",
        "\"a\": 1",
    ] {
        let found = refused(Path::new("page.md"), &page("json", text))?;
        assert!(found.is_empty(), "{found:?}");
    }
    Ok(())
}
