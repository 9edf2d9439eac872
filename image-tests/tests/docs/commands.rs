//! firstboot and firstboot-station accept each of their command lines in pages and help texts.

use std::path::Path;

use anyhow::Result;

use crate::{check_pages, markdown};

/// What is wrong with the command lines of this page.
fn refused(_: &Path, text: &str) -> Result<Vec<String>> {
    let (_, blocks) = markdown::parse(text);
    let shell = blocks.iter().filter(|block| block.info == "sh");
    Ok(shell.flat_map(|block| mistakes(&block.text)).collect())
}

fn mistakes(script: &str) -> Vec<String> {
    ours(script)
        .into_iter()
        .filter_map(|words| {
            let result = match words[0].as_str() {
                "firstboot" => firstboot::cli::read(&words).map(drop),
                _ => firstboot_station::cli::read(&words).map(drop),
            };
            let error = result.err().filter(clap_error_is_a_mistake)?;
            Some(format!("{}: {error}", words.join(" ")))
        })
        .collect()
}

/// `--help` and `--version` are errors, too, by name.
fn clap_error_is_a_mistake<E: std::fmt::Display>(error: &E) -> bool {
    error.to_string().starts_with("error:")
}

/// Our programs' command lines in a script, split into words, with `sudo` or without.
fn ours(script: &str) -> Vec<Vec<String>> {
    commands(script)
        .into_iter()
        .filter_map(|words| {
            let start = words.iter().position(|word| is_ours(word))?;
            let before = &words[..start];
            (before.is_empty() || before[0] == "sudo").then(|| words[start..].to_vec())
        })
        .collect()
}

fn is_ours(word: &str) -> bool {
    word == "firstboot" || word == "firstboot-station"
}

/// The simple commands of a script: as much of sh(1) as examples use.
fn commands(script: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = script.chars().peekable();
    while let Some(c) = characters.next() {
        let ends = quote.is_none() && matches!(c, ' ' | '\t' | '\n' | '|' | '&' | ';' | '>' | '<');
        match c {
            _ if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            '\\' if quote.is_none() => {
                if let Some(escaped) = characters.next().filter(|escaped| *escaped != '\n') {
                    word.get_or_insert_default().push(escaped);
                }
            }
            '#' if quote.is_none() && word.is_none() => {
                while characters.peek().is_some_and(|next| *next != '\n') {
                    characters.next();
                }
            }
            _ if ends => {
                if let Some(command) = commands.last_mut() {
                    command.extend(word.take());
                }
                if !matches!(c, ' ' | '\t') {
                    commands.push(Vec::new());
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let Some(command) = commands.last_mut() {
        command.extend(word);
    }
    commands.retain(|command| !command.is_empty());
    commands
}

#[test]
fn every_command_line_is_accepted() -> Result<()> {
    let mut seen = 0;
    for (_, text) in crate::pages()? {
        let (_, blocks) = markdown::parse(&text);
        seen += blocks
            .iter()
            .map(|block| ours(&block.text).len())
            .sum::<usize>();
    }
    assert!(seen > 3, "{seen}");
    check_pages(refused)
}

/// The examples of a help text, without their explanations, which follow after three spaces or more.
fn examples(help: &str) -> String {
    let examples = help.split("Example").skip(1);
    let lines = examples.flat_map(|text| text.lines().skip(1));
    lines
        .map(|line| line.trim().split("   ").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn every_example_of_the_help_texts_is_accepted() {
    let device = [
        None,
        Some("provision"),
        Some("enroll"),
        Some("status"),
        Some("tpm"),
        Some("reset"),
    ];
    let station = [None, Some("issue"), Some("wrap"), Some("inspect")];
    let words = |program, command: Option<&'static str>| {
        [Some(program), command, Some("--help")]
            .into_iter()
            .flatten()
    };
    let helps = device
        .map(|command| firstboot::cli::read(words("firstboot", command)).map(drop))
        .into_iter()
        .chain(station.map(|command| {
            firstboot_station::cli::read(words("firstboot-station", command)).map(drop)
        }));
    for help in helps {
        // Help is an error to the parser.
        let help = help.err().map(|e| e.to_string()).unwrap_or_default();
        let examples = examples(&help);
        assert!(!ours(&examples).is_empty(), "{help}");
        assert_eq!(mistakes(&examples), Vec::<String>::new(), "{help}");
    }
}

#[test]
fn invalid_command_lines_are_found() -> Result<()> {
    let page = "```sh\nfirstboot provision && firstboot enrol   # a typing error\n\
                sudo -u ggcore firstboot status --jsn | jq -r .state\n\
                firstboot --root /mnt/card provision\n\
                firstboot-station inspect --vendor-ca a/ \\\n    b.json\n\
                firstboot-station issue 'a b' --out c\n\
                echo firstboot nonsense\n```\n\n```\nfirstboot nonsense\n```\n";
    let found = refused(Path::new("page.md"), page)?;
    assert_eq!(found.len(), 4, "{found:#?}");
    for (found, start) in found.iter().zip([
        "firstboot enrol: error: unrecognized subcommand 'enrol'",
        "firstboot status --jsn: error: unexpected argument '--jsn'",
        "firstboot --root /mnt/card provision: error: /mnt/card is not this machine's root",
        "firstboot-station issue a b --out c: error: the following required arguments",
    ]) {
        assert!(found.starts_with(start), "{found}");
    }
    let help = "Usage: x\n\nExamples:\n  firstboot status     what is there\n  firstboot sttaus     what is not\n";
    assert_eq!(ours(&examples(help)).len(), 2);
    assert_eq!(mistakes(&examples(help)).len(), 1);
    assert_eq!(
        commands("a 'b c'\"d\" e\\ f # g\nh --i=\"\" >j\n"),
        [vec!["a", "b cd", "e f"], vec!["h", "--i="], vec!["j"]]
    );
    Ok(())
}
