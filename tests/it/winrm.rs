//! WinRM against a stand-in of Windows' service, whose NTLM is pyspnego's; the stand-in is proved by pywinrm and pypsrp.
//! No real Windows is in here.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge::backends::TlsChoice;
use forge::backends::tls::Fingerprint;
use forge::plan::{AccessPlan, AfterInstall, Plan, SeedPlan};
use forge::provision::{
    Action, Around, Direction, FileStep, OutputObserver, ShellSource, ShellStep, Step, StepOutcome,
    WindowsRestart, WindowsUpdate, perform,
};
use forge::remote::{
    Become, Password, PowerShell, RemoteScript, ScriptEnd, ScriptOutput, SshAccess, Via, WinRmAuth,
    WinRmGuest, WinRmInput, WinRmLogin, WinRmPlan, powershell, run_script,
};
use forge::stages::connect::SshConnector;
use forge::stages::ways::Ways;
use forge_http_seed::answers::{Answers, Build, Kind, Settings, WinRm};
use forge_machine::fake::{FakeHypervisor, FakeWorld};
use forge_machine::{Command as Remote, ExecOutcome, Guest, GuestError, Hypervisor as _, Power};
use serde_json::{Value, json};

use crate::support::fake_build::plan;
use crate::support::workbench::Workbench;

const USER: &str = "forge";
const PASSWORD: &str = "S3cret! Pässwort";
/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The interpreter with what the tests need; `None` (said aloud) where the lab was not set up.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn python() -> Option<PathBuf> {
    let python = forge_lab::setup::python::interpreter();
    if python.is_file() {
        return Some(python);
    }
    assert!(
        std::env::var_os("FORGE_LAB").is_none(),
        "{} is not there: cargo lab test makes it",
        python.display()
    );
    eprintln!("skipped: there is no {}; cargo lab test makes it", python.display());
    None
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/winrm").join(name)
}

/// A stand-in that ends with the test.
struct StandIn {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl StandIn {
    fn start(python: &Path, more: &Value) -> Self {
        let folder = tempfile::tempdir().expect("the stand-in works");
        let mut settings = json!({
            "auth": ["ntlm"], "user": USER, "password": PASSWORD,
            "record": folder.path().join("record"), "root": folder.path().join("root"), "poll": 1,
        });
        for (name, value) in more.as_object().expect("settings are a table") {
            settings[name] = value.clone();
        }
        let path = folder.path().join("settings.json");
        std::fs::write(&path, settings.to_string()).expect("the stand-in works");
        let mut child = Command::new(python)
            .arg(file("stand_in.py"))
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the stand-in works");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("the stand-in works"))
            .read_line(&mut line)
            .expect("the stand-in works");
        let port = line.trim().parse().expect("the stand-in tells its port");
        Self { child, port, folder }
    }

    fn input(&self, password: &str, auth: WinRmAuth, tls: bool) -> WinRmInput {
        WinRmInput {
            source: Arc::new(SocketAddr::from(([127, 0, 0, 1], self.port))),
            port: self.port,
            login: Arc::new(WinRmLogin {
                user: USER.into(),
                password: Password::new(password),
                auth,
                tls,
                certificate: TlsChoice::Insecure,
                name: None,
            }),
        }
    }

    async fn guest(&self) -> Arc<WinRmGuest> {
        let input = self.input(PASSWORD, WinRmAuth::Ntlm, false);
        WinRmGuest::connect(input, LIMIT, &|_| {}).await.expect("the stand-in works")
    }

    /// What the stand-in saw.
    fn record(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("record")).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What went over is PowerShell, by a grammar that is not ours.
    fn assert_powershell(&self, python: &Path, least: usize) {
        let programs =
            std::fs::read_dir(self.folder.path().join("record.programs")).expect("the stand-in works");
        let programs: Vec<PathBuf> = programs.map(|each| each.expect("the stand-in works").path()).collect();
        assert!(programs.len() >= least, "{} programs", programs.len());
        let judged = Command::new(python)
            .arg(file("grammar.py"))
            .args(&programs)
            .output()
            .expect("the stand-in works");
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    }

    fn count(&self, name: &str, value: &Value) -> usize {
        self.record().iter().filter(|each| each[name] == *value).count()
    }
}

#[derive(Default)]
struct Lines(Vec<String>);

impl ScriptOutput for Lines {
    fn line(&mut self, line: &str, stderr: bool) {
        self.0.push(format!("{}{line}", if stderr { "! " } else { "" }));
    }
}

/// A line for `cmd.exe`, which the stand-in gives to a shell.
fn line(text: &str) -> Remote {
    Remote { native: true, ..Remote::new(text) }
}

/// Waits until something is so.
async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it comes about in time");
}

async fn exec(guest: &dyn Guest, text: &str) -> (ExecOutcome, String) {
    let mut output = Vec::new();
    let outcome = guest.exec(&line(text), &mut output).await.expect("the command can be run");
    (outcome, String::from_utf8(output).expect("the command can be run"))
}

#[tokio::test(flavor = "multi_thread")]
async fn winrm_is_sealed_by_ntlm_as_independent_code_has_it() {
    let Some(python) = python() else { return };
    let stand_in = StandIn::start(&python, &json!({ "sealed_only": true }));
    // First the stand-in itself is judged, by clients that know nothing of forge.
    let url = format!("http://127.0.0.1:{}", stand_in.port);
    let judged =
        Command::new(&python).arg(file("strangers.py")).args([&url, USER, PASSWORD]).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));

    let before = stand_in.record().len();
    let guest = stand_in.guest().await;
    let (outcome, said) = exec(guest.as_ref(), "echo out; echo err >&2; exit 9").await;
    assert_eq!(outcome, ExecOutcome::Exited(9));
    assert!(said.contains("out\n") && said.contains("err\n"), "{said}");
    let record = stand_in.record().split_off(before);
    assert!(record.iter().any(|each| each["user"] == USER), "pyspnego knows who logged in: {record:?}");
    let bytes: Vec<_> = record.iter().filter(|each| each["bytes"].is_u64()).collect();
    assert!(bytes.len() >= 4 && bytes.iter().all(|each| each["sealed"] == true), "{bytes:?}");
    let (opened, closed) =
        (stand_in.count("asked", &json!("Create")), stand_in.count("asked", &json!("Delete")));
    assert_eq!(opened, closed, "every shell is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn winrm_by_basic_and_by_ntlm_alone_and_over_tls_does_the_same() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["windows".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = json!({ "cert": cert, "key": key });
    for (auth, way, more) in [
        ("basic", WinRmAuth::Basic, json!({})),
        ("ntlm-only", WinRmAuth::Ntlm, json!({})),
        ("ntlm", WinRmAuth::Ntlm, tls.clone()),
        ("basic", WinRmAuth::Basic, tls.clone()),
    ] {
        let mut settings = more.clone();
        settings["auth"] = json!([auth]);
        let stand_in = StandIn::start(&python, &settings);
        let secure = more["cert"].is_string();
        let guest = WinRmGuest::connect(stand_in.input(PASSWORD, way, secure), LIMIT, &|_| {}).await.unwrap();
        assert_eq!(exec(guest.as_ref(), "echo hi").await, (ExecOutcome::Exited(0), "hi\n".into()), "{auth}");
        // TLS seals by itself.
        let sealed = way == WinRmAuth::Ntlm && !secure;
        assert!(stand_in.count("sealed", &json!(!sealed)) == 0, "{auth}");
        if !secure {
            continue;
        }
        let by = |certificate: TlsChoice, name: Option<&str>| {
            let name = name.map(str::to_owned);
            let login =
                WinRmLogin { certificate, name, ..(*stand_in.input(PASSWORD, way, true).login).clone() };
            WinRmInput { login: Arc::new(login), ..stand_in.input(PASSWORD, way, true) }
        };
        let print = Fingerprint::of(made.cert.der()).to_string();
        for input in [
            by(TlsChoice::Fingerprint(print.clone()), None),
            by(TlsChoice::CaFile(cert.clone()), Some("windows")),
        ] {
            let guest = WinRmGuest::connect(input, LIMIT, &|_| {}).await.unwrap();
            assert_eq!(exec(guest.as_ref(), "echo hi").await.0, ExecOutcome::Exited(0));
        }
        for (input, words) in [
            (by(TlsChoice::System, None), print.as_str()),
            (by(TlsChoice::Fingerprint("ab".repeat(32)), None), print.as_str()),
            (by(TlsChoice::CaFile(cert.clone()), Some("another")), "not made for `another`"),
            (by(TlsChoice::CaFile(cert.clone()), None), "not made for `127.0.0.1`"),
        ] {
            let seen = Mutex::new(String::new());
            let tell = |words: &str| seen.lock().unwrap().push_str(words);
            let refused = async { until(|| seen.lock().unwrap().contains(words)).await };
            let connected = WinRmGuest::connect(input, LIMIT, &tell);
            tokio::select! {
                connected = connected => panic!("{words}: {:?}", connected.map(drop)),
                () = refused => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn winrm_tells_a_wrong_password_and_a_closed_port_in_words() {
    let Some(python) = python() else { return };
    let stand_in = StandIn::start(&python, &json!({}));
    let seen = Mutex::new(Vec::new());
    let tell = |words: &str| seen.lock().unwrap().push(words.to_owned());
    let input = stand_in.input("wrong", WinRmAuth::Ntlm, false);
    // Ends before the pause after the third refusal.
    let error = WinRmGuest::connect(input, Duration::from_secs(20), &tell).await.unwrap_err();
    assert!(matches!(error, GuestError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("NTLM refused for forge") && text.contains("Negotiate"), "{text}");
    assert!(seen.lock().unwrap().iter().any(|words| words.contains("NTLM refused")));
    let (mut input, nobody) = (
        stand_in.input(PASSWORD, WinRmAuth::Ntlm, false),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    input.port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let error = WinRmGuest::connect(input, Duration::from_secs(1), &|_| {}).await.unwrap_err();
    assert!(
        matches!(&error, GuestError::Unreachable { detail, .. } if detail.contains("refused")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn winrm_runs_powershell_scripts_with_variables_and_believes_only_their_nonce() {
    let Some(python) = python() else { return };
    let stand_in = StandIn::start(&python, &json!({ "sealed_only": true }));
    let guest = stand_in.guest().await;
    let run = async |text: &str| {
        let mut script = RemoteScript::powershell(text, PowerShell::default());
        script.env = BTreeMap::from([("GREETING".to_owned(), "it's 'grüß' $HOME".to_owned())]);
        let mut lines = Lines::default();
        (run_script(guest.as_ref(), &script, &mut lines).await.unwrap(), lines.0)
    };
    // Longer than one poll, so that the server says in between that there is nothing yet.
    let (ended, lines) = run("echo one; sleep 2.5; echo \"$GREETING\"; echo bad >&2; exit 4").await;
    assert_eq!(ended.end, ScriptEnd::Exited(4));
    assert!(
        lines.contains(&"it's 'grüß' $HOME".to_owned()) && lines.contains(&"! bad".to_owned()),
        "{lines:?}"
    );
    assert_eq!(ended.begun.unwrap().boot_id.as_deref(), Some("1000"));
    // A session that is killed tells no end, whatever its exit code is.
    let (ended, _) = run("echo so far; kill -9 $$").await;
    assert!(matches!(ended.end, ScriptEnd::Truncated(_)), "{ended:?}");
    assert_eq!(ended.tail, ["so far"]);
    // Much output arrives whole.
    let (ended, lines) = run("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done").await;
    assert_eq!((ended.end, lines.len()), (ScriptEnd::Exited(0), 20000));
    assert_eq!(lines.last().unwrap(), "line 19999");

    stand_in.assert_powershell(&python, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn winrm_carries_files_within_the_servers_envelope_and_compares_them() {
    let Some(python) = python() else { return };
    // Smaller than any Windows takes: the pieces have to become smaller.
    let stand_in = StandIn::start(&python, &json!({ "sealed_only": true, "max_envelope": 60_000 }));
    let guest = stand_in.guest().await;
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    guest.put("C:\\some folder\\file.bin", &content, 0o644).await.unwrap();
    let written = std::fs::read(stand_in.folder.path().join("root/some folder/file.bin")).unwrap();
    assert!(written == content, "{} bytes", written.len());
    assert!(guest.get("C:\\some folder\\file.bin", 1 << 20).await.unwrap() == content);
    guest.put("C:\\empty", b"", 0o644).await.unwrap();
    assert_eq!(guest.get("C:\\empty", 10).await.unwrap(), b"");
    let told = |error: GuestError| forge::engine::error::chain(&error);
    let error = told(guest.get("C:\\some folder\\file.bin", 1000).await.unwrap_err());
    assert!(error.contains("larger than 1000 bytes"), "{error}");
    let error = told(guest.get("C:\\missing", 1000).await.unwrap_err());
    assert!(error.contains("No such file"), "{error}");

    // A Windows that is slow to read says so with a timeout, and has taken what was sent.
    let slow = StandIn::start(&python, &json!({ "slow_to_read": true }));
    let guest = slow.guest().await;
    guest.put("C:\\slow", &content, 0o644).await.unwrap();
    assert!(std::fs::read(slow.folder.path().join("root/slow")).unwrap() == content);

    let damaging = StandIn::start(&python, &json!({ "damage": true }));
    let error = told(damaging.guest().await.put("C:\\x", b"abc", 0o644).await.unwrap_err());
    assert!(error.contains("the checksum differs"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn winrm_knows_a_lost_guest_a_limit_and_another_boot() {
    let Some(python) = python() else { return };
    let stand_in = StandIn::start(&python, &json!({}));
    let guest = stand_in.guest().await;
    // A command that takes too long is ended in the guest too.
    let slow = Remote { timeout: Some(Duration::from_secs(10)), ..line("sleep 100; echo never") };
    let error = guest.exec(&slow, &mut ()).await.unwrap_err();
    assert!(matches!(error, GuestError::TimedOut { .. }), "{error:?}");
    until(|| stand_in.record().iter().any(|each| each["ended"].is_string())).await;

    let old = powershell::boot_id(guest.as_ref()).await.unwrap();
    // The shell goes away under the command: nobody knows how it ended.
    let (asked, other) = (stand_in.count("asked", &json!("Receive")), guest.clone());
    let lost = tokio::spawn(async move { exec(other.as_ref(), "sleep 300").await.0 });
    until(|| stand_in.count("asked", &json!("Receive")) > asked).await;
    let script = RemoteScript::powershell("shutdown.exe /r /f /t 0", PowerShell::default());
    let went = run_script(guest.as_ref(), &script, &mut Lines::default()).await.unwrap();
    assert_eq!(went.end, ScriptEnd::Exited(0));
    assert_eq!(lost.await.unwrap(), ExecOutcome::Disconnected);
    guest.reconnect(LIMIT).await.unwrap();
    assert_ne!(powershell::boot_id(guest.as_ref()).await.unwrap(), old);

    // A line for /bin/sh is not sent to cmd.exe.
    let error = guest.exec(&Remote::new("true"), &mut ()).await.unwrap_err();
    assert!(forge::engine::error::chain(&error).contains("/bin/sh"), "{error}");
    drop(stand_in);
    let gone = tokio::time::timeout(LIMIT, guest.exec(&line("echo"), &mut ())).await.unwrap();
    assert!(matches!(gone, Err(GuestError::Unreachable { .. })), "{gone:?}");
}

#[derive(Default)]
struct Seen(Vec<String>);

impl OutputObserver for Seen {
    fn line(&mut self, line: &str, _stderr: bool) {
        self.0.push(line.to_owned());
    }
}

async fn carry_out(guest: &dyn Guest, action: Action) -> (Result<StepOutcome, String>, Vec<String>) {
    let env = BTreeMap::from([("PACKER_BUILD_NAME".to_owned(), "win".to_owned())]);
    let around = Around { guest, env: &env, key_file: None, interactive: false };
    let mut seen = Seen::default();
    let result = perform(&around, &Step::new("step", action), &mut seen).await;
    (result.map_err(|error| forge::engine::error::chain(&error)), seen.0)
}

fn power_shell(text: &str) -> ShellStep {
    ShellStep {
        power_shell: Some(PowerShell::default()),
        ..ShellStep::new("step", ShellSource::Inline(vec![text.to_owned()]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_provisioners_run_scripts_carry_files_and_restart_over_winrm() {
    let Some(python) = python() else { return };
    let stand_in = StandIn::start(&python, &json!({ "sealed_only": true }));
    let guest = stand_in.guest().await;
    let (result, seen) =
        carry_out(guest.as_ref(), Action::Shell(power_shell("echo $PACKER_BUILD_NAME; exit 5"))).await;
    let error = result.unwrap_err();
    assert!(error.contains("status 5") && seen == ["win"], "{error} {seen:?}");
    let step =
        ShellStep { valid_exit_codes: vec![0, 200], become_root: Become::Auto, ..power_shell("exit 200") };
    assert_eq!(carry_out(guest.as_ref(), Action::Shell(step)).await.0.unwrap().exit, 200);
    assert_eq!(stand_in.count("elevated", &json!("yes")), 1);
    assert_eq!(stand_in.count("elevated", &json!("no")), 1);

    let folder = tempfile::tempdir().unwrap();
    let near = folder.path().join("near.txt");
    std::fs::write(&near, "carried").unwrap();
    let files = |direction, local: &Path| {
        Action::File(FileStep {
            direction,
            local: local.to_owned(),
            remote: "C:/there/near.txt".into(),
            content: None,
            mode: None,
            become_root: Become::No,
            windows: true,
        })
    };
    carry_out(guest.as_ref(), files(Direction::Upload, &near)).await.0.unwrap();
    let back = folder.path().join("back.txt");
    carry_out(guest.as_ref(), files(Direction::Download, &back)).await.0.unwrap();
    assert_eq!(std::fs::read_to_string(back).unwrap(), "carried");

    let restart = |command: &str, seconds| {
        Action::WindowsRestart(WindowsRestart {
            command: command.into(),
            check: Some("test -e /".into()),
            limit: Duration::from_secs(seconds),
        })
    };
    let outcome = carry_out(guest.as_ref(), restart("shutdown.exe /r /f /t 5", 120)).await.0.unwrap();
    assert!(outcome.rebooted);
    // One that does nothing is found out.
    let error = carry_out(guest.as_ref(), restart("true", 20)).await.0.unwrap_err();
    assert!(error.contains("did not") || error.contains("not come back"), "{error}");
    let error = carry_out(guest.as_ref(), restart("echo denied; exit 5", 60)).await.0.unwrap_err();
    assert!(error.contains("status 5") && error.contains("denied"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_updates_go_on_until_there_are_none_and_sealing_wants_its_proof() {
    let Some(python) = python() else { return };
    let search = "CreateUpdateSearcher";
    let sealed = [
        "forge-seal temporary-files done ",
        "forge-seal event-logs done 3 of them are the system's and were left",
        "forge-seal answer-files done ",
        "forge-seal ssh-host-keys skipped there are none",
        "forge-seal sysprep done IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE, GeneralizationState 7",
        "forge-seal remote-access done ",
        "forge-seal build-user done ",
    ];
    let failed = "forge-seal sysprep failed sysprep ended with 0 and the image is IMAGE_STATE_COMPLETE; setuperr.log: Error SYSPRP Package";
    let stand_in = StandIn::start(
        &python,
        &json!({ "answers": [
            { "match": "$known = @()", "say": ["Installed: one (7c1e-01.200)"], "exit": 102 },
            { "match": search, "say": ["Installed: two"], "exit": 101 },
            // An update that is offered again after it was installed.
            { "match": "$known = @('7c1e-01.200')", "say": ["Left out, it was installed: one"], "exit": 0 },
            { "match": search, "say": ["the download failed"], "exit": 1 },
            { "match": "forge-seal", "say": sealed, "exit": 0 },
            { "match": "forge-seal", "say": [sealed[0], failed], "exit": 1 },
            { "match": "forge-seal", "say": [sealed[0]], "exit": 0 },
        ] }),
    );
    let guest = stand_in.guest().await;
    let update = || {
        Action::WindowsUpdate(WindowsUpdate {
            search_criteria: "IsInstalled=0 and Type='Software'".into(),
            filters: vec!["exclude:$_.Title -like '*Preview*'".into(), "include:$true".into()],
            update_limit: 1000,
            limit: Duration::from_secs(600),
        })
    };
    let (result, seen) = carry_out(guest.as_ref(), update()).await;
    assert!(result.unwrap().rebooted, "{seen:?}");
    let installed: Vec<_> = seen.iter().filter(|line| line.starts_with("Installed")).collect();
    assert_eq!(installed.len(), 2, "{seen:?}");
    assert!(seen.contains(&"Left out, it was installed: one".to_owned()), "{seen:?}");
    assert!(carry_out(guest.as_ref(), update()).await.0.unwrap_err().contains("the download failed"));

    let operations: Vec<String> = forge::seal::enabled(&BTreeMap::new(), true);
    let seal = async || {
        let done = forge::seal::run_windows(guest.as_ref(), &operations, USER, true, None).await;
        done.map_err(|error| error.to_string())
    };
    assert_eq!(seal().await.unwrap().len(), 7);
    let error = seal().await.unwrap_err();
    assert!(error.contains("IMAGE_STATE_COMPLETE") && error.contains("SYSPRP Package"), "{error}");
    // A script that ends well without a word about sysprep has proved nothing.
    let error = seal().await.unwrap_err();
    assert!(error.contains("nothing was told of event-logs"), "{error}");
    stand_in.assert_powershell(&python, 10);
}

#[test]
fn winrm_is_switched_on_by_what_is_powershell_in_a_grammar_that_is_not_ours() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let answers = windows_plan().seed.answers.unwrap();
    let mut files = Vec::new();
    for (tls, basic, port) in [(false, false, 5985), (false, true, 15985), (true, true, 5986)] {
        let mut build = Build::sample(USER, true, None);
        build.winrm = Some(WinRm { tls, basic, port });
        let set = answers.render(&build).unwrap();
        let path = folder.path().join(format!("{port}.ps1"));
        std::fs::write(&path, set.get("forge.ps1").and_then(|file| file.text()).unwrap()).unwrap();
        files.push(path);
    }
    let judged = Command::new(&python).arg(file("grammar.py")).args(&files).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}

/// Its answer files open the way in before forge may take Windows for ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_windows_that_is_still_set_up_is_waited_for_and_what_failed_of_it_is_told() {
    let Some(python) = python() else { return };
    let state = "forge-setup.txt";
    let played = json!({ "answers": [
        { "match": state, "say": ["running", "Transcript started"], "exit": 0 },
        { "match": state, "say": ["failed: exit status 3 of: setup.exe /q", "", "setup.exe: no licence"], "exit": 0 },
    ] });
    let stand_in = StandIn::start(&python, &played);
    let world = FakeWorld::with_boot_vm();
    let mut plan = Plan { after_install: Some(AfterInstall::Reboot), ..windows_plan() };
    plan.deadlines.connect = Duration::from_secs(60);
    let mut bench = Workbench::new(plan, Box::new(move || Arc::new(FakeHypervisor::new(world.clone()))));
    bench.connector = Arc::new(Ways {
        via: vec![Via::WinRm],
        ssh: SshConnector {
            access: SshAccess { host: Some("127.0.0.1".into()), windows: true, ..SshAccess::default() },
        },
        winrm: WinRmPlan { port: Some(stand_in.port), ..WinRmPlan::default() },
    });
    let ending = bench.build_with(None).await.expect("it ends");
    assert_eq!(ending.exit_code(), 1, "{ending:?}");
    let told = format!("{:?}", bench.told());
    for words in [
        "Windows answers, and is not ready (it is still being set up)",
        "Windows is installed, and setting it up failed: exit status 3 of: setup.exe /q",
        "setup.exe: no licence",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    stand_in.assert_powershell(&python, 2);
}

/// The whole of a build but the hypervisor, which is the fake, and Windows, which is the stand-in.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_over_winrm_wants_windows_to_have_switched_itself_off() {
    let Some(python) = python() else { return };
    let say: Vec<String> = forge::seal::enabled(&BTreeMap::new(), true)
        .iter()
        .map(|name| format!("forge-seal {name} done by the stand-in"))
        .collect();
    let played =
        json!({ "sealed_only": true, "answers": [{ "match": "forge-seal", "say": say, "exit": 0 }] });
    let stand_in = StandIn::start(&python, &played);
    let world = FakeWorld::with_boot_vm();
    let opened = world.clone();
    let plan = windows_plan();
    let mut bench = Workbench::new(plan, Box::new(move || Arc::new(FakeHypervisor::new(opened.clone()))));
    bench.connector = Arc::new(Ways {
        via: vec![Via::WinRm],
        ssh: SshConnector {
            access: SshAccess { host: Some("127.0.0.1".into()), windows: true, ..SshAccess::default() },
        },
        winrm: WinRmPlan { port: Some(stand_in.port), ..WinRmPlan::default() },
    });
    let build = bench.build_with(None);
    tokio::pin!(build);
    // Sealed it is, and the last shell is closed: only Windows' own end is missing, and without it nothing goes on.
    let sealed = || {
        let record = stand_in.record();
        let seal = record
            .iter()
            .position(|each| each["script"].as_str().is_some_and(|text| text.contains("forge-seal")));
        seal.is_some_and(|at| record.iter().skip(at).any(|each| each["asked"] == "Delete"))
    };
    tokio::select! {
        ending = &mut build => panic!("{ending:?}"),
        () = until(sealed) => {}
    }
    let early = tokio::time::timeout(Duration::from_secs(3), &mut build).await;
    assert!(early.is_err(), "{early:?}");
    let (at, mut vm) = world.vms().into_iter().find(|(at, _)| at.id != "9000").expect("the build's VM");
    assert_eq!((vm.power, vm.template), (Power::Running, false));
    let machine = FakeHypervisor::new(world.clone()).machine(&at);
    let seen = Mutex::new(Vec::new());
    let tell = |words: &str| seen.lock().unwrap().push(words.to_owned());
    let error = forge::seal::switched_off(machine.as_ref(), Duration::ZERO, &tell).await.unwrap_err();
    assert!(error.to_string().contains("did not switch itself off"), "{error}");
    vm.power = Power::Stopped;
    world.put(at.clone(), vm);
    let ending = tokio::time::timeout(LIMIT, build).await.unwrap().expect("it lives");
    assert_eq!(ending.exit_code(), 0, "{ending:?}");
    assert!(world.vms()[&at].template);
    stand_in.assert_powershell(&python, 4);
}

/// A plan whose answers make the user, with the password that the stand-in wants.
fn windows_plan() -> Plan {
    let vars = json!({ "image-name": "Windows Server 2022", "locale": "en-US", "password": PASSWORD });
    let settings = Settings::read(Kind::Autounattend, vars.as_object().expect("a table"));
    let answers = Answers {
        kind: Kind::Autounattend,
        settings: settings.expect("sound settings"),
        distribution: "windows".into(),
        version: "2022".into(),
        user_data: None,
        variables: serde_json::Map::new(),
        templates: BTreeMap::new(),
    };
    let plan = plan();
    Plan {
        seed: SeedPlan { answers: Some(answers), ..plan.seed },
        access: AccessPlan { windows: true, via: vec![Via::WinRm], user: USER.into(), ..plan.access.clone() },
        provision: vec![Step::new("hello", Action::Shell(power_shell("echo hello")))],
        seal: forge::seal::enabled(&BTreeMap::new(), true),
        ..plan
    }
}
