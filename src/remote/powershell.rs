//! PowerShell as the language of a guest: what [`super::script`] and [`super::transfer`] are for guests with `/bin/sh`.
//!
//! A command line holds only a short program in `-EncodedCommand`, which reads what it is to do from its standard input
//! as base64: so neither `cmd.exe`'s quoting nor its longest line nor a code page matters, and no secret stands in a list
//! of processes. A script's end is told by its nonce, as everywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::{Command, ExecOutcome, Guest, GuestError, OutputSink, Stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::script::{Become, RemoteScript};

const BOOTSTRAP: &str = include_str!("powershell/bootstrap.ps1");
const WRAPPER: &str = include_str!("powershell/wrapper.ps1");
const RUNNER: &str = include_str!("powershell/runner.ps1");
const PUT: &str = include_str!("powershell/put.ps1");
const GET: &str = include_str!("powershell/get.ps1");
const BOOT: &str = include_str!("powershell/boot.ps1");
/// How many bytes one line of base64 stands for.
const LINE: usize = 6144;
/// How long a question about the boot may take: WMI needs its time on a busy guest.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// How PowerShell runs a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PowerShell {
    /// Its execution policy.
    pub execution_policy: String,
    /// Whether it is PowerShell 7 (`pwsh.exe`) instead of the one that Windows brings along.
    pub pwsh: bool,
}

impl Default for PowerShell {
    fn default() -> Self {
        Self { execution_policy: "Bypass".into(), pwsh: false }
    }
}

impl PowerShell {
    /// The policies that a script of forge's, which nobody has signed, may run under (about_Execution_Policies).
    pub const POLICIES: [&str; 3] = ["Bypass", "RemoteSigned", "Unrestricted"];

    fn program(&self) -> String {
        let program = if self.pwsh { "pwsh.exe" } else { "powershell.exe" };
        let policy = &self.execution_policy;
        format!("{program} -NoProfile -NonInteractive -OutputFormat Text -ExecutionPolicy {policy}")
    }
}

/// A command that runs a short program; its standard input is the program's `$input`.
#[must_use]
pub fn command(program: &str, stdin: Vec<u8>) -> Command {
    let utf16: Vec<u8> = program.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let line = format!("{} -EncodedCommand {}", PowerShell::default().program(), STANDARD.encode(utf16));
    Command { line, stdin, native: true, ..Command::default() }
}

/// Bytes as lines of base64.
fn lines(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        // Input has to end, and what is empty is not sent.
        return b"\r\n".to_vec();
    }
    bytes.chunks(LINE).flat_map(|piece| format!("{}\r\n", STANDARD.encode(piece)).into_bytes()).collect()
}

/// Bytes as one text, cut at places where base64 can be put together again.
fn joined(text: &str) -> Vec<u8> {
    // 6144 is a multiple of three: no line but the last ends in padding.
    lines(text.as_bytes())
}

/// A single-quoted text. PowerShell takes the typographer's quotes U+2018 to U+201B for single quotes too, and any of them
/// that stands twice for itself (its tokenizer, `IsSingleQuote`).
#[must_use]
pub fn quoted(text: &str) -> String {
    let quote = |c: char| matches!(c, '\'' | '\u{2018}'..='\u{201b}');
    let doubled: String =
        text.chars().flat_map(|c| std::iter::repeat_n(c, if quote(c) { 2 } else { 1 })).collect();
    format!("'{doubled}'")
}

/// What is run for a script, and what goes over its standard input.
pub(super) fn of_script(script: &RemoteScript, shell: &PowerShell) -> Command {
    let variables = variables(&script.env);
    let dir = script.dir.as_deref().map(|dir| format!("Set-Location -LiteralPath {}", quoted(dir)));
    let runner = RUNNER.replace("@VARIABLES@", &variables).replace("@DIR@", &dir.unwrap_or_default());
    let text = WRAPPER
        .replace("@NONCE@", script.sentinel.nonce())
        .replace("@ELEVATED@", if script.become_root == Become::No { "no" } else { "yes" })
        .replace("@INTERPRETER@", &shell.program())
        .replace("@LIMIT@", &format!("PT{}S", script.timeout.map_or(0, super::script::seconds)))
        .replace("@RUNNER@", &STANDARD.encode(runner))
        .replace("@SCRIPT@", &STANDARD.encode(&script.content));
    Command { timeout: script.timeout, ..command(BOOTSTRAP, joined(&text)) }
}

/// What a command of [`of_script`] is given, in plain.
pub(super) fn given(command: &Command) -> Option<String> {
    let text = String::from_utf8(command.stdin.clone()).ok()?;
    let whole: String = text.split_whitespace().collect();
    String::from_utf8(STANDARD.decode(whole).ok()?).ok()
}

fn variables(env: &BTreeMap<String, String>) -> String {
    env.iter().fold(String::new(), |mut text, (name, value)| {
        _ = writeln!(text, "Set-ForgeVariable {} '{}'", quoted(name), STANDARD.encode(value));
        text
    })
}

fn failed(path: &str, source: impl Into<forge_machine::error::Cause>) -> GuestError {
    GuestError::Transfer { path: path.to_owned(), source: source.into() }
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Both streams of a command, one apart from the other.
#[derive(Default)]
struct Split {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl OutputSink for Split {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.out.extend_from_slice(bytes),
            Stream::Stderr if self.err.len() < 4096 => self.err.extend_from_slice(bytes),
            Stream::Stderr => {}
        }
    }
}

async fn run(guest: &dyn Guest, command: &Command, path: &str) -> Result<String, GuestError> {
    let mut output = Split::default();
    let outcome = guest.exec(command, &mut output).await?;
    let said = String::from_utf8_lossy(&output.err).trim().to_owned();
    match outcome {
        ExecOutcome::Exited(0) => Ok(String::from_utf8_lossy(&output.out).into_owned()),
        ExecOutcome::Exited(_) if !said.is_empty() => Err(failed(path, said)),
        ExecOutcome::Exited(status) => Err(failed(path, format!("PowerShell exited with status {status}"))),
        ExecOutcome::Signalled => Err(failed(path, "PowerShell was ended")),
        ExecOutcome::Disconnected => Err(failed(path, "the connection was lost")),
    }
}

/// Writes a file: under another name, its checksum compared, then moved to its place.
///
/// # Errors
/// When the guest can't be reached or the file can't be written.
pub async fn put(guest: &dyn Guest, path: &str, content: &[u8]) -> Result<(), GuestError> {
    let sum = hex(content);
    let program = PUT.replace("@PATH@", &STANDARD.encode(path)).replace("@SUM@", &sum);
    let said = run(guest, &command(&program, lines(content)), path).await?;
    // Its own word, with what it wrote: an exit status alone proves nothing.
    match said.lines().any(|line| line.trim().strip_prefix("forge-put ") == Some(&sum)) {
        true => Ok(()),
        false => Err(failed(path, "PowerShell did not say that the file is there")),
    }
}

/// Reads a file of at most `limit` bytes, and compares its checksum.
///
/// # Errors
/// When the guest can't be reached, or the file can't be read or is larger.
pub async fn get(guest: &dyn Guest, path: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX).to_string();
    let program = GET.replace("@PATH@", &STANDARD.encode(path)).replace("@LIMIT@", &limit);
    let said = run(guest, &command(&program, Vec::new()), path).await?;
    let (mut content, mut sum) = (Vec::new(), None);
    for line in said.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("forge-get ") {
            Some(told) => sum = Some(told.to_owned()),
            None => content
                .extend(STANDARD.decode(line).map_err(|error| failed(path, format!("a line: {error}")))?),
        }
    }
    match sum {
        Some(sum) if sum == hex(&content) => Ok(content),
        Some(_) => Err(failed(path, "the checksum differs")),
        None => Err(failed(path, "the end of the file did not come")),
    }
}

/// What tells one boot from another: when the first process of the session manager's was started. `None` when the guest
/// does not answer.
///
/// The time of the boot that Windows tells itself moves when its clock is set; this one does not.
pub async fn boot_id(guest: &dyn Guest) -> Option<String> {
    let mut output = Split::default();
    let command = Command { timeout: Some(LOOK_LIMIT), ..command(BOOT, Vec::new()) };
    match guest.exec(&command, &mut output).await {
        Ok(ExecOutcome::Exited(0)) => {
            let text = String::from_utf8_lossy(&output.out).into_owned();
            let id = text.lines().find_map(|line| line.trim().strip_prefix("boot "))?.trim().to_owned();
            (!id.is_empty()).then_some(id)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_fits_into_the_longest_line_of_cmd() {
        let path = STANDARD.encode(format!("C:\\{}", "x".repeat(260)));
        for program in
            [BOOTSTRAP.to_owned(), PUT.replace("@PATH@", &path), GET.replace("@PATH@", &path), BOOT.into()]
        {
            let line = command(&program, Vec::new()).line;
            assert!(line.len() < 8000, "{} characters: {program}", line.len());
            assert!(line.chars().all(|c| c.is_ascii_alphanumeric() || " -.+/=".contains(c)), "{line}");
        }
    }

    #[test]
    fn a_quoted_text_is_one_text_whichever_quotes_it_holds() {
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(quoted("a‘b’c‚d‛e\"“”"), "'a‘‘b’’c‚‚d‛‛e\"“”'");
    }

    #[test]
    fn neither_the_nonce_nor_a_variable_stands_on_the_command_line_and_input_is_base64() {
        let mut script = RemoteScript::powershell("Write-Output 'ü'", PowerShell::default());
        script.env.insert("SECRET".into(), "geheim'".into());
        let command = script.command();
        assert!(command.native && !command.line.contains(script.sentinel.nonce()));
        let text: String =
            String::from_utf8(command.stdin).unwrap().lines().map(str::trim).collect::<Vec<_>>().concat();
        let wrapper = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        assert!(
            wrapper.contains(script.sentinel.nonce())
                && wrapper.contains(&STANDARD.encode("Write-Output 'ü'"))
        );
        assert!(!wrapper.contains('@') || !wrapper.contains("@NONCE@"));
        for left in ["@NONCE@", "@SCRIPT@", "@RUNNER@", "@INTERPRETER@", "@ELEVATED@", "@LIMIT@"] {
            assert!(!wrapper.contains(left), "{left}");
        }
    }
}
