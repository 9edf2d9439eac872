//! The sections of a command line's manual page, from --help and from what only a manual page says.

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::pages::{Program, Section};

/// The page, in roff.
pub fn page(program: &Program) -> Result<Vec<u8>> {
    let mut command = program.command.clone();
    command.build();
    let man = Man::new(command.clone())
        .title(program.name())
        .section(program.section)
        .manual(program.manual)
        .source("tpm-greengrass")
        // A page has a version, not a date.
        .date(program.release());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    let help = Help::of(&command);
    let mut roff = Roff::new();
    heading(&mut roff, "NAME");
    roff.text([roman(format!(
        "{} - {}",
        program.name(),
        summary(&command)?
    ))]);
    heading(&mut roff, "SYNOPSIS");
    for (number, usage) in usages(&command).into_iter().enumerate() {
        if number > 0 {
            roff.control("br", []);
        }
        roff.text([bold(usage)]);
    }
    section(&mut roff, "DESCRIPTION", &program.description);
    heading(&mut roff, "COMMANDS");
    page.extend(roff.to_roff().bytes());
    for sub in subcommands(&command) {
        page.extend(subcommand(sub)?);
    }
    page.extend(b".SH OPTIONS\n");
    page.extend(options(&command)?);
    let mut roff = Roff::new();
    heading(&mut roff, "EXIT STATUS");
    for (status, meaning) in help.statuses()? {
        entry(&mut roff, &status, &meaning);
    }
    for (title, content) in &program.sections {
        section(&mut roff, title, content);
    }
    heading(&mut roff, "EXAMPLES");
    let subs = subcommands(&command).map(Help::of);
    let examples: Vec<String> = [help]
        .into_iter()
        .chain(subs)
        .flat_map(|help| help.examples)
        .collect();
    verbatim(&mut roff, &examples);
    section(&mut roff, "SEE ALSO", &program.see_also);
    page.extend(roff.to_roff().bytes());
    Ok(page)
}

/// What a program does, as whatis(1) lists it.
fn summary(command: &Command) -> Result<String> {
    let about = command.get_about().context("what it does")?.to_string();
    let (first, rest) = about.split_at_checked(1).context("what it does")?;
    Ok(first.to_lowercase() + rest)
}

fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
}

/// How each command is called, in one line.
fn usages(command: &Command) -> Vec<String> {
    subcommands(command).map(usage).collect()
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let words: Vec<&str> = usage.split_whitespace().skip(1).collect();
    words.join(" ")
}

/// A command's part: what it does, its options, and what its help says after them.
fn subcommand(command: &Command) -> Result<Vec<u8>> {
    let mut roff = Roff::new();
    roff.control("SS", [usage(command).as_str()]);
    let about = command.get_about().context("what it does")?;
    roff.text([roman(format!("{about}."))]);
    for paragraph in Help::of(command).paragraphs {
        roff.control("PP", []);
        roff.text([roman(paragraph)]);
    }
    let mut part = roff.to_roff().into_bytes();
    part.extend(options(command)?);
    Ok(part)
}

/// A command's own options, as clap_mangen writes them, without its heading. Those of all commands are listed with the
/// program's.
fn options(command: &Command) -> Result<Vec<u8>> {
    let is_inherited = command
        .get_bin_name()
        .is_some_and(|name| name.contains(' '));
    let command = command.clone().mut_args(|argument| {
        let is_everywhere =
            argument.is_global_set() || matches!(argument.get_id().as_str(), "help" | "version");
        argument.hide(is_inherited && is_everywhere)
    });
    let mut text = Vec::new();
    Man::new(command).render_options_section(&mut text)?;
    let text = String::from_utf8(text)?;
    Ok(text.replacen(".SH OPTIONS\n", "", 1).into_bytes())
}

/// What a help text has after the options.
struct Help {
    /// The prose, without tables and lists, which are indented.
    paragraphs: Vec<String>,
    /// The lines of the examples.
    examples: Vec<String>,
}

impl Help {
    fn of(command: &Command) -> Self {
        let text = command.get_after_help().map(ToString::to_string);
        let mut paragraphs = Vec::new();
        let mut examples = Vec::new();
        for part in text.unwrap_or_default().split("\n\n") {
            match part.split_once('\n') {
                Some((head, lines)) if head.starts_with("Example") => {
                    let lines = lines
                        .lines()
                        .map(|line| line.strip_prefix("  ").unwrap_or(line));
                    examples.extend(lines.map(str::to_owned));
                }
                // "States, and what to do:"
                Some((_, lines)) if lines.starts_with(' ') => {}
                _ => paragraphs.push(part.trim().replace('\n', " ")),
            }
        }
        Self {
            paragraphs,
            examples,
        }
    }

    /// "Exit status: 0 done; 64 usage.", one by one.
    fn statuses(&self) -> Result<Vec<(String, String)>> {
        let statuses = self
            .paragraphs
            .iter()
            .find_map(|text| text.strip_prefix("Exit status: "));
        let statuses = statuses.context("a help text without exit statuses")?;
        statuses
            .trim_end_matches('.')
            .split("; ")
            .map(|status| {
                let (number, meaning) = status
                    .split_once(' ')
                    .context("a status without a meaning")?;
                Ok((number.to_owned(), meaning.to_owned()))
            })
            .collect()
    }
}

fn heading(roff: &mut Roff, title: &str) {
    roff.control("SH", [title]);
}

fn entry(roff: &mut Roff, term: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(text)]);
}

/// Lines as they are.
fn verbatim(roff: &mut Roff, lines: &[String]) {
    roff.control("RS", ["4"]);
    roff.control("nf", []);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.control("RE", []);
}

fn section(roff: &mut Roff, title: &str, content: &Section) {
    heading(roff, title);
    match content {
        Section::Paragraphs(paragraphs) => {
            for paragraph in paragraphs {
                roff.control("PP", []);
                roff.text([roman(*paragraph)]);
            }
        }
        Section::Entries(entries) => {
            for (term, text) in entries {
                entry(roff, term, text);
            }
        }
    }
}
