//! What README.md's tables say of commands: each of them, with each of its options, is one that forge takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("the file")
}

/// The help of commands, asked for once each.
#[derive(Default)]
struct Helps(BTreeMap<String, String>);

impl Helps {
    fn of(&mut self, words: &[&str]) -> String {
        let ask = || {
            let output = Command::new(env!("CARGO_BIN_EXE_forge")).args(words).arg("--help").output();
            String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
        };
        self.0.entry(words.join(" ")).or_insert_with(ask).clone()
    }

    /// The command that a call names, with its help.
    fn command(&mut self, words: &[&str]) -> (String, String) {
        let help = self.of(&words[..1]);
        let plain = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let has =
            |word: &&&str| plain(word) && help.lines().any(|line| line.starts_with(&format!("  {word} ")));
        match words.get(1).filter(has) {
            Some(second) => (format!("{} {second}", words[0]), self.of(&[words[0], second])),
            None => (words[0].to_owned(), help),
        }
    }
}

/// Whether a help names an option.
fn takes(help: &str, option: &str) -> bool {
    help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == option)
}

/// The options among words; what may be left out stands in brackets.
fn options<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let bare = words.iter().map(|word| word.trim_matches(['[', ']', '…']));
    bare.filter(|word| word.starts_with('-')).map(|word| word.split('=').next().unwrap_or_default()).collect()
}

#[test]
fn each_shells_completions_offer_every_command_and_are_read_by_the_shells_that_are_here() {
    let forge = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_forge")).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let help = forge(&["--help"]);
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let commands: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 20 && commands.contains(&"build"), "{help}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = forge(&["completions", shell]);
        for command in &commands {
            assert!(script.contains(command), "{shell} does not offer {command}");
        }
        for option in ["on-error", "env-file"] {
            assert!(script.contains(option), "{shell} does not offer --{option}");
        }
        let mut file = tempfile::tempfile().expect("a file");
        std::io::Write::write_all(&mut file, script.as_bytes()).expect("written");
        std::io::Seek::rewind(&mut file).expect("rewound");
        // One that is not here reads nothing.
        if let Ok(read) = Command::new(shell).arg("-n").stdin(file).output()
            && ["bash", "zsh", "fish"].contains(&shell)
        {
            assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
        }
    }
}

#[test]
fn every_command_and_option_in_the_tables_is_one_that_forge_takes() {
    let (mut helps, mut commands, mut wrong) =
        (Helps::default(), BTreeMap::<String, usize>::new(), Vec::new());
    let makefile = read("os-profiles/pipelines/Makefile");
    for row in read("README.md").lines().filter(|line| line.starts_with("| ")) {
        let mut named: Vec<String> = Vec::new();
        for (index, span) in row.split('`').enumerate().filter(|(index, _)| index % 2 == 1) {
            let words: Vec<&str> = span.split_whitespace().collect();
            match words.as_slice() {
                ["forge", rest @ ..] if !rest.is_empty() => {
                    let (command, help) = helps.command(rest);
                    if !help.contains(&format!("Usage: forge {command}")) {
                        wrong.push(format!("`{span}`: there is no `forge {command}`"));
                    }
                    let unknown = options(rest).into_iter().filter(|option| !takes(&help, option));
                    wrong.extend(unknown.map(|option| format!("`{span}`: forge {command} has no {option}")));
                    *commands.entry(command).or_default() += 1;
                    named.push(help);
                }
                ["make", goal, ..] => {
                    let is_there = makefile.lines().any(|line| match line.split_once(':') {
                        Some((rule, _)) => match rule.split_once('%') {
                            Some((start, _)) => !start.is_empty() && goal.starts_with(start),
                            None => rule == *goal,
                        },
                        None => false,
                    });
                    if !is_there {
                        wrong.push(format!("`{span}`: the Makefile has no such goal"));
                    }
                }
                // Before a command of forge's they are the other program's.
                [first, ..] if first.starts_with("--") && !named.is_empty() => {
                    for option in options(&words) {
                        if !named.iter().any(|help| takes(help, option)) {
                            wrong.push(format!(
                                "`{span}` ({index}): no command of this row takes {option}: {row:.60}"
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Every command is in a table, and what takes the place of the scripts is told.
    let all = helps.of(&["help"]);
    let listed = all.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let listed =
        listed.take_while(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next());
    for command in listed.filter(|command| *command != "help") {
        let is_named = commands.keys().any(|name| name.split(' ').next() == Some(command));
        assert!(is_named, "`forge {command}` is in no table: {commands:?}");
    }
}

/// What the users' own documents name: scripts, paths, variables and outputs.
#[test]
fn every_script_path_and_variable_of_the_pipelines_that_are_replaced_is_in_the_table() {
    let readme = read("README.md");
    let table = readme.split("### From scripts around Packer").nth(1).expect("the table");
    let table = table.split("\n## ").next().expect("it ends");
    for name in [
        "init-proxmox-env.sh",
        "init-packer-remote.sh",
        "proxmox.conf",
        "control/secrets.env",
        "SKIP_TOKEN_GEN",
        "TOKEN_SECRET",
        "STORAGE_VM",
        "STORAGE_ISO",
        "build-wrapper.sh",
        "--hint-target",
        "--default-vmid",
        "chain-lib.sh",
        "CHAIN_ID",
        "evidence_packer.sh",
        "prestage-iso.sh",
        "render_unattended.sh",
        "test-template.sh",
        "validate-all.sh",
        "infra/env/.env.proxmox",
        "output/logs/packer/init/<time>/init-packer.log",
        "output/logs/packer/builds/<key>/<time>/packer.log",
        "docs/proof/…/init/<time>/",
        "docs/proof/…/builds/<key>/<time>/",
        "output/artifacts/infra/packer/",
        "README.md",
        "proof.json",
        "latest",
        "PROXMOX_URL",
        "PROXMOX_TOKEN_ID",
        "PROXMOX_TOKEN_SECRET",
        "PROXMOX_NODE",
        "PROXMOX_SKIP_TLS_VERIFY",
        "PROXMOX_STORAGE_VM",
        "PROXMOX_STORAGE_ISO",
        "PROXMOX_CLOUDINIT_STORAGE",
        "PROXMOX_BRIDGE",
        "PACKER_HTTP_BIND_ADDRESS",
        "PACKER_HTTP_PORT",
        "make init",
        "make validate",
        "make build-ubuntu-2204",
        "packer-build-dev",
        "packer-build-prod",
        "template_id",
        "build_number",
        "PACKER_LOG=1",
        "http_directory",
        "keep the last 3, archive after 90 days",
    ] {
        assert!(table.contains(name), "{name} is not in the table");
    }
}
