//! The crates' floors: docs/architecture.md and firstboot's own page have the same, every module stands on one, and none
//! uses a floor above its own. So with the folders of these tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::repository;

/// Each module's floor, the ground being 0, of the table that begins with "| floor |".
fn floors(text: &str) -> BTreeMap<String, usize> {
    let rows: Vec<&str> = text
        .lines()
        .map(|line| line.trim_start_matches("//!").trim())
        .skip_while(|line| !line.starts_with("| floor |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let mut floors = BTreeMap::new();
    for (floor, row) in rows.iter().rev().enumerate() {
        for name in row.split('`').skip(1).step_by(2) {
            floors.insert(name.to_owned(), floor);
        }
    }
    floors
}

/// The modules of this crate that a source file uses.
fn uses(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            // use crate::{files, greengrass::{self, Facts}};
            Some(list) => {
                let mut depth = 0;
                let mut name = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                        c if depth == 0 => name.push(c),
                        _ => {}
                    }
                }
                names.push(name);
            }
            None => names.push(rest.to_owned()),
        }
    }
    let first_word = |name: &String| -> String {
        let name = name.trim_start();
        let is_part = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_';
        name.chars().take_while(is_part).collect()
    };
    let mut names: Vec<String> = names
        .iter()
        .map(first_word)
        .filter(|n| !n.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// What a file of this module uses from above, or from nowhere.
fn upward(floors: &BTreeMap<String, usize>, module: &str, source: &str) -> Vec<String> {
    let own = floors.get(module);
    uses(source)
        .into_iter()
        .filter(|used| own.is_none() || floors.get(used) > own || !floors.contains_key(used))
        .map(|used| format!("{module} uses {used}"))
        .collect()
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// What the modules of a crate use from above.
fn looks_up(floors: &BTreeMap<String, usize>, source: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for file in rust_files(source)? {
        let module = file
            .strip_prefix(source)?
            .iter()
            .next()
            .context("a module")?;
        let module = module.to_string_lossy();
        let module = module.trim_end_matches(".rs");
        // They only name the modules and the programs.
        if module != "lib" && module != "bin" {
            wrong.extend(upward(floors, module, &fs::read_to_string(&file)?));
        }
    }
    Ok(wrong)
}

#[test]
fn no_module_uses_a_floor_above_its_own() -> Result<()> {
    let page = floors(&fs::read_to_string(
        repository().join("docs/architecture.md"),
    )?);
    let wrong = looks_up(&page, &repository().join("firstboot/src"))?;
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn no_folder_of_the_tests_uses_a_floor_above_its_own() -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = own_floors(&source.join("lib.rs"))?;
    assert!(
        floors.len() > 5 && floors["measure"] == 5 && floors["process"] == 0,
        "{floors:?}"
    );
    let wrong = looks_up(&floors, &source)?;
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// The floors on a crate's own page, where names are links.
fn own_floors(page: &Path) -> Result<BTreeMap<String, usize>> {
    let text = fs::read_to_string(page)?;
    Ok(floors(&text.replace("[`", "`").replace("`]", "`")))
}

#[test]
fn the_crates_own_page_has_the_same_floors() -> Result<()> {
    let page = floors(&fs::read_to_string(
        repository().join("docs/architecture.md"),
    )?);
    let own = own_floors(&repository().join("firstboot/src/lib.rs"))?;
    assert_eq!(page, own);
    assert!(
        page.len() > 20 && page["cli"] == 4 && page["error"] == 0,
        "{page:?}"
    );
    Ok(())
}

#[test]
fn a_module_that_looks_up_is_found() {
    let floors =
        floors("| floor | modules |\n|---|---|\n| top | `cli` |\n| ground | `files`, `json` |\n");
    let source = "// crate::cli\nuse crate::{json::{self, Tree}, cli};\nuse crate::files;\n fn f() { crate::none::g() }";
    assert_eq!(uses(source), ["cli", "files", "json", "none"]);
    assert_eq!(
        upward(&floors, "json", source),
        ["json uses cli", "json uses none"]
    );
    assert_eq!(
        upward(&floors, "cli", "use crate::files;"),
        Vec::<String>::new()
    );
    assert_eq!(
        upward(&floors, "lost", "use crate::files;"),
        ["lost uses files"]
    );
}
