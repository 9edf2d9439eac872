//! The floors of docs/architecture.md: every module of the three crates is on one, and none uses a floor above its own,
//! or the other program. The same holds for the folders of these tests, whose floors are on their crate's own page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::repository;

/// The crates by their names in the table, and where their sources are.
const CRATES: [(&str, &str); 4] = [
    ("firstboot", "firstboot/src"),
    ("firstboot-station", "firstboot/station/src"),
    (FORMATS, "firstboot/formats/src"),
    (TESTS, "image-tests/src"),
];
/// What both programs use.
const FORMATS: &str = "firstboot-formats";
const TESTS: &str = "image-tests";

/// A crate and a module of it.
type Module = (String, String);

/// Each module's floor, the ground being 0, of the table that begins with "| crate | floor |".
fn floors(page: &str) -> BTreeMap<Module, usize> {
    let rows: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("| crate | floor |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let mut floors = BTreeMap::new();
    for (floor, row) in rows.iter().rev().enumerate() {
        let mut names = row.split('`').skip(1).step_by(2);
        let krate = names.next().unwrap_or_default();
        for name in names {
            floors.insert((krate.to_owned(), name.to_owned()), floor);
        }
    }
    floors
}

/// The modules of our crates that a source file of one of them uses.
fn uses(krate: &str, source: &str) -> Vec<Module> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let mut used = named(&code, "crate::", krate);
    for (other, _) in CRATES {
        used.extend(named(
            &code,
            &format!("{}::", other.replace('-', "_")),
            other,
        ));
    }
    used.sort();
    used.dedup();
    used
}

/// The modules of a crate that come after these words.
fn named(code: &str, path: &str, krate: &str) -> Vec<Module> {
    let mut names = Vec::new();
    let mut before = ' ';
    for (place, rest) in code.split(path).enumerate() {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let whole = place > 0 && !is_part(before);
        before = rest.chars().last().unwrap_or(' ');
        if !whole {
            continue;
        }
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
    names
        .iter()
        .map(first_word)
        .filter(|name| !name.is_empty())
        .map(|name| (krate.to_owned(), name))
        .collect()
}

/// What a file of this module uses from above, from the other program, or from nowhere.
fn upward(floors: &BTreeMap<Module, usize>, module: &Module, source: &str) -> Vec<String> {
    let own = floors.get(module);
    if own.is_none() {
        return vec![format!("{} {} has no floor", module.0, module.1)];
    }
    let is_wrong = |used: &Module| {
        let foreign = used.0 != module.0 && used.0 != FORMATS;
        foreign || floors.get(used).is_none_or(|floor| Some(floor) > own)
    };
    uses(&module.0, source)
        .into_iter()
        .filter(is_wrong)
        .map(|used| format!("{} {} uses {} {}", module.0, module.1, used.0, used.1))
        .collect()
}

/// The modules that each module uses.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// The modules that use one another in a circle: those that remain after repeatedly removing each that uses, or is used
/// by, none of the rest.
fn circles(mut graph: Graph) -> Vec<Module> {
    loop {
        let used: BTreeSet<Module> = graph.values().flatten().cloned().collect();
        let left: BTreeSet<Module> = graph
            .keys()
            .filter(|module| used.contains(*module))
            .cloned()
            .collect();
        let before = graph.len();
        graph.retain(|module, uses| {
            uses.retain(|used| used != module && left.contains(used));
            left.contains(module) && !uses.is_empty()
        });
        if graph.len() == before {
            return graph.into_keys().collect();
        }
    }
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

fn page() -> Result<BTreeMap<Module, usize>> {
    let read = |path| fs::read_to_string(repository().join(path));
    let mut all = floors(&read("docs/architecture.md")?);
    all.extend(floors(&own_table(&read("image-tests/src/lib.rs")?)));
    Ok(all)
}

/// The table on the tests' own page, where names are links, as a page has it.
fn own_table(page: &str) -> String {
    let rows = page.lines().filter_map(|line| line.strip_prefix("//! |"));
    let row = |row: &str| {
        format!("| `{TESTS}` |{row}\n")
            .replace("[`", "`")
            .replace("`]", "`")
    };
    "| crate | floor |\n".to_owned() + &rows.map(row).collect::<String>()
}

/// Every source file and its module, except the files that only declare modules.
fn sources() -> Result<Vec<(Module, PathBuf)>> {
    let mut sources = Vec::new();
    for (krate, directory) in CRATES {
        let directory = repository().join(directory);
        for file in rust_files(&directory)? {
            let module = file.strip_prefix(&directory)?.iter().next();
            let module = module.context("a module")?.to_string_lossy();
            let module = module.trim_end_matches(".rs");
            if module != "lib" && module != "bin" {
                sources.push(((krate.to_owned(), module.to_owned()), file));
            }
        }
    }
    Ok(sources)
}

#[test]
fn no_module_uses_a_floor_above_its_own() -> Result<()> {
    let floors = page()?;
    let mut wrong = Vec::new();
    for (module, file) in sources()? {
        wrong.extend(upward(&floors, &module, &fs::read_to_string(&file)?));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn no_modules_use_one_another_in_a_circle() -> Result<()> {
    let mut graph = Graph::new();
    for (module, file) in sources()? {
        let used = uses(&module.0, &fs::read_to_string(&file)?);
        graph.entry(module).or_default().extend(used);
    }
    assert!(graph.len() > 50, "{graph:?}");
    assert_eq!(circles(graph), []);
    Ok(())
}

#[test]
fn a_circle_is_found() {
    let graph = |uses: &[(&str, &str)]| {
        let module = |name: &str| ("firstboot".to_owned(), name.to_owned());
        let mut graph = Graph::new();
        for (from, to) in uses {
            graph.entry(module(from)).or_default().insert(module(to));
        }
        circles(graph)
            .into_iter()
            .map(|(_, name)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        graph(&[("cli", "tpm"), ("tpm", "tpm"), ("tpm", "json")]),
        [""; 0]
    );
    let round = [
        ("cli", "tpm"),
        ("tpm", "token"),
        ("token", "board"),
        ("board", "tpm"),
        ("board", "json"),
    ];
    assert_eq!(graph(&round), ["board", "token", "tpm"]);
}

#[test]
fn each_module_of_the_table_is_there() -> Result<()> {
    let there: Vec<Module> = sources()?.into_iter().map(|(module, _)| module).collect();
    let floors = page()?;
    let gone: Vec<&Module> = floors.keys().filter(|m| !there.contains(m)).collect();
    assert!(gone.is_empty(), "{gone:?}");
    let floor = |krate: &str, name: &str| floors.get(&(krate.to_owned(), name.to_owned()));
    assert!(
        floors.len() > 50 && floor("firstboot", "cli") > floor(FORMATS, "error"),
        "{floors:?}"
    );
    assert_eq!(floor(TESTS, "measure"), Some(&5));
    assert_eq!(floor(TESTS, "process"), Some(&0));
    Ok(())
}

#[test]
fn a_module_that_looks_up_is_found() {
    let floors = floors(
        "| crate | floor | modules |\n|---|---|---|\n\
         | `firstboot` | top | `cli` |\n| `firstboot` | ground | `board`, `json` |\n\
         | `firstboot-station` | ground | `batch` |\n\
         | `firstboot-formats` | ground | `files` |\n",
    );
    let module = |krate: &str, name: &str| (krate.to_owned(), name.to_owned());
    let source = "// crate::cli\nuse crate::{json::{self, Tree}, cli};\nuse crate::board;\n\
        use firstboot_formats::{files::{self, Access}, none};\nuse firstboot_station::batch;\n\
        fn f() { crate::none::g() }";
    let used = uses("firstboot", source);
    assert_eq!(
        used.iter()
            .map(|(k, m)| format!("{k} {m}"))
            .collect::<Vec<_>>(),
        [
            "firstboot board",
            "firstboot cli",
            "firstboot json",
            "firstboot none",
            "firstboot-formats files",
            "firstboot-formats none",
            "firstboot-station batch",
        ]
    );
    assert_eq!(
        upward(&floors, &module("firstboot", "json"), source),
        [
            "firstboot json uses firstboot cli",
            "firstboot json uses firstboot none",
            "firstboot json uses firstboot-formats none",
            "firstboot json uses firstboot-station batch",
        ]
    );
    let down = "use crate::board;\nuse firstboot_formats::files;";
    assert!(upward(&floors, &module("firstboot", "cli"), down).is_empty());
    assert_eq!(
        upward(&floors, &module("firstboot", "lost"), down),
        ["firstboot lost has no floor"]
    );
    assert_eq!(
        upward(&floors, &module(FORMATS, "files"), "firstboot::cli::run()"),
        ["firstboot-formats files uses firstboot cli"]
    );
}
