//! QMP against a real QEMU, and against servers that misbehave.

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

use super::*;
use crate::process::{Launch, QemuProcess, find_program};

const START: Duration = Duration::from_secs(60);

struct Rig {
    process: QemuProcess,
    qmp: Qmp,
    directory: tempfile::TempDir,
}

/// A QEMU whose CPUs stand still before the first instruction.
async fn halted_qemu() -> Option<Rig> {
    let Some(binary) = find_program(Path::new("qemu-system-x86_64")) else {
        println!("skipped: qemu-system-x86_64 is not installed");
        return None;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("qmp");
    let launch = Launch::new(binary, directory.path().join("stderr"))
        .arguments(["-machine", "q35", "-accel", "tcg", "-m", "64", "-display", "none", "-S", "-qmp"])
        .arguments([format!("unix:{},server=on,wait=off", socket.display())]);
    let process = QemuProcess::spawn(launch).await.expect("QEMU starts");
    let qmp = process.connect_qmp(&socket, START).await.expect("QMP answers");
    Some(Rig { process, qmp, directory })
}

#[tokio::test]
async fn a_real_qemu_answers_commands_and_tells_events() {
    let Some(rig) = halted_qemu().await else { return };
    let status = rig.qmp.query_status().await.expect("status");
    assert_eq!(status, RunStatus { running: false, status: "prelaunch".to_owned() });

    let mut events = rig.qmp.events();
    rig.qmp.execute("cont", Value::Null).await.expect("continued");
    let resume = next_event(&mut events, "RESUME", START).await.expect("event");
    assert!(resume.timestamp.is_some_and(|time| time <= SystemTime::now()));
    rig.qmp.system_powerdown().await.expect("pressed");
    next_event(&mut events, "POWERDOWN", START).await.expect("event");

    rig.qmp.send_key(&["shift", "a"], Some(5)).await.expect("pressed");
    let refusal = rig.qmp.send_key(&["no-such-key"], None).await.expect_err("unknown key");
    assert!(matches!(&refusal, QmpError::Refused { class, .. } if class == "GenericError"), "{refusal}");

    let picture = rig.directory.path().join("screen.png");
    rig.qmp.screendump(&picture, ScreenshotFormat::Png).await.expect("dumped");
    assert!(std::fs::read(&picture).expect("readable").starts_with(b"\x89PNG"));
    assert!(rig.qmp.human_monitor("info version").await.expect("printed").contains('.'));

    let mut events = rig.qmp.events();
    rig.qmp.quit().await.expect("quit");
    assert!(rig.process.wait().await.expect("ends").success());
    next_event(&mut events, "SHUTDOWN", START).await.expect("told before the end");
    rig.qmp.closed().await;
    let error = rig.qmp.query_status().await.expect_err("gone");
    assert!(matches!(error, QmpError::Closed { .. }), "{error}");
    assert!(matches!(rig.qmp.events().recv().await, Err(broadcast::error::RecvError::Closed)));
}

#[tokio::test]
async fn a_refusal_keeps_qemus_class_and_words() {
    let Some(rig) = halted_qemu().await else { return };
    let error = rig.qmp.execute("no-such-command", Value::Null).await.expect_err("unknown");
    let QmpError::Refused { command, class, desc } = error else { panic!("{error}") };
    assert_eq!((command.as_str(), class.as_str()), ("no-such-command", "CommandNotFound"));
    assert!(desc.contains("no-such-command"), "{desc}");
}

#[tokio::test]
async fn a_hundred_callers_each_get_their_own_answer() {
    let Some(rig) = halted_qemu().await else { return };
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let qmp = rig.qmp.clone();
            // The monitor prints the sum, so a mixed-up answer shows.
            tokio::spawn(async move { (number, qmp.human_monitor(&format!("print 1000+{number}")).await) })
        })
        .collect();
    for call in calls {
        let (number, printed) = call.await.expect("no panic");
        assert_eq!(printed.expect("printed").trim(), format!("{:#x}", 1000 + number));
    }
}

#[tokio::test]
async fn an_event_that_does_not_come_is_a_timeout_that_names_it() {
    let Some(rig) = halted_qemu().await else { return };
    let error = rig.qmp.wait_for_event("GUEST_PANICKED", Duration::from_millis(10)).await.expect_err("none");
    assert_eq!(error.to_string(), "no event GUEST_PANICKED within 10ms");
}

#[tokio::test]
async fn a_socket_too_deep_for_an_address_is_reached_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let deep = directory.path().join("d".repeat(120));
    std::fs::create_dir(&deep).expect("made");
    let listener = bind_in(&deep);
    tokio::spawn(serve(listener, b"{\"QMP\": {}}\n{\"return\": {}}\n".to_vec()));
    Qmp::connect_within(&deep.join("s"), START).await.expect("connected");
}

/// Binds by a short way to the same directory, as QEMU does when it is its working directory.
fn bind_in(directory: &Path) -> UnixListener {
    use std::os::fd::AsRawFd;
    let handle = std::fs::File::open(directory).expect("opened");
    UnixListener::bind(format!("/proc/self/fd/{}/s", handle.as_raw_fd())).expect("bound")
}

async fn serve(listener: UnixListener, script: Vec<u8>) {
    let (mut stream, _) = listener.accept().await.expect("a client");
    // The client may hang up in the middle of it.
    let _ = stream.write_all(&script).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn what_is_not_qmp_is_an_error_and_never_a_panic() {
    let greeted = b"{\"QMP\": {}}\n{\"return\": {}}\n".as_slice();
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("SSH", b"SSH-2.0-OpenSSH\n".to_vec(), "not JSON"),
        ("an empty object", b"{}\n".to_vec(), "got {}"),
        ("a refusal", b"{\"QMP\":1}\n{\"error\":{\"desc\":7}}\n".to_vec(), "capabilities refused"),
        ("rubbish after the greeting", [greeted, b"\xff\xfe{{{\n"].concat(), "not JSON"),
        ("deep nesting", [greeted, "[".repeat(100_000).as_bytes(), b"\n"].concat(), "recursion limit"),
        ("an endless line", [greeted, &vec![b'x'; LINE_LIMIT + 10_000]].concat(), "longer than"),
    ];
    for (name, script, expected) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let server = tokio::spawn(serve(UnixListener::bind(&path).expect("bound"), script.clone()));
        let error = match Qmp::connect(&path).await {
            Err(error) => error,
            Ok(qmp) => qmp.query_status().await.expect_err(name),
        };
        assert!(error.to_string().contains(expected), "{name}: {error}");
        server.abort();
    }
}

#[tokio::test]
async fn odd_messages_between_the_answers_are_passed_over() {
    let script = concat!(
        "{\"QMP\": {}}\n{\"event\": \"EARLY\"}\n{\"return\": {}}\n",
        "7\nnull\n{\"id\": 99, \"return\": {}}\n{\"event\": 5}\n",
        "{\"event\": \"X\", \"timestamp\": {\"seconds\": -1, \"microseconds\": -1}}\n",
    );
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).expect("bound");
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.write_all(script.as_bytes()).await.expect("written");
        let mut lines = LineReader::new(stream, LINE_LIMIT);
        lines.next_line().await.expect("capabilities");
        lines.next_line().await.expect("the command");
        lines
    });
    let qmp = Qmp::connect(&path).await.expect("greeted");
    let error = {
        let call = qmp.query_status();
        tokio::pin!(call);
        let lines = tokio::select! {
            answer = &mut call => panic!("answered by nobody: {answer:?}"),
            lines = server => lines.expect("served"),
        };
        drop(lines);
        call.await.expect_err("hung up")
    };
    assert_eq!(error.to_string(), "the QMP connection is closed: QEMU closed it");
}

#[tokio::test]
async fn nobody_listening_is_told_with_the_path_when_the_limit_is_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nobody");
    let error = Qmp::connect_within(&path, Duration::from_millis(50)).await.expect_err("nobody");
    assert!(error.to_string().contains("nobody"), "{error}");
}
