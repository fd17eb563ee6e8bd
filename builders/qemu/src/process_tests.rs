//! Processes: their end, their last words, and that none outlives its owner.

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn shell(directory: &Path, script: &str) -> Launch {
    Launch::new("sh", directory.join("stderr")).arguments(["-c", script])
}

/// Whether a process runs (a zombie does not).
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_process_that_ends_before_its_monitor_is_up_tells_its_last_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = QemuProcess::spawn(shell(directory.path(), "echo no such machine >&2; exit 3"))
        .await
        .expect("starts");
    let error = process.connect_qmp(&directory.path().join("qmp"), LONG).await.expect_err("ended");
    assert!(error.to_string().ends_with("ended with exit status: 3: no such machine"), "{error}");
    assert_eq!(process.exited().and_then(|status| status.code()), Some(3));
}

/// What is logged.
#[derive(Clone, Default)]
struct Ear(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_logged_of_a_start_holds_no_argument() {
    let (directory, ear) = (tempfile::tempdir().expect("a directory"), Ear::default());
    let writer = ear.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _listening = tracing::subscriber::set_default(subscriber);
    let launch = Launch::new("true", directory.path().join("stderr"))
        .arguments(["-smbios", "type=1,serial=ds=nocloud;s=http://10.0.2.2/geheim/"]);
    let process = QemuProcess::spawn(launch).await.expect("starts");
    process.wait().await.expect("ends");
    let log = String::from_utf8_lossy(&ear.0.lock().expect("nobody panicked")).into_owned();
    assert!(log.contains("process started") && log.contains("arguments=2"), "{log}");
    assert!(!log.contains("geheim"), "{log}");
}

#[tokio::test]
async fn terminate_and_kill_end_it() {
    use std::os::unix::process::ExitStatusExt;
    let directory = tempfile::tempdir().expect("a directory");
    for (end, signal) in [(QemuProcess::terminate as fn(&QemuProcess), 15), (QemuProcess::kill, 9)] {
        let process =
            QemuProcess::spawn(Launch::new("sleep", directory.path().join("stderr")).arguments(["600"]))
                .await
                .expect("starts");
        assert!(process.exited().is_none());
        end(&process);
        assert_eq!(process.wait().await.expect("ends").signal(), Some(signal));
    }
}

#[tokio::test]
async fn dropping_the_handle_kills_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let launch = Launch::new("sleep", directory.path().join("stderr")).arguments(["600"]);
    let process = QemuProcess::spawn(launch).await.expect("starts");
    let pid = process.pid();
    assert!(runs(pid));
    drop(process);
    until("the process is gone", || !runs(pid)).await;
}

#[tokio::test]
async fn the_end_of_the_runtime_kills_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("stderr");
    let pid = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let process = runtime
            .block_on(QemuProcess::spawn(Launch::new("sleep", log).arguments(["600"])))
            .expect("starts");
        process.pid()
    })
    .join()
    .expect("no panic");
    until("the process is gone", || !runs(pid)).await;
}

#[tokio::test]
async fn it_outlives_the_thread_that_asked_for_it() {
    // `PR_SET_PDEATHSIG` counts the starting thread as the parent: it must not be one that comes and goes.
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("stderr");
    let runtime = tokio::runtime::Handle::current();
    let asked = tokio::task::spawn_blocking(move || {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let launch = Launch::new("sleep", log).arguments(["600"]);
            sender.send(runtime.block_on(QemuProcess::spawn(launch))).expect("received");
        })
        .join()
        .expect("no panic");
        receiver.recv().expect("sent")
    });
    let process = asked.await.expect("no panic").expect("starts");
    let early = tokio::time::timeout(Duration::from_millis(100), process.wait()).await;
    assert!(early.is_err(), "it ended with its thread: {early:?}");
}

#[tokio::test]
async fn what_can_not_be_started_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = Launch::new("no-such-program-here", directory.path().join("stderr"));
    let error = QemuProcess::spawn(missing).await.expect_err("missing");
    assert_eq!(error.to_string(), "program `no-such-program-here` was not found");
    let error =
        QemuProcess::spawn(Launch::new("sh", directory.path().join("no/such/log"))).await.expect_err("log");
    assert!(matches!(error, ProcessError::Log { .. }), "{error}");
}

#[test]
fn the_tail_of_a_long_log_is_short_and_survives_bytes_that_are_no_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    std::fs::write(&path, [vec![b'x'; 100_000], b"\xff\xfe last words\n".to_vec()].concat())
        .expect("written");
    let text = tail(&path).expect("read");
    assert!(text.len() <= 5000 && text.ends_with("last words"), "{}", text.len());
}

/// Set in the process that shall die; names the log.
const DOOMED: &str = "FORGE_QEMU_TEST_DOOMED_PARENT";

#[tokio::test]
async fn a_kill_of_forge_itself_kills_it_too() {
    if let Some(log) = std::env::var_os(DOOMED) {
        let process = QemuProcess::spawn(Launch::new("sleep", log).arguments(["600"])).await.expect("starts");
        println!("child={}", process.pid());
        process.wait().await.expect("never");
        return;
    }
    if find_program(Path::new("setpriv")).is_none() {
        println!("skipped: setpriv (util-linux) is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut parent = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "process::tests::a_kill_of_forge_itself_kills_it_too", "--nocapture"])
        .env(DOOMED, directory.path().join("stderr"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let mut lines = crate::line::LineReader::new(parent.stdout.take().expect("a pipe"), 10_000);
    let child: u32 = loop {
        let line = lines.next_line().await.expect("read").expect("the parent tells its child");
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some((_, pid)) = line.split_once("child=") {
            break pid.trim().parse().expect("a pid");
        }
    };
    assert!(runs(child));
    parent.start_kill().expect("killed");
    parent.wait().await.expect("reaped");
    until("the child is gone", || !runs(child)).await;
}
