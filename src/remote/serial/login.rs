//! Gets from whatever a serial console shows to a shell of the wanted user.
//!
//! A guest that boots writes for a while, asks who logs in, and then for the password. Nothing is typed before it asks:
//! what runs there may be a boot menu or an installer. Only a console that says nothing for some time is given an empty
//! line, because what it had to say was said before anybody listened.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// After so long without a word an empty line is typed.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// After a password so long without a word means that a shell waits, whatever its prompt looks like.
const SETTLED: Duration = Duration::from_secs(2);

/// A line that has not ended counts as a question only when nothing follows for so long.
pub(super) const QUIET: Duration = Duration::from_millis(200);

const SERVER: &str = include_str!("server.sh");

/// Who logs in.
#[derive(Clone)]
pub struct ConsoleLogin {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for ConsoleLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleLogin").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Whether a line is the kernel's (`[    3.141592] usb 1-1: …`), which writes at any time and asks nothing.
pub(super) fn is_of_the_kernel(line: &str) -> bool {
    let time = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']'));
    time.is_some_and(|(time, _)| time.trim().parse::<f64>().is_ok())
}

/// Where a login has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was typed yet.
    Watching,
    /// The user's name was.
    Named,
    /// The password was.
    Proved,
    /// The line that starts the guest's end.
    Started,
    /// It runs and waits for its own text.
    Listening,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Do {
    /// Go on watching; at the latest after this time look again.
    Wait(Duration),
    /// Type this line: it answers the one that has not ended.
    Type(String),
}

/// A login while it goes on.
#[derive(Debug)]
pub(super) struct Login {
    stage: Stage,
    mark: String,
    /// Whether the guest's end ran before and may still do: it says nothing to an empty line, and is greeted once.
    greets: bool,
    /// Whether the password was just refused.
    pub refused: bool,
    /// What is seen, for people.
    pub seen: String,
}

impl Login {
    pub(super) fn new(mark: &str, known: bool) -> Self {
        Self {
            stage: Stage::Watching,
            mark: mark.to_owned(),
            greets: known,
            refused: false,
            seen: String::new(),
        }
    }

    /// Takes a whole line. `Some` is the user whose shell has answered.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        if line.contains(&format!("{} listens", self.mark)) {
            self.stage = Stage::Listening;
            return None;
        }
        let ready = format!("{} ready ", self.mark);
        if let Some((_, user)) = line.split_once(&ready) {
            return Some(user.trim().to_owned());
        }
        let text: String = line.chars().filter(|c| !c.is_control()).collect();
        if text.to_ascii_lowercase().contains("login incorrect") {
            self.refused = true;
            "the password is refused".clone_into(&mut self.seen);
        } else if !text.trim().is_empty() && self.stage == Stage::Watching {
            self.seen = format!("it says `{}`", text.trim().chars().take(80).collect::<String>());
        }
        None
    }

    /// Says what to do about a line that has not ended, and about a silence.
    pub(super) fn prompt(&mut self, prompt: &str, silent: Duration, login: &ConsoleLogin) -> Do {
        if self.stage == Stage::Listening {
            self.stage = Stage::Started;
            return Do::Type(server());
        }
        if silent < QUIET {
            return Do::Wait(QUIET);
        }
        let end = prompt.trim_end().to_ascii_lowercase();
        if end.ends_with("login:") {
            self.stage = Stage::Named;
            "it asks who logs in".clone_into(&mut self.seen);
            return Do::Type(login.user.clone());
        }
        if end.ends_with("assword:") {
            self.stage = Stage::Proved;
            return Do::Type(login.password.clone());
        }
        if self.greets {
            self.greets = false;
            return Do::Type(format!("{} hello", self.mark));
        }
        let shell = end.ends_with('$') || end.ends_with('#');
        let waits = shell || (self.stage == Stage::Proved && silent >= SETTLED);
        if waits && self.stage != Stage::Started {
            self.stage = Stage::Started;
            return Do::Type(start_line(&self.mark));
        }
        if silent >= SILENCE {
            // What was begun has come to nothing.
            self.stage = Stage::Watching;
            // Who asks for a login asks again.
            return Do::Type(String::new());
        }
        Do::Wait(if self.stage == Stage::Proved { SETTLED } else { SILENCE })
    }
}

/// The line that puts the guest's end in place of the shell, which then reads its own text: a shell may take no more
/// than 1023 characters of a line (busybox). The mark is not in its echo.
fn start_line(mark: &str) -> String {
    let (head, tail) = mark.split_at(mark.len() / 2);
    let read = "echo; echo \"$1 listens\"; eval \"$(while read -r l && [ \"$l\" != . ]; do echo \"$l\"; done | base64 -d)\"";
    format!("stty -echo; exec /bin/sh -c '{read}' forge {head}''{tail}")
}

/// The text of the guest's end, line by line, with the dot after it.
fn server() -> String {
    let server = STANDARD.encode(SERVER);
    let lines = server.as_bytes().chunks(500).map(String::from_utf8_lossy);
    lines.chain(std::iter::once(".".into())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_known_by_its_clock() {
        assert!(is_of_the_kernel("[    3.141592] usb 1-1: new") && is_of_the_kernel("[12.5] x"));
        assert!(!is_of_the_kernel("[  OK  ] Started ssh") && !is_of_the_kernel("tiny login: [    3.1] usb"));
    }

    #[test]
    fn it_answers_what_is_asked_and_types_nothing_before() {
        let who = ConsoleLogin { user: "forge".into(), password: "geheim".into() };
        let mut login = Login::new("mark-1", false);
        let now = QUIET;
        assert_eq!(login.prompt("Linux version 6.1 #", Duration::ZERO, &who), Do::Wait(QUIET));
        assert_eq!(login.prompt("Automatic boot in 5", now, &who), Do::Wait(SILENCE));
        assert_eq!(login.line("[    0.1] Linux version 6.1"), None);
        assert_eq!(login.seen, "it says `[    0.1] Linux version 6.1`");
        assert_eq!(login.prompt("tiny login: ", now, &who), Do::Type("forge".into()));
        assert_eq!(login.prompt("Password: ", now, &who), Do::Type("geheim".into()));
        assert_eq!(login.line("Login incorrect"), None);
        assert!(login.refused && login.seen.contains("refused"));
        assert_eq!(login.prompt("tiny login:", now, &who), Do::Type("forge".into()));
        login.prompt("Password:", now, &who);
        assert_eq!(login.prompt("", now, &who), Do::Wait(SETTLED));
        let Do::Type(line) = login.prompt("forge@tiny:~$ ", now, &who) else { panic!() };
        assert!(!line.contains("mark-1") && line.len() < 250, "{} bytes", line.len());
        assert_eq!(login.prompt("forge@tiny:~$ ", now, &who), Do::Wait(SILENCE));
        assert_eq!(login.prompt("", SILENCE, &who), Do::Type(String::new()));
        assert_eq!(login.line("mark-1 listens"), None);
        assert!(matches!(login.prompt("", now, &who), Do::Type(text) if text.ends_with("\n.")));
        assert_eq!(login.line("mark-1 ready forge").as_deref(), Some("forge"));
        let mut again = Login::new("mark-1", true);
        assert_eq!(again.prompt("tiny login: ", now, &who), Do::Type("forge".into()));
        let mut again = Login::new("mark-1", true);
        assert_eq!(again.prompt("", now, &who), Do::Type("mark-1 hello".into()));
        assert_eq!(again.prompt("", SILENCE, &who), Do::Type(String::new()));
    }
}
