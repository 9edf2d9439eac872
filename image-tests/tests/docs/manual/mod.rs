//! The manual pages and shell completions in the repository match the command lines. clap_mangen and clap_complete make
//! them here, so that no build of the programs needs either. `make generated` writes them.

mod completions;
mod page;
mod pages;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::repository;

/// What is generated: files by their paths in the repository.
fn generated() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for program in pages::programs() {
        files.push((program.page_path(), page::page(&program)?));
        files.extend(completions::completions(&program));
    }
    Ok(files)
}

#[test]
fn pages_and_completions_are_current() -> Result<()> {
    let write = std::env::var_os("MANUAL").is_some_and(|mode| mode == "write");
    for (path, content) in generated()? {
        let file = repository().join(&path);
        if write {
            fs::create_dir_all(file.parent().context("a folder")?)?;
            fs::write(&file, &content)?;
        }
        let committed = fs::read(&file).with_context(|| format!("{}", path.display()))?;
        assert!(
            committed == content,
            "{} does not match the command line: run `make generated`",
            path.display()
        );
    }
    Ok(())
}
