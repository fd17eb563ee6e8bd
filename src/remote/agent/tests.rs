//! The agent's end is played on this machine: programs are really run, answers come as the agent gives them, and get lost.

use std::collections::BTreeMap;
use std::process::Stdio;

use super::*;
use crate::remote::{RemoteScript, ScriptEnd, ScriptOutput, run_script};

/// An agent on this machine, which loses each n-th answer after its work was done.
#[derive(Debug)]
struct Here {
    scratch: tempfile::TempDir,
    loses_each: u64,
    /// Stores only so many bytes of each write of input, and says that all is well.
    stores: Option<usize>,
    calls: AtomicU64,
    programs: tokio::sync::Mutex<BTreeMap<i64, tokio::process::Child>>,
}

impl Here {
    fn lost(&self) -> Result<(), AgentError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.loses_each > 0 && call.is_multiple_of(self.loses_each) {
            return Err(AgentError::Silent { source: "the test lost the answer".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl AgentChannel for Here {
    fn chunk(&self) -> usize {
        1000
    }

    async fn start(&self, words: &[&str]) -> Result<i64, AgentError> {
        let child = tokio::process::Command::new(words[0])
            .args(&words[1..])
            // A script whose shell is killed leaves its folder there.
            .env("TMPDIR", self.scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let number = i64::from(child.id().unwrap());
        self.programs.lock().await.insert(number, child);
        self.lost().map(|()| number)
    }

    async fn ended(&self, number: i64) -> Result<Option<AgentExit>, AgentError> {
        let Some(child) = self.programs.lock().await.remove(&number) else {
            return Err(AgentError::Silent { source: "PID does not exist".into() });
        };
        let output = child.wait_with_output().await.unwrap();
        self.lost()?;
        Ok(Some(AgentExit { code: output.status.code(), stdout: output.stdout, stderr: output.stderr }))
    }

    async fn write(&self, path: &str, content: &[u8]) -> Result<(), AgentError> {
        let kept = if path.contains(".in.") { self.stores.unwrap_or(usize::MAX) } else { usize::MAX };
        std::fs::write(path, &content[..content.len().min(kept)])
            .map_err(|error| AgentError::Refused { call: "write a file", source: error.into() })?;
        self.lost()
    }
}

fn me() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap();
    user.name
}

fn here() -> Here {
    Here {
        scratch: tempfile::tempdir().unwrap(),
        loses_each: 0,
        stores: None,
        calls: AtomicU64::default(),
        programs: tokio::sync::Mutex::default(),
    }
}

async fn guest(loses_each: u64) -> Arc<AgentGuest> {
    let here = Here { loses_each, ..here() };
    AgentGuest::connect(Arc::new(here), &me(), Duration::from_secs(60), &|_| {}).await.unwrap()
}

#[derive(Default)]
struct Both(Vec<u8>, Vec<u8>);

impl OutputSink for Both {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.0.extend_from_slice(bytes),
            Stream::Stderr => self.1.extend_from_slice(bytes),
        }
    }
}

#[tokio::test]
async fn status_streams_input_and_variables_come_through_also_when_answers_are_lost() {
    for loses_each in [0, 5, 7] {
        let guest = guest(loses_each).await;
        let folder = guest.folder().unwrap();
        let input: Vec<u8> = (0..5000_u32).map(|n| (n % 251) as u8).collect();
        let command = Command {
            native: false,
            line: "cat; printf '%s' \"$A\" >&2; exit 7".into(),
            stdin: input.clone(),
            env: [("A".to_owned(), "it's \"so\"".to_owned())].into(),
            timeout: None,
            file: None,
        };
        let mut both = Both::default();
        assert_eq!(guest.exec(&command, &mut both).await.unwrap(), ExecOutcome::Exited(7));
        assert_eq!((both.0 == input, both.1.as_slice()), (true, &b"it's \"so\""[..]), "loses {loses_each}");
        guest.close().await;
        for folder in [&folder.memory, &folder.disk] {
            if loses_each == 0 {
                assert!(!std::path::Path::new(folder).exists(), "the folder is removed");
            }
            _ = std::fs::remove_dir_all(folder);
        }
    }
}

#[tokio::test]
async fn a_command_is_run_once_however_often_its_start_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let guest = guest(5).await;
    let command = Command::new(format!("echo once >>{}/log", dir.path().display()));
    assert_eq!(guest.exec(&command, &mut ()).await.unwrap(), ExecOutcome::Exited(0));
    assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), "once\n");
    let folder = guest.folder().unwrap();
    _ = [folder.memory, folder.disk].map(std::fs::remove_dir_all);
}

#[tokio::test]
async fn output_comes_while_the_command_runs() {
    struct Gate(Arc<tokio::sync::Notify>, Vec<u8>);
    impl OutputSink for Gate {
        fn write(&mut self, _: Stream, bytes: &[u8]) {
            self.1.extend_from_slice(bytes);
            self.0.notify_one();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let guest = guest(0).await;
    let told = Arc::new(tokio::sync::Notify::new());
    let mut gate = Gate(told.clone(), Vec::new());
    // It ends only when its first line was seen.
    let line =
        format!("echo first; until [ -e {0}/go ]; do sleep 0.1; done; echo last", dir.path().display());
    let go = async {
        told.notified().await;
        std::fs::write(dir.path().join("go"), "").unwrap();
    };
    let command = Command::new(line);
    let (outcome, ()) = tokio::join!(guest.exec(&command, &mut gate), go);
    assert_eq!((outcome.unwrap(), gate.1.as_slice()), (ExecOutcome::Exited(0), &b"first\nlast\n"[..]));
    guest.close().await;
}

#[tokio::test]
async fn output_of_several_calls_binary_too_arrives_whole() {
    let guest = guest(0).await;
    let mut both = Both::default();
    let command = Command::new("head -c 1500000 /dev/zero; echo; head -c 700000 /dev/zero >&2; kill -9 $$");
    // The shell that the command is run by tells of the signal as shells do.
    assert_eq!(guest.exec(&command, &mut both).await.unwrap(), ExecOutcome::Exited(137));
    assert_eq!(both.0.len(), 1_500_001);
    assert!(both.1.len() >= 700_000);
    guest.close().await;
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_in_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let guest = guest(0).await;
    let line = format!("echo $$ >{}/pid; sleep 1000", dir.path().display());
    let command = Command { timeout: Some(Duration::from_secs(2)), ..Command::new(line) };
    let error = guest.exec(&command, &mut ()).await.unwrap_err();
    assert!(matches!(error, GuestError::TimedOut { .. }), "{error}");
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    let still_there = || std::path::Path::new(&format!("/proc/{}/cwd", pid.trim())).exists();
    timeout(Duration::from_secs(60), async {
        while still_there() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it is ended");
    guest.close().await;
}

#[tokio::test]
async fn what_a_command_is_given_lies_in_memory_and_what_is_long_or_printed_on_the_disk() {
    let guest = guest(0).await;
    let folder = guest.folder().unwrap();
    if !folder.memory.starts_with("/dev/shm/") {
        eprintln!("skipped: nothing can be written to /dev/shm here");
        return;
    }
    for (length, place) in [(10, &folder.memory), (MOST_IN_MEMORY + 1, &folder.disk)] {
        let line = format!("readlink /proc/self/fd/0; readlink /proc/self/fd/1; ls -d {place}/*.line; wc -c");
        let command = Command { stdin: vec![b'x'; length], ..Command::new(line) };
        let mut both = Both::default();
        assert_eq!(guest.exec(&command, &mut both).await.unwrap(), ExecOutcome::Exited(0));
        let told = String::from_utf8(both.0).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with(place.as_str()), "{told}");
        assert!(lines[1].starts_with(&folder.disk), "{told}");
        assert_eq!(lines[2..], [length.to_string()], "the line is gone before the command runs");
    }
    guest.close().await;
}

#[tokio::test]
async fn input_that_finds_no_room_or_comes_in_half_is_an_error_and_the_command_is_not_run() {
    for half in [false, true] {
        let here = Here { stores: half.then_some(500), ..here() };
        let guest =
            AgentGuest::connect(Arc::new(here), &me(), Duration::from_secs(60), &|_| {}).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ran");
        if !half {
            // Nothing can be stored where a folder stands.
            std::fs::create_dir(format!("{}/0.in", guest.folder().unwrap().memory)).unwrap();
        }
        let line = format!("touch {}; cat", mark.display());
        let command = Command { stdin: vec![b'x'; 2500], ..Command::new(line) };
        let error = guest.exec(&command, &mut ()).await.unwrap_err();
        let told = crate::engine::error::chain(&error);
        assert!(told.contains("could not store what the command reads"), "{told}");
        assert!(told.contains(if half { "1500 of 2500 bytes" } else { "irectory" }), "{told}");
        assert!(!mark.exists());
        guest.close().await;
    }
}

#[tokio::test]
async fn a_command_whose_status_finds_no_room_is_no_success_and_not_waited_for_for_ever() {
    let guest = guest(0).await;
    std::fs::create_dir(format!("{}/0.ended", guest.folder().unwrap().memory)).unwrap();
    assert_eq!(guest.exec(&Command::new("true"), &mut ()).await.unwrap(), ExecOutcome::Signalled);
    guest.close().await;
}

#[tokio::test]
async fn a_guest_that_was_started_anew_under_a_command_is_lost_and_then_found_again() {
    let guest = guest(0).await;
    let folder = guest.folder().unwrap();
    // Its memory is gone, or only its boot is another one.
    for line in [
        format!("rm -rf {}; sleep 600", folder.memory),
        format!("echo another >{}/2.boot; sleep 600", folder.memory),
    ] {
        assert_eq!(guest.exec(&Command::new(line), &mut ()).await.unwrap(), ExecOutcome::Disconnected);
        assert_eq!(guest.exec(&Command::new("exit 3"), &mut ()).await.unwrap(), ExecOutcome::Exited(3));
    }
    guest.close().await;
}

#[tokio::test]
async fn a_command_whose_runner_is_killed_is_told_as_that() {
    let guest = guest(0).await;
    let line = "echo so far; kill -9 $PPID; sleep 0.1";
    let mut both = Both::default();
    assert_eq!(guest.exec(&Command::new(line), &mut both).await.unwrap(), ExecOutcome::Signalled);
    assert_eq!(both.0, b"so far\n");
    guest.close().await;
}

/// An answer that makes no sense once a script has begun.
#[derive(Debug)]
struct Garbles(Here, AtomicU64);

#[async_trait]
impl AgentChannel for Garbles {
    fn chunk(&self) -> usize {
        self.0.chunk()
    }
    async fn start(&self, words: &[&str]) -> Result<i64, AgentError> {
        self.0.start(words).await
    }
    async fn ended(&self, number: i64) -> Result<Option<AgentExit>, AgentError> {
        let mut answer = self.0.ended(number).await?;
        if let Some(exit) = &mut answer
            && exit.stdout.windows(7).any(|bytes| bytes == b" begin ")
            && self.1.fetch_add(1, Ordering::Relaxed) == 0
        {
            return Ok(answer);
        }
        if let (Some(exit), 1) = (&mut answer, self.1.load(Ordering::Relaxed)) {
            exit.stdout = b"nonsense".to_vec();
        }
        Ok(answer)
    }
    async fn write(&self, path: &str, content: &[u8]) -> Result<(), AgentError> {
        self.0.write(path, content).await
    }
}

#[tokio::test]
async fn a_script_that_had_begun_is_none_that_could_not_be_started() {
    struct Nothing;
    impl ScriptOutput for Nothing {
        fn line(&mut self, _: &str, _: bool) {}
    }
    let channel = Arc::new(Garbles(here(), AtomicU64::new(0)));
    let guest = AgentGuest::connect(channel, &me(), Duration::from_secs(60), &|_| {}).await.unwrap();
    let run = run_script(guest.as_ref(), &RemoteScript::sh("sleep 3; sleep 3"), &mut Nothing).await.unwrap();
    assert!(run.begun.is_some());
    assert_eq!(run.end, ScriptEnd::Truncated(ExecOutcome::Disconnected));
    assert!(run.tail.concat().contains("makes no sense"), "{:?}", run.tail);
    guest.close().await;
}

#[tokio::test]
async fn files_go_there_and_back_with_their_modes() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let guest = guest(0).await;
    let path = dir.path().join("it's a file").display().to_string();
    let content: Vec<u8> = (0..40_000_u32).map(|n| (n * 7 % 256) as u8).collect();
    guest.put(&path, &content, 0o640).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(guest.get(&path, 1 << 20).await.unwrap() == content);
    let error = guest.get(&path, 100).await.unwrap_err();
    assert!(crate::engine::error::chain(&error).contains("larger than 100 bytes"), "{error}");
    assert!(guest.put("/no/such/folder/x", b"", 0o600).await.is_err());
    guest.close().await;
}

#[tokio::test]
async fn a_script_can_t_lie_about_its_end_by_the_agent_either() {
    struct Lines(Vec<String>);
    impl ScriptOutput for Lines {
        fn line(&mut self, line: &str, _stderr: bool) {
            self.0.push(line.to_owned());
        }
    }
    let guest = guest(0).await;
    let mut lines = Lines(Vec::new());
    let run = run_script(guest.as_ref(), &RemoteScript::sh("echo so; exit 3"), &mut lines).await.unwrap();
    assert_eq!((run.end, lines.0.as_slice()), (ScriptEnd::Exited(3), &["so".to_owned()][..]));
    let run =
        run_script(guest.as_ref(), &RemoteScript::sh("kill -9 $PPID; sleep 0.1"), &mut lines).await.unwrap();
    assert!(matches!(run.end, ScriptEnd::Truncated(_)), "{run:?}");
    guest.close().await;
}

/// An agent whose guest is at work on its first call until it is let go on; and what was asked for, with the folder's name.
#[derive(Debug)]
struct Slow(Here, tokio::sync::Semaphore, Mutex<Vec<(String, String)>>);

#[async_trait]
impl AgentChannel for Slow {
    fn chunk(&self) -> usize {
        self.0.chunk()
    }
    async fn start(&self, words: &[&str]) -> Result<i64, AgentError> {
        let number = self.0.start(words).await?;
        self.2.lock().unwrap().push((words[2].to_owned(), words[4].to_owned()));
        Ok(number)
    }
    async fn ended(&self, number: i64) -> Result<Option<AgentExit>, AgentError> {
        if self.1.available_permits() == 0 { Ok(None) } else { self.0.ended(number).await }
    }
    async fn write(&self, path: &str, content: &[u8]) -> Result<(), AgentError> {
        self.0.write(path, content).await
    }
}

#[tokio::test]
async fn what_was_being_made_when_the_agent_was_given_up_is_removed_when_it_is_made() {
    let slow = Arc::new(Slow(here(), tokio::sync::Semaphore::new(0), Mutex::default()));
    let (channel, user) = (slow.clone(), me());
    let connecting = tokio::spawn(async move {
        AgentGuest::connect(channel, &user, Duration::from_secs(60), &|_| {}).await.map(drop)
    });
    let asked = || slow.2.lock().unwrap().clone();
    let until = async |number: usize| {
        while asked().len() < number {
            tokio::task::yield_now().await;
        }
    };
    until(1).await;
    connecting.abort();
    assert!(connecting.await.unwrap_err().is_cancelled());
    let (first, name) = asked().remove(0);
    assert_eq!(
        (first.as_str(), asked().len()),
        (BEGIN, 1),
        "nothing is removed while it is still being made"
    );
    slow.1.add_permits(1);
    until(2).await;
    assert_eq!(asked().pop(), Some((TAKE_BACK.to_owned(), name.clone())));
    let there = || {
        ["/dev/shm", "/var/tmp", "/tmp"].iter().any(|base| std::path::Path::new(base).join(&name).exists())
    };
    while there() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_agent_that_may_not_be_used_is_told_at_once_and_a_silent_one_with_what_was_seen() {
    #[derive(Debug)]
    struct Never(bool);
    #[async_trait]
    impl AgentChannel for Never {
        fn chunk(&self) -> usize {
            1
        }
        async fn start(&self, _: &[&str]) -> Result<i64, AgentError> {
            Err(match self.0 {
                true => AgentError::Denied { source: "lacks VM.GuestAgent.Unrestricted".into() },
                false => AgentError::Silent { source: "QEMU guest agent is not running".into() },
            })
        }
        async fn ended(&self, _: i64) -> Result<Option<AgentExit>, AgentError> {
            unreachable!("nothing was started")
        }
        async fn write(&self, _: &str, _: &[u8]) -> Result<(), AgentError> {
            unreachable!("there is no folder")
        }
    }
    let connect = |denied| async move {
        let limit = Duration::from_millis(300);
        AgentGuest::connect(Arc::new(Never(denied)), "root", limit, &|_| {}).await.unwrap_err().to_string()
    };
    assert!(connect(true).await.contains("VM.GuestAgent.Unrestricted"));
    let told = connect(false).await;
    assert!(
        told.contains("root by the guest agent can't be reached") && told.contains("not running"),
        "{told}"
    );
}
