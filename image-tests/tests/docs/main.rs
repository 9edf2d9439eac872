//! The pages are true: links resolve, examples of settings and command lines are accepted, the crates' floors and the
//! list of files to read match the sources, and the manual pages match the command lines.
//!
//! Each check has a control that shows what it finds.

mod commands;
mod floors;
mod links;
mod manual;
mod markdown;
mod reading;
mod settings;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page, by its path in the repository.
fn pages() -> Result<Vec<(PathBuf, String)>> {
    let root = repository();
    let mut pages = Vec::new();
    find(&root, &mut pages)?;
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    pages
        .into_iter()
        .map(|page| {
            let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
            Ok((page.strip_prefix(&root)?.to_owned(), text))
        })
        .collect()
}

fn find(directory: &Path, pages: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        // What is built, and other layers that kas has put beside this one.
        let is_another = name == "target" || name == "build" || path.join(".git").exists();
        if entry.file_type()?.is_dir() {
            let is_hidden = name.to_string_lossy().starts_with('.') && name != ".github";
            if !is_another && !is_hidden {
                find(&path, pages)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

/// Runs `check` on each page, and fails with what it finds wrong.
fn check_pages(check: impl Fn(&Path, &str) -> Result<Vec<String>>) -> Result<()> {
    let mut wrong = Vec::new();
    for (page, text) in pages()? {
        let found = check(&page, &text)?;
        wrong.extend(
            found
                .iter()
                .map(|what| format!("{}: {what}", page.display())),
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}
