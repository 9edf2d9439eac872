//! Shell completions, each under the name by which its shell finds it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap_complete::{Shell, generate};

use super::pages::{Program, programs};

/// The name of a program's file for this shell.
fn file_name(shell: Shell, program: &str) -> String {
    match shell {
        Shell::Zsh => format!("_{program}"),
        Shell::Fish => format!("{program}.fish"),
        _ => program.to_owned(),
    }
}

/// For bash, zsh and fish.
pub fn completions(program: &Program) -> Vec<(PathBuf, Vec<u8>)> {
    let name = program.name();
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| {
            let mut content = Vec::new();
            generate(shell, &mut program.command.clone(), &name, &mut content);
            let content = String::from_utf8_lossy(&content);
            // clap_complete 4.6.11 has two names in bash for a program with a dash, one where it looks for a command and
            // another where it offers its options.
            let content =
                content.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
            let folder = Path::new(program.folder).join("completions");
            let folder = folder.join(shell.to_string());
            (folder.join(file_name(shell, &name)), content.into_bytes())
        })
        .collect()
}

/// What bash offers for the last of these words.
fn offered(program: &Program, words: &[&str]) -> Result<Vec<String>> {
    let script = "source \"$1\"; shift\n\
                  COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))\n\
                  $(complete -p \"$1\" | sed 's/.*-F \\([^ ]*\\).*/\\1/') \"$1\" \"${!#}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut file = tempfile::NamedTempFile::new()?;
    for (path, content) in completions(program) {
        if path.ends_with(Path::new("bash").join(program.name())) {
            file.write_all(&content)?;
        }
    }
    let done = Command::new("bash")
        .args(["-uc", script, "bash"])
        .arg(file.path())
        .args(words)
        .output()?;
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(errors.is_empty(), "{errors}");
    let text = String::from_utf8(done.stdout)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Bash is on every machine that runs these tests; zsh and fish are not.
#[test]
fn bash_completes_commands_and_options() -> Result<()> {
    let [device, station] = programs();
    assert_eq!(offered(&device, &["firstboot", "st"])?, ["status"]);
    assert_eq!(
        offered(&device, &["firstboot", "status", "--j"])?,
        ["--json"]
    );
    assert_eq!(
        offered(&station, &["firstboot-station", "issue", "--ek"])?,
        ["--ek-allow-list"]
    );
    Ok(())
}
