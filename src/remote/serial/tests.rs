//! The guest's end is played on this machine: a login that asks for name and password on a real terminal, with a real
//! shell behind it, and a kernel that writes in between.

use std::process::Stdio;
use std::sync::atomic::AtomicUsize;

use forge_machine::{Command, ExecOutcome, Guest as _};
use tokio::io::join;
use tokio::process;

use super::*;
use crate::remote::{AgentGuest, RemoteScript, ScriptEnd, ScriptOutput, run_script};

/// Asks as getty and login do, and starts again when the shell ends.
const LOGIN: &str = r#"
echo 'Linux boots'
while :; do
  printf '\nguest login: '; read -r name || exit
  [ -n "$name" ] || continue
  stty -echo; printf 'Password: '; read -r word; stty echo; echo
  if [ "$name $word" != "$WHO geheim" ]; then sleep 0.1; echo 'Login incorrect'; continue; fi
  echo 'Last login: today'
  PS1='$ ' /bin/sh -i
done
"#;

/// A kernel that says something now and then, and much when the file is there.
const NOISE: &str = r#"
while sleep 0.02; do
  n=$((n + 1))
  if [ -e "$NOISY" ] || [ $((n % 40)) = 0 ]; then printf '[   1.234567] usb 1-1: new device\n'; fi
done &
"#;

fn me() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name
}

/// A terminal of this machine; each opening is a guest that was started anew.
#[derive(Debug)]
struct Here {
    noise: bool,
    opened: AtomicUsize,
    tmp: tempfile::TempDir,
    children: std::sync::Mutex<Vec<process::Child>>,
}

impl Here {
    fn new(noise: bool) -> Arc<Self> {
        let tmp = tempfile::tempdir().unwrap();
        Arc::new(Self { noise, opened: AtomicUsize::new(0), tmp, children: std::sync::Mutex::default() })
    }

    /// Ends the terminal, as a guest does whose power is cut.
    fn cut(&self) {
        for child in self.children.lock().unwrap().iter_mut() {
            child.start_kill().unwrap();
        }
    }
}

#[async_trait]
impl OpenPort for Here {
    async fn open(&self) -> Result<Box<dyn DisplayStream>, PortError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let script = format!("{}{LOGIN}", if self.noise { NOISE } else { "" });
        let file = self.tmp.path().join("login.sh");
        std::fs::write(&file, script).unwrap();
        let mut child = process::Command::new("script")
            .args(["-qfec", &format!("/bin/sh {}", file.display()), "/dev/null"])
            .env("WHO", me())
            .env("NOISY", self.tmp.path().join("noisy"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stream = join(child.stdout.take().unwrap(), child.stdin.take().unwrap());
        self.children.lock().unwrap().push(child);
        Ok(Box::new(stream))
    }
}

fn channel(here: &Arc<Here>, password: &str) -> Arc<SerialChannel> {
    Arc::new(SerialChannel::new(here.clone(), ConsoleLogin { user: me(), password: password.into() }))
}

async fn guest(here: &Arc<Here>) -> Arc<AgentGuest> {
    AgentGuest::connect(channel(here, "geheim"), &me(), Duration::from_secs(90), &|_| {}).await.unwrap()
}

#[tokio::test]
async fn commands_input_output_and_files_pass_the_line_unharmed_while_the_kernel_writes_on_it() {
    let here = Here::new(true);
    let guest = guest(&here).await;
    assert_eq!(guest.describe(), format!("{} by the serial console", me()));
    std::fs::write(here.tmp.path().join("noisy"), "").unwrap();
    let bytes: Vec<u8> = (0..60_000_u32).map(|n| (n * 7 % 256) as u8).collect();
    let command = Command { line: "cat; exit 7".into(), stdin: bytes.clone(), ..Command::default() };
    let mut output = Vec::new();
    assert_eq!(guest.exec(&command, &mut output).await.unwrap(), ExecOutcome::Exited(7));
    assert!(output == bytes, "{} bytes came back", output.len());
    let path = here.tmp.path().join("it's a file");
    let path = path.to_str().unwrap();
    guest.put(path, &bytes, 0o640).await.unwrap();
    assert!(guest.get(path, 100_000).await.unwrap() == bytes);
    guest.close().await;
}

#[tokio::test]
async fn a_script_tells_its_end_and_the_next_login_finds_the_console_free_again() {
    struct Nowhere;
    impl ScriptOutput for Nowhere {
        fn line(&mut self, _: &str, _: bool) {}
    }
    let here = Here::new(false);
    for _ in 0..2 {
        let guest = guest(&here).await;
        let script = RemoteScript::sh("tty && exit 1; echo \"$(cat)\"; exit 4");
        let run = run_script(guest.as_ref(), &script, &mut Nowhere).await.unwrap();
        assert_eq!(run.end, ScriptEnd::Exited(4), "{run:?}");
        guest.close().await;
    }
}

#[tokio::test]
async fn a_console_that_is_lost_is_opened_and_logged_in_to_again() {
    let here = Here::new(false);
    let guest = guest(&here).await;
    here.cut();
    let mut output = Vec::new();
    guest.exec(&Command::new("echo again"), &mut output).await.unwrap();
    assert_eq!((output.as_slice(), here.opened.load(Ordering::Relaxed)), (&b"again\n"[..], 2));
    guest.close().await;
}

#[tokio::test]
async fn a_refused_password_is_said_to_be_the_reason() {
    let here = Here::new(false);
    let said = std::sync::Mutex::new(Vec::new());
    let seen = |words: &str| said.lock().unwrap().push(words.to_owned());
    let error = AgentGuest::connect(channel(&here, "falsch"), &me(), Duration::from_secs(4), &seen).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the serial console does not answer: the password is refused"), "{error}");
}
