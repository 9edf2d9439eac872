//! Links within the repository lead to existing files and headings.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::{check_pages, markdown, repository};

/// What is wrong with the links of this page.
fn broken(page: &Path, text: &str) -> Result<Vec<String>> {
    let page = repository().join(page);
    let (prose, _) = markdown::parse(text);
    let mut wrong = Vec::new();
    for link in markdown::links(&prose) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = page.with_file_name("").join(path);
        if !path.is_empty() && !target.exists() {
            wrong.push(format!("{link}: there is no such file"));
        } else if !anchor.is_empty() {
            let text = if path.is_empty() {
                text.to_owned()
            } else {
                fs::read_to_string(&target)?
            };
            let (prose, _) = markdown::parse(&text);
            if !markdown::anchors(&prose).iter().any(|a| a == anchor) {
                wrong.push(format!("{link}: there is no such heading"));
            }
        }
    }
    Ok(wrong)
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    check_pages(broken)
}

/// Pages that comments and messages in the code name, such as "docs/operator.md".
#[test]
fn every_page_that_the_code_names_is_there() -> Result<()> {
    let root = repository();
    let mut named = 0;
    for folder in [
        "firstboot",
        "image-tests/src",
        "image-tests/tests",
        "image-tests/guest",
    ] {
        for file in sources(&root.join(folder))? {
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            for page in pages_named(&text) {
                named += 1;
                let is_there = root.join(&page).exists()
                    || root.join("meta-tpm-greengrass").join(&page).exists();
                assert!(is_there, "{}: {page}", file.display());
            }
        }
    }
    assert!(named > 0);
    Ok(())
}

fn sources(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            files.push(path);
        // whose examples name pages that are not there
        } else if !path.ends_with("tests/docs") {
            files.extend(sources(&path)?);
        }
    }
    Ok(files)
}

/// Our pages, whose names are in lower case; other projects' are often DOCS/LIKE_THIS.md.
fn pages_named(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "./_-".contains(c)))
        .filter(|word| !word.contains(|c: char| c.is_ascii_uppercase()))
        .filter(|word| word.starts_with("docs/") && word.trim_end_matches('.').ends_with(".md"))
        .map(|word| word.trim_end_matches('.').to_owned())
        .collect()
}

#[test]
fn links_that_lead_nowhere_are_found() -> Result<()> {
    let page = "## Here\n[1](operator.md) [2](no-such-page.md) [3](#here) [4](#there) \
                [5](../README.md#no-such-heading)\n[6](https://nowhere.example/)";
    assert_eq!(
        broken(Path::new("docs/page.md"), page)?,
        [
            "no-such-page.md: there is no such file",
            "#there: there is no such heading",
            "../README.md#no-such-heading: there is no such heading",
        ]
    );
    assert_eq!(
        pages_named("see docs/a.md, `docs/b/c.md` and docs/d.rs or docs/e.md, docs/OTHERS.md."),
        ["docs/a.md", "docs/b/c.md", "docs/e.md"]
    );
    Ok(())
}
