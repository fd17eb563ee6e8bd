//! The SSH guest against a server on loopback that runs real commands and misbehaves when told to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use forge_machine::{AddressReport, Command, ExecOutcome, Guest, GuestError};
use tokio::net::TcpListener;

use super::testing::{Faults, SshServer};
use super::{AddressSource, BuildKey, Patience, SshGuest, WaitError, WaitInput, wait_for_guest};

const LIMIT: Duration = Duration::from_secs(60);

fn input(source: impl AddressSource + 'static, limit: Duration) -> WaitInput {
    let key = Arc::new(BuildKey::generate().unwrap());
    WaitInput {
        source: Arc::new(source),
        user: "forge".into(),
        key,
        host_key: None,
        limit,
        access: super::SshAccess::default(),
    }
}

pub(crate) async fn connect(server: &SshServer) -> Arc<SshGuest> {
    wait_for_guest(input(server.address, LIMIT), &|_| {}).await.unwrap()
}

async fn said(guest: &SshGuest, line: &str) -> (ExecOutcome, String) {
    let mut output = Vec::new();
    let outcome = guest.exec(&Command::new(line), &mut output).await.unwrap();
    (outcome, String::from_utf8_lossy(&output).into_owned())
}

async fn wait(input: WaitInput) -> (Result<Arc<SshGuest>, WaitError>, Vec<String>) {
    let seen = Mutex::new(Vec::new());
    let result = wait_for_guest(input, &|what| seen.lock().unwrap().push(what.to_owned())).await;
    (result, seen.into_inner().unwrap())
}

#[tokio::test]
async fn commands_run_with_input_variables_both_outputs_and_their_exit_status() {
    let server = SshServer::start(Faults::default()).await;
    let guest = connect(&server).await;
    assert!(guest.host_key().unwrap().starts_with("SHA256:"));
    assert_eq!(guest.describe(), format!("forge@{}", server.address));
    let mut output = Vec::new();
    let mut command = Command::new("cat; echo \"$A\"; echo err >&2; exit 7");
    command.stdin = b"input\n".to_vec();
    command.env.insert("A".into(), "it's $A".into());
    assert_eq!(guest.exec(&command, &mut output).await.unwrap(), ExecOutcome::Exited(7));
    let output = String::from_utf8(output).unwrap();
    assert!(output.contains("input\nit's $A\n") && output.contains("err\n"), "{output}");
    assert_eq!(said(&guest, "kill -9 $$").await.0, ExecOutcome::Signalled);
    guest.close().await;
}

#[tokio::test]
async fn large_input_and_output_pass_at_the_same_time() {
    let server = SshServer::start(Faults::default()).await;
    let guest = connect(&server).await;
    let mut command = Command::new("cat");
    command.stdin = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut output = Vec::new();
    assert_eq!(guest.exec(&command, &mut output).await.unwrap(), ExecOutcome::Exited(0));
    assert!(output == command.stdin, "{} bytes came back", output.len());
}

#[tokio::test]
async fn a_lost_connection_is_no_exit_status_and_the_next_command_reconnects() {
    let server = SshServer::start(Faults { cut_at: Some("cut"), ..Faults::default() }).await;
    let guest = connect(&server).await;
    assert_eq!(said(&guest, "echo cut; sleep 1; exit 0").await.0, ExecOutcome::Disconnected);
    assert_eq!(said(&guest, "echo again").await, (ExecOutcome::Exited(0), "again\n".into()));
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
    server.change(|faults| faults.cut_at = None);
    server.change(|faults| faults.no_exit_status = true);
    assert_eq!(said(&guest, "true").await.0, ExecOutcome::Disconnected);
}

#[tokio::test]
async fn a_refused_channel_is_tried_once_more_on_a_new_connection() {
    let server = SshServer::start(Faults { refuse_channels: 1, ..Faults::default() }).await;
    let guest = connect(&server).await;
    assert_eq!(said(&guest, "echo ok").await, (ExecOutcome::Exited(0), "ok\n".into()));
    server.change(|faults| faults.refuse_channels = 2);
    let error = guest.exec(&Command::new("true"), &mut ()).await.unwrap_err();
    assert!(error.to_string().contains("no channel"), "{error}");
}

#[tokio::test]
async fn another_host_key_is_never_accepted() {
    let server = SshServer::start(Faults::default()).await;
    let guest = connect(&server).await;
    server.change(|faults| faults.other_host_key = true);
    let error = guest.reconnect(LIMIT).await.unwrap_err();
    let GuestError::HostKeyChanged { expected, seen, .. } = error else { panic!("{error:?}") };
    assert!(Some(expected.clone()) == guest.host_key() && seen != expected);
    // With the key known from before, the first login is checked too.
    let mut known = input(server.address, LIMIT);
    known.host_key = guest.host_key();
    assert!(matches!(wait(known).await.0, Err(WaitError::HostKeyChanged { .. })));
    server.change(|faults| faults.other_host_key = false);
    guest.reconnect(LIMIT).await.unwrap();
    assert_eq!(said(&guest, "echo same").await.1, "same\n");
}

#[tokio::test]
async fn an_installer_s_own_sshd_is_passed_over_until_the_known_key_shows() {
    let server = SshServer::start(Faults::default()).await;
    let known = connect(&server).await.host_key();
    server.change(|faults| faults.other_host_key = true);
    let mut input = input(server.address, LIMIT);
    input.host_key.clone_from(&known);
    input.access.patience = Patience::Installer;
    // The installed system is there once the other key was seen.
    let seen = Mutex::new(Vec::new());
    let tell = |what: &str| {
        seen.lock().unwrap().push(what.to_owned());
        if what.contains("another host key") {
            server.change(|faults| faults.other_host_key = false);
        }
    };
    let guest = wait_for_guest(input, &tell).await.unwrap();
    assert_eq!(guest.host_key(), known);
    assert!(seen.lock().unwrap().iter().any(|what| what.contains("another host key: SHA256:")), "{seen:?}");
}

#[tokio::test]
async fn a_guest_that_keeps_another_key_than_its_seed_s_is_given_up_long_before_the_limit() {
    let server = SshServer::start(Faults::default()).await;
    let known = connect(&server).await.host_key();
    server.change(|faults| faults.other_host_key = true);
    let watched = Duration::from_secs(3);
    let mut input = input(server.address, Duration::from_secs(3600));
    input.host_key.clone_from(&known);
    input.access.patience = Patience::Seed(watched);
    let began = Instant::now();
    let error = wait(input.clone()).await.0.expect_err("it has another key");
    assert!(began.elapsed() >= watched && began.elapsed() < LIMIT, "{:?}", began.elapsed());
    let WaitError::SeedIgnored { given, seen, watched: told, .. } = &error else { panic!("{error:?}") };
    assert!(Some(given) == known.as_ref() && seen != given && *told >= watched, "{error:?}");
    let words = error.to_string();
    assert!(words.contains("did not take the seed's host key") && words.contains(seen), "{words}");
    assert!(error.hint().contains("cloud-init"), "{}", error.hint());
    // One that reads its seed in the meantime is let be.
    let tell = |what: &str| {
        if what.contains("another host key") {
            server.change(|faults| faults.other_host_key = false);
        }
    };
    assert_eq!(wait_for_guest(input, &tell).await.unwrap().host_key(), known);
}

/// Tells the old address once, is silent, and then tells the new one.
struct Moving {
    asked: AtomicUsize,
    old: SocketAddr,
    new: SocketAddr,
}

#[async_trait]
impl AddressSource for Moving {
    async fn addresses(&self) -> AddressReport {
        let candidates = match self.asked.fetch_add(1, Ordering::SeqCst) {
            0 => vec![(self.old.ip(), self.old.port())],
            1..20 => vec![],
            _ => vec![(self.new.ip(), self.new.port())],
        };
        AddressReport { candidates, detail: "agent".into(), ..AddressReport::default() }
    }
}

#[tokio::test]
async fn somebody_else_at_the_old_address_does_not_end_the_search() {
    let server = SshServer::start(Faults::default()).await;
    let other = SshServer::start(Faults::default()).await;
    let known = connect(&server).await.host_key();
    let mut input =
        input(Moving { asked: AtomicUsize::new(0), old: other.address, new: server.address }, LIMIT);
    input.host_key = known;
    let guest = wait_for_guest(input, &|_| {}).await.unwrap();
    assert_eq!(guest.describe(), format!("forge@{}", server.address));
    assert_eq!(other.channels.load(Ordering::SeqCst), 0, "nothing was said to it");
}

#[tokio::test]
async fn a_command_over_its_limit_is_ended() {
    let server = SshServer::start(Faults::default()).await;
    let guest = connect(&server).await;
    let mut command = Command::new("sleep 5");
    command.timeout = Some(Duration::from_millis(300));
    let error = guest.exec(&command, &mut ()).await.unwrap_err();
    assert!(matches!(error, GuestError::TimedOut { .. }), "{error:?}");
    assert_eq!(said(&guest, "echo alive").await.1, "alive\n");
}

#[tokio::test]
async fn a_daemon_left_in_the_background_does_not_hold_the_command_up() {
    let server = SshServer::start(Faults::default()).await;
    let guest = connect(&server).await;
    let began = Instant::now();
    let (outcome, output) = said(&guest, "sleep 60 >/dev/null 2>&1 & echo $!").await;
    assert_eq!(outcome, ExecOutcome::Exited(0));
    assert!(began.elapsed() < Duration::from_secs(50), "the command was over at once");
    assert_eq!(said(&guest, &format!("kill {output}")).await.0, ExecOutcome::Exited(0));
}

#[tokio::test]
async fn files_go_and_come_with_and_without_sftp() {
    use std::os::unix::fs::PermissionsExt as _;
    for no_sftp in [false, true] {
        let server = SshServer::start(Faults { no_sftp, ..Faults::default() }).await;
        let guest = connect(&server).await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it's a file");
        let path = path.to_str().unwrap();
        let content: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 253) as u8).collect();
        guest.put(path, b"old", 0o600).await.unwrap();
        guest.put(path, &content, 0o751).await.unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o751);
        assert!(guest.get(path, 2 << 20).await.unwrap() == content);
        assert!(guest.get(path, 1000).await.unwrap_err().to_string().contains("it's a file"));
        let missing = guest.get("/no/such/file", 1000).await.unwrap_err();
        assert!(
            matches!(&missing, GuestError::Transfer { source, .. } if source.to_string().contains("o such file"))
        );
        assert!(guest.put("/no/such/folder/file", b"x", 0o600).await.is_err());
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "temporary files are left: {left:?}");
    }
}

#[tokio::test]
async fn a_guest_that_hangs_then_closes_then_refuses_the_key_is_told_step_by_step_and_let_in_at_once() {
    let faults = Faults { hang: 3, close: 2, refuse_keys: 2, ..Faults::default() };
    let server = SshServer::start(faults).await;
    let (guest, seen) = wait(input(server.address, LIMIT)).await;
    guest.unwrap();
    for expected in
        ["accepts, no banner", "accepts and closes", "SSH-2.0-russh", "login refused (key refused; offered: "]
    {
        assert!(seen.iter().any(|seen| seen.contains(expected)), "{expected} is missing in {seen:#?}");
    }
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "only changes are told");
}

#[tokio::test]
async fn a_key_refused_to_the_end_is_said_to_be_the_reason() {
    let server = SshServer::start(Faults { refuse_keys: usize::MAX, ..Faults::default() }).await;
    let (guest, _) = wait(input(server.address, Duration::from_millis(2500))).await;
    let error = guest.unwrap_err();
    assert!(
        matches!(&error, WaitError::Refused { last_seen, .. } if last_seen.contains("key refused")),
        "{error}"
    );
    assert!(!error.hint().is_empty());
}

/// Knows nothing at first, then a dead address, then the right one beside it.
struct Learning {
    asked: AtomicUsize,
    dead: SocketAddr,
    right: SocketAddr,
}

#[async_trait]
impl AddressSource for Learning {
    async fn addresses(&self) -> AddressReport {
        let pair = |address: SocketAddr| (address.ip(), address.port());
        let (candidates, detail) = match self.asked.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => (vec![], "VM running; agent not running"),
            2 => (vec![pair(self.dead)], "agent answers"),
            _ => (vec![pair(self.dead), pair(self.right)], "agent answers"),
        };
        AddressReport { candidates, detail: detail.into(), agent: true, ..AddressReport::default() }
    }
}

#[tokio::test]
async fn addresses_are_asked_for_again_and_all_of_them_are_tried() {
    let server = SshServer::start(Faults::default()).await;
    let dead = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await.unwrap().local_addr().unwrap();
    let source = Learning { asked: AtomicUsize::new(0), dead, right: server.address };
    let (guest, seen) = wait(input(source, LIMIT)).await;
    assert_eq!(guest.unwrap().describe(), format!("forge@{}", server.address));
    assert_eq!(seen[0], "VM running; agent not running; no address");
    assert!(seen.contains(&format!("agent answers; {dead} refused")), "{seen:#?}");
}

#[tokio::test]
async fn a_timeout_quotes_what_was_seen_last() {
    let dead = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await.unwrap().local_addr().unwrap();
    let (guest, _) = wait(input(dead, Duration::from_millis(600))).await;
    let text = guest.unwrap_err().to_string();
    assert!(text.contains(&format!("{dead} refused")), "{text}");
}

#[tokio::test]
async fn a_server_that_opens_late_is_found_within_half_a_second() {
    let port = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await.unwrap().local_addr().unwrap();
    let waiting = tokio::spawn(wait_for_guest(input(port, LIMIT), &|_| {}));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let opened = Instant::now();
    let _server = SshServer::start_on(TcpListener::bind(port).await.unwrap(), Faults::default());
    waiting.await.unwrap().unwrap();
    println!("found {:?} after it opened", opened.elapsed());
}

#[tokio::test]
async fn a_dropped_command_is_ended_and_leaves_the_connection_usable() {
    let server = SshServer::start(Faults::default()).await;
    let guest = connect(&server).await;
    let command = Command::new("sleep 5");
    let mut output = Vec::new();
    tokio::select! {
        _ = guest.exec(&command, &mut output) => panic!("it can't have ended"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    assert_eq!(said(&guest, "echo alive").await.1, "alive\n");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_noticed_by_its_silence_and_is_no_exit_status() {
    let server = SshServer::start(Faults { freeze_at: Some("now"), ..Faults::default() }).await;
    let mut input = input(server.address, LIMIT);
    // Slow enough for a busy machine, and noticed after four of them.
    input.access.keep_alive = Some(Duration::from_secs(3));
    let guest = wait_for_guest(input, &|_| {}).await.unwrap();
    let began = Instant::now();
    assert_eq!(said(&guest, "echo now; sleep 600").await.0, ExecOutcome::Disconnected);
    assert!(began.elapsed() >= Duration::from_secs(6), "it was the silence: {:?}", began.elapsed());
    server.change(|faults| faults.freeze_at = None);
    assert_eq!(said(&guest, "echo again").await, (ExecOutcome::Exited(0), "again\n".into()));
}

#[tokio::test]
async fn a_connection_that_is_reset_in_mid_command_is_no_exit_status() {
    let faults = Faults { cut_at: Some("now"), reset: true, ..Faults::default() };
    let server = SshServer::start(faults).await;
    let guest = connect(&server).await;
    assert_eq!(said(&guest, "echo now; sleep 1; exit 0").await.0, ExecOutcome::Disconnected);
    assert_eq!(said(&guest, "echo again").await.1, "again\n");
}

#[tokio::test]
async fn a_script_whose_upload_is_cut_is_not_begun() {
    struct Nothing;
    impl super::ScriptOutput for Nothing {
        fn line(&mut self, _: &str, _: bool) {}
    }
    let server = SshServer::start(Faults { cut_input_at: Some(500_000), ..Faults::default() }).await;
    let guest = connect(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let padding = "# what comes after it never arrives\n".repeat(30_000);
    let script = super::RemoteScript::sh(format!("touch {}\n{padding}", mark.display()));
    let run = super::run_script(guest.as_ref(), &script, &mut Nothing).await.unwrap();
    assert_eq!((run.end, run.begun), (super::ScriptEnd::Truncated(ExecOutcome::Disconnected), None));
    // The guest reads the end of the input as it reads any other.
    tokio::time::timeout(LIMIT, async {
        while server.ended.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the command in the guest ends");
    assert!(!mark.exists(), "the half that arrived was run");
    assert_eq!(server.left(), Vec::<String>::new(), "and is gone");
    server.change(|faults| faults.cut_input_at = None);
    let run = super::run_script(guest.as_ref(), &script, &mut Nothing).await.unwrap();
    assert_eq!((run.end, mark.exists()), (super::ScriptEnd::Exited(0), true));
}

#[tokio::test]
async fn output_that_is_still_on_its_way_when_the_status_comes_arrives_whole_however_slow_the_line() {
    // 256 bytes each 8 ms: 450,000 of them take longer than a daemon is listened to.
    let faults = Faults { status_first: true, slow: Some(Duration::from_millis(8)), ..Faults::default() };
    let server = SshServer::start(Faults { no_sftp: true, ..faults }).await;
    let guest = connect(&server).await;
    let mut count = Count(0);
    let began = Instant::now();
    let command = Command::new("head -c 450000 /dev/zero");
    assert_eq!(guest.exec(&command, &mut count).await.unwrap(), ExecOutcome::Exited(0));
    assert_eq!(count.0, 450_000, "after {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_secs(12), "it was fast: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_file_that_did_not_come_whole_is_an_error() {
    // The connection is closed properly, with a status of success, in the middle of the file.
    let server = SshServer::start(Faults { no_sftp: true, ..Faults::default() }).await;
    let guest = connect(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![0; 100_000]).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(guest.get(path, 1 << 20).await.unwrap().len(), 100_000);
    assert_eq!(guest.get(path, 100_000).await.unwrap().len(), 100_000);
    server.change(|faults| faults.most_output = Some(50_000));
    let error = crate::engine::error::chain(&guest.get(path, 1 << 20).await.unwrap_err());
    assert!(error.contains("only the first 50000 bytes of it came"), "{error}");
}

#[tokio::test]
async fn a_slow_line_costs_time_and_nothing_else() {
    let server = SshServer::start(Faults { slow: Some(Duration::from_millis(4)), ..Faults::default() }).await;
    let guest = connect(&server).await;
    let mut command = Command::new("cat; exit 5");
    command.stdin = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
    let mut output = Vec::new();
    assert_eq!(guest.exec(&command, &mut output).await.unwrap(), ExecOutcome::Exited(5));
    assert!(output == command.stdin, "{} bytes came back", output.len());
}

#[tokio::test]
async fn a_banner_that_never_comes_is_said_to_be_missing() {
    let server = SshServer::start(Faults { hang: usize::MAX, ..Faults::default() }).await;
    let (guest, _) = wait(input(server.address, Duration::from_millis(2500))).await;
    let error = guest.unwrap_err().to_string();
    let seen = format!("fixed address; {} accepts, no banner", server.address);
    assert_eq!(error, format!("no SSH login within 2.5s; last seen: {seen}"));
}

#[tokio::test]
async fn an_account_that_runs_no_commands_is_told_as_that() {
    let server = SshServer::start(Faults { refuse_commands: true, ..Faults::default() }).await;
    let guest = connect(&server).await;
    let error = guest.exec(&Command::new("true"), &mut ()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("forge@{} runs no commands", server.address));
    assert_eq!(crate::engine::error::chain(&error), format!("{error}: the server refuses to run commands"));
}

/// Counts, and keeps nothing.
struct Count(u64);

impl forge_machine::OutputSink for Count {
    fn write(&mut self, _: forge_machine::Stream, bytes: &[u8]) {
        assert!(bytes.iter().all(|byte| *byte == 0), "a byte is not as it was sent");
        self.0 += bytes.len() as u64;
    }
}

/// The resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A GiB, or as many MiB as `FORGE_SSH_OUTPUT` says.
#[tokio::test]
async fn a_flood_of_output_arrives_whole_and_is_not_kept() {
    let mib: u64 = std::env::var("FORGE_SSH_OUTPUT").ok().and_then(|text| text.parse().ok()).unwrap_or(1024);
    let server = SshServer::start(Faults::default()).await;
    let guest = connect(&server).await;
    let before = resident();
    let mut count = Count(0);
    let command = Command::new(format!("head -c {} /dev/zero; exit 6", mib << 20));
    assert_eq!(guest.exec(&command, &mut count).await.unwrap(), ExecOutcome::Exited(6));
    assert_eq!(count.0, mib << 20);
    let grown = resident().saturating_sub(before);
    println!("{mib} MiB of output, {grown} KiB more memory");
    assert!(grown < 48 * 1024, "{grown} KiB for {mib} MiB of output, the server's part included");
}
