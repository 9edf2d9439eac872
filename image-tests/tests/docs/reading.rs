//! docs/architecture.md, "Reading the code": every file of the list is there, and comes once.

use std::fs;

use anyhow::{Context, Result};

use crate::repository;

/// The source files that a section of the page names, in order.
fn files<'a>(page: &'a str, heading: &str) -> Option<Vec<&'a str>> {
    let (_, section) = page.split_once(heading)?;
    let section = section.split("\n## ").next()?;
    let code = section.split('`').skip(1).step_by(2);
    Some(code.filter(|name| name.ends_with(".rs")).collect())
}

/// What is wrong with such a list.
fn wrong(files: &[&str], is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, file) in files.iter().enumerate() {
        if !is_there(file) {
            wrong.push(format!("{file} is not there"));
        }
        if files[..place].contains(file) {
            wrong.push(format!("{file} comes again"));
        }
    }
    wrong
}

#[test]
fn each_file_of_the_list_is_there_and_comes_once() -> Result<()> {
    let page = fs::read_to_string(repository().join("docs/architecture.md"))?;
    let files = files(&page, "\n## Reading the code\n").context("no such section")?;
    assert_eq!(files.first(), Some(&"main.rs"));
    assert!(files.len() > 20, "{files:?}");
    let source = repository().join("firstboot/src");
    let wrong = wrong(&files, |file| source.join(file).is_file());
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

#[test]
fn files_that_are_gone_or_come_again_are_found() {
    let page =
        "# P\n\n## Reading\n\n`main.rs`, **`a/b.rs`**\n`next`, `main.rs`\n\n## More\n`c.rs`\n";
    let files = files(page, "\n## Reading\n").unwrap_or_default();
    assert_eq!(files, ["main.rs", "a/b.rs", "main.rs"]);
    assert_eq!(
        wrong(&files, |file| file == "main.rs"),
        ["a/b.rs is not there", "main.rs comes again"]
    );
}
