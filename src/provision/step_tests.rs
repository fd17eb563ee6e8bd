//! The other kinds of steps, on this machine's shell.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::remote::testing::LocalGuest;

#[derive(Default)]
struct Lines(Vec<String>, Vec<(String, u64, u64, bool)>);

impl OutputObserver for Lines {
    fn line(&mut self, line: &str, _stderr: bool) {
        self.0.push(line.to_owned());
    }

    fn moved(&mut self, name: &str, done: u64, total: u64, up: bool) {
        self.1.push((name.to_owned(), done, total, up));
    }
}

async fn go(step: &Step) -> (Result<StepOutcome, ProvisionError>, Vec<String>) {
    let (guest, mut lines) = (LocalGuest::default(), Lines::default());
    let env = BTreeMap::from([("FORGE_PROFILE".to_owned(), "debian-12".to_owned())]);
    let key = Path::new("/tmp/no-such.key");
    let around = Around { guest: &guest, env: &env, key_file: Some(key), interactive: false };
    (perform(&around, step, &mut lines).await, lines.0)
}

fn file(direction: Direction, local: impl AsRef<Path>, remote: impl AsRef<Path>) -> FileStep {
    FileStep {
        windows: false,
        direction,
        local: local.as_ref().to_owned(),
        remote: remote.as_ref().to_str().unwrap().to_owned(),
        content: None,
        mode: None,
        become_root: crate::remote::Become::No,
    }
}

async fn carried(step: FileStep) -> Result<(), String> {
    let result = go(&Step::new("files", Action::File(step))).await.0;
    result.map(drop).map_err(|error| error.to_string())
}

/// A folder with a nested file, an empty one, and a link.
fn tree(at: &Path) {
    std::fs::create_dir_all(at.join("conf/deep")).unwrap();
    std::fs::write(at.join("conf/deep/tool.sh"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(at.join("conf/deep/tool.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    std::fs::write(at.join("conf/empty"), "").unwrap();
    std::os::unix::fs::symlink("empty", at.join("conf/link")).unwrap();
}

#[tokio::test]
async fn a_file_of_more_than_one_piece_goes_up_and_down_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..9_000_017_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(dir.path().join("big"), &bytes).unwrap();
    let (there, back) = (dir.path().join("made/it's there"), dir.path().join("back/copy"));
    let step = FileStep { mode: Some(0o4711), ..file(Direction::Upload, dir.path().join("big"), &there) };
    carried(step).await.unwrap();
    assert_eq!(std::fs::read(&there).unwrap(), bytes);
    assert_eq!(std::fs::metadata(&there).unwrap().permissions().mode() & 0o7777, 0o4711);
    carried(file(Direction::Download, &back, &there)).await.unwrap();
    assert_eq!(std::fs::read(&back).unwrap(), bytes);
    // Nothing half-made stays beside either of them.
    for folder in ["made", "back"] {
        assert_eq!(std::fs::read_dir(dir.path().join(folder)).unwrap().count(), 1, "{folder}");
    }
}

#[tokio::test]
async fn how_far_a_large_file_is_is_told_on_its_way_up_and_down() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there, back) = (dir.path().join("disk.img"), dir.path().join("up"), dir.path().join("back"));
    let total = 9 << 20;
    std::fs::File::create(&here).unwrap().set_len(total).unwrap();
    let env = BTreeMap::new();
    let carry = async |guest: &dyn forge_machine::Guest, step: FileStep| {
        let mut told = Lines::default();
        let around = Around { guest, env: &env, key_file: None, interactive: false };
        perform(&around, &Step::new("files", Action::File(step)), &mut told).await.unwrap();
        told.1
    };
    let local = LocalGuest::default();
    let pieces = |name: &str, up| [4, 8, 9].map(|mib: u64| (name.to_owned(), mib << 20, total, up)).to_vec();
    assert_eq!(carry(&local, file(Direction::Upload, &here, &there)).await, pieces("disk.img", true));
    assert_eq!(carry(&local, file(Direction::Download, &back, &there)).await, pieces("up", false));
    // In one go too, where the guest reads no faster than this.
    let server = crate::remote::testing::SshServer::start(crate::remote::testing::Faults::default()).await;
    let ssh = crate::remote::ssh_tests::connect(&server).await;
    let total = 160 << 20;
    std::fs::File::options().write(true).open(&here).unwrap().set_len(total).unwrap();
    let told = carry(ssh.as_ref(), file(Direction::Upload, &here, &there)).await;
    assert!(told.iter().any(|(_, done, ..)| *done > 0 && *done < total), "{told:?}");
    assert!(
        told.iter().all(|(name, done, all, up)| name == "disk.img" && done <= all && *all == total && *up)
    );
    assert!(told.is_sorted_by_key(|(_, done, ..)| *done), "{told:?}");
}

#[tokio::test]
async fn a_downloaded_file_gets_the_mode_that_is_asked_for_and_a_folder_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    std::fs::write(&there, "secret").unwrap();
    let step = FileStep { mode: Some(0o600), ..file(Direction::Download, &back, &there) };
    carried(step.clone()).await.unwrap();
    assert_eq!(std::fs::metadata(&back).unwrap().permissions().mode() & 0o7777, 0o600);
    let told = carried(FileStep { remote: dir.path().display().to_string(), ..step }).await.unwrap_err();
    assert!(told.contains("it is a folder, and `mode` is for a single file"), "{told}");
}

#[tokio::test]
async fn a_tilde_is_the_home_that_a_shell_would_take_it_for() {
    let dir = tempfile::tempdir().unwrap();
    let (here, back) = (dir.path().join("a.conf"), dir.path().join("back"));
    std::fs::write(&here, "a").unwrap();
    let said = |line: &str| {
        let out = std::process::Command::new("/bin/sh").args(["-c", line]).output().unwrap().stdout;
        String::from_utf8(out).unwrap().trim().to_owned()
    };
    let user = said("id -un");
    for (tilde, home) in
        [("~".to_owned(), said("echo ~")), (format!("~{user}"), said(&format!("echo ~{user}")))]
    {
        let up = "/..".repeat(Path::new(&home).components().count() - 1);
        let there = dir.path().join(format!("to-{}", tilde.len()));
        let remote = format!("{tilde}{up}{}", there.display());
        carried(file(Direction::Upload, &here, &remote)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&there).unwrap(), "a", "{remote}");
        carried(file(Direction::Download, &back, &remote)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&back).unwrap(), "a", "{remote}");
    }
    let told = carried(file(Direction::Upload, &here, "~no-such-user/x")).await.unwrap_err();
    assert!(told.contains("~no-such-user/x: the guest has no user no-such-user"), "{told}");
}

#[tokio::test]
async fn a_file_takes_what_its_folder_has_its_new_files_inherit() {
    let dir = tempfile::tempdir().unwrap();
    let (here, folder) = (dir.path().join("a.conf"), dir.path().join("shared"));
    std::fs::write(&here, "a").unwrap();
    std::fs::create_dir(&folder).unwrap();
    let give = |folder: &Path| {
        let mut give = std::process::Command::new("setfacl");
        give.args(["-d", "-m", "u:65534:rwx"]).arg(folder).status().is_ok_and(|status| status.success())
    };
    if !give(&folder) {
        println!("skipped: needs setfacl, and a file system that has ACLs");
        return;
    }
    let there = folder.join("a.conf");
    carried(FileStep { mode: Some(0o660), ..file(Direction::Upload, &here, &there) }).await.unwrap();
    let listed = std::process::Command::new("getfacl").arg("-n").arg(&there).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("user:65534:rwx"), "{listed}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left there");
}

#[tokio::test]
async fn a_file_keeps_its_name_in_a_folder_and_takes_a_new_one_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("a.conf"), "a").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    for (remote, place) in [("folder", "folder/a.conf"), ("new/", "new/a.conf"), ("b.conf", "b.conf")] {
        carried(file(Direction::Upload, at("a.conf"), at(remote))).await.unwrap();
        assert_eq!(std::fs::read_to_string(at(place)).unwrap(), "a", "{remote}");
    }
    std::fs::create_dir(at("down")).unwrap();
    carried(file(Direction::Download, at("down"), at("a.conf"))).await.unwrap();
    assert_eq!(std::fs::read_to_string(at("down/a.conf")).unwrap(), "a");
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_folder_means_what_is_in_it() {
    for direction in [Direction::Upload, Direction::Download] {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        for (from, to, deep) in [("conf", "one", "one/conf/deep"), ("conf/", "two", "two/deep")] {
            let (from, to) = (format!("{}/{from}", dir.path().display()), dir.path().join(to));
            let step = match direction {
                Direction::Upload => file(direction, &from, &to),
                Direction::Download => file(direction, &to, &from),
            };
            carried(step).await.unwrap();
            let deep = dir.path().join(deep);
            let mode = std::fs::metadata(deep.join("tool.sh")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o750, "{direction:?} {from}");
            assert_eq!(std::fs::read(deep.join("../empty")).unwrap(), b"");
            assert_eq!(std::fs::read_link(deep.join("../link")).unwrap(), Path::new("empty"));
        }
    }
}

#[tokio::test]
async fn a_text_of_the_profile_becomes_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("motd");
    std::fs::write(&there, "the old one").unwrap();
    let step = FileStep { content: Some("hello\n".into()), ..file(Direction::Upload, "", &there) };
    carried(step).await.unwrap();
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "hello\n");
    assert_eq!(std::fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o644);
}

#[tokio::test]
async fn what_was_damaged_on_the_way_does_not_come_into_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, "what it is to be").unwrap();
    for (wire, direction) in [("cat >>", Direction::Upload), ("dd if=", Direction::Download)] {
        std::fs::write(&to, "what it was").unwrap();
        let guest = LocalGuest::damaging(wire);
        let (local, remote) = match direction {
            Direction::Upload => (&from, &to),
            Direction::Download => (&to, &from),
        };
        let step = Step::new("files", Action::File(file(direction, local, remote)));
        let env = BTreeMap::new();
        let around = Around { guest: &guest, env: &env, key_file: None, interactive: false };
        let told = perform(&around, &step, &mut Lines::default()).await.unwrap_err().to_string();
        assert!(told.contains("the checksum differs"), "{told}");
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "what it was", "{wire}");
        assert_eq!(guest.left(), Vec::<String>::new(), "nothing is left in the guest");
        let beside = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(beside, 2, "nothing is left beside the files");
    }
}

#[tokio::test]
async fn a_pipe_is_no_file_and_nobody_waits_for_its_writer() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for from in [pipe.as_path(), Path::new("/dev/zero")] {
        let told = carried(file(Direction::Upload, from, dir.path().join("to"))).await.unwrap_err();
        assert!(told.contains("it is neither a file nor a folder"), "{told}");
    }
}

#[tokio::test]
async fn what_can_t_be_carried_is_told_with_both_ends_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nosuch");
    let error = carried(file(Direction::Upload, &missing, "/tmp/x")).await.unwrap_err();
    assert!(error.contains("nosuch to /tmp/x failed: No such file"), "{error}");
    let error = carried(file(Direction::Download, dir.path().join("x"), &missing)).await.unwrap_err();
    assert!(error.contains("download from") && error.contains("nosuch"), "{error}");
    assert!(!dir.path().join("x").exists());
    // A file where a folder would have to be.
    std::fs::write(dir.path().join("file"), "kept").unwrap();
    let step =
        FileStep { content: Some("x".into()), ..file(Direction::Upload, "", dir.path().join("file/in")) };
    carried(step).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(dir.path().join("file")).unwrap(), "kept");
}

#[tokio::test]
async fn a_step_is_tried_again_as_often_as_it_says_and_not_more() {
    for (retries, ok) in [(2, true), (1, false)] {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        // Succeeds the third time.
        let line = format!("echo x >>{0}; test $(wc -l <{0}) -ge 3", count.display());
        let mut step = Step::new("again", Action::Shell(ShellStep::inline("again", [line])));
        step.retries = retries;
        let (result, lines) = go(&step).await;
        assert_eq!(result.is_ok(), ok, "{retries}");
        let tries = std::fs::read_to_string(&count).unwrap().lines().count();
        assert_eq!(tries, usize::try_from(retries).unwrap() + 1);
        assert!(lines.iter().any(|line| line.contains("try 1 of")), "{lines:?}");
    }
}

#[tokio::test]
async fn a_pause_comes_before_its_step() {
    let mut step = Step::new("late", Action::Shell(ShellStep::inline("late", ["true"])));
    step.pause_before = Some(Duration::from_millis(400));
    let began = std::time::Instant::now();
    go(&step).await.0.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400));
}

fn local(what: LocalWork) -> LocalStep {
    LocalStep {
        what,
        env: BTreeMap::from([("OWN".to_owned(), "mine".to_owned())]),
        valid_exit_codes: vec![0],
        timeout: None,
        dir: std::env::temp_dir(),
    }
}

#[tokio::test]
async fn lines_for_this_machine_see_the_build_and_how_to_get_into_the_guest() {
    let text = "echo $FORGE_PROFILE $OWN $FORGE_GUEST_HOST $FORGE_GUEST_PORT $FORGE_GUEST_KEY_FILE; pwd -P";
    let (result, lines) = go(&Step::new("x", Action::Local(local(LocalWork::Shell(text.into()))))).await;
    result.unwrap();
    assert_eq!(lines[0], "debian-12 mine local 22 /tmp/no-such.key");
    assert_eq!(Path::new(&lines[1]), std::env::temp_dir().canonicalize().unwrap());
}

#[tokio::test]
async fn a_program_gets_the_build_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("tool");
    std::fs::write(&program, "#!/bin/sh\ncat >got.json; echo \"args: $*\"\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut step = local(LocalWork::Exec(vec!["./tool".into(), "a b".into(), "c".into()]));
    step.dir = dir.path().to_owned();
    let (result, lines) = go(&Step::new("tool", Action::Local(step))).await;
    result.unwrap();
    assert_eq!(lines, ["args: a b c"]);
    let text = std::fs::read_to_string(dir.path().join("got.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["version"], 1);
    assert_eq!(value["guest"]["host"], "local");
    assert_eq!(value["guest"]["private-key-file"], "/tmp/no-such.key");
    assert_eq!(value["env"]["FORGE_PROFILE"], "debian-12");
}

#[tokio::test]
async fn a_program_s_daemon_that_holds_its_output_does_not_hold_the_step_up() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let text = format!("(while sleep 0.2; do echo still here; done) & echo $! >{}; echo done", pid.display());
    let mut step = local(LocalWork::Shell(text));
    step.timeout = Some(Duration::from_secs(120));
    let (result, lines) = go(&Step::new("x", Action::Local(step))).await;
    let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(result.unwrap().exit, 0, "not given up at its limit");
    assert!(lines.iter().any(|line| line.contains("done")), "{lines:?}");
}

#[tokio::test]
async fn a_failing_program_of_this_machine_is_told_with_its_last_lines() {
    let step = local(LocalWork::Shell("echo broken >&2; exit 4".into()));
    let text = go(&Step::new("x", Action::Local(step))).await.0.unwrap_err().to_string();
    assert!(text.contains("exited with status 4, allowed: 0") && text.contains("| broken"), "{text}");
    let step = local(LocalWork::Exec(vec!["/no/such/program".into()]));
    let text = go(&Step::new("x", Action::Local(step))).await.0.unwrap_err().to_string();
    assert!(text.contains("/no/such/program can't be run"), "{text}");
}

#[tokio::test]
async fn a_program_over_its_limit_is_ended_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    // One that does not mind being asked.
    let text = format!(
        "(trap '' TERM; while :; do sleep 1; done) & echo $! >{0}.part; mv {0}.part {0}; echo the last words; wait",
        pid.display()
    );
    let mut step = local(LocalWork::Shell(text));
    step.timeout = Some(Duration::from_millis(600));
    let error = go(&Step::new("x", Action::Local(step))).await.0.unwrap_err();
    assert!(matches!(error, ProvisionError::TimedOut { .. }), "{error:?}");
    assert!(error.to_string().ends_with("| the last words"), "{error}");
    let child = std::fs::read_to_string(&pid).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    let gone = async {
        // A zombie that init has not taken yet is gone too.
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the child lives on");
}

async fn wait(condition: Condition, limit: Duration) -> (Result<StepOutcome, ProvisionError>, Vec<String>) {
    go(&Step::new("wait", Action::WaitFor { condition, limit })).await
}

#[tokio::test]
async fn ports_files_and_commands_are_waited_for_until_they_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let later = tokio::spawn({
        let mark = mark.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            std::fs::write(mark, "").unwrap();
        }
    });
    let path = mark.to_str().unwrap().to_owned();
    let (result, lines) = wait(Condition::File(path), Duration::from_secs(30)).await;
    result.unwrap();
    later.await.unwrap();
    assert!(lines[0].contains("does not exist"), "{lines:?}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    wait(Condition::Port(port), Duration::from_secs(30)).await.0.unwrap();
    wait(Condition::Command("test -d /".into()), Duration::from_secs(30)).await.0.unwrap();
}

#[tokio::test]
async fn what_never_comes_is_told_with_what_was_seen_last() {
    let short = Duration::from_millis(700);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let text = wait(Condition::Port(port), short).await.0.unwrap_err().to_string();
    assert!(text.contains(&format!("TCP port {port} did not come within 700ms")), "{text}");
    assert!(text.contains("nothing listens"), "{text}");
    let command = Condition::Command("echo not yet; exit 3".into());
    let text = wait(command, short).await.0.unwrap_err().to_string();
    assert!(text.ends_with("last seen: status 3: not yet"), "{text}");
}

#[tokio::test]
async fn a_breakpoint_shows_how_to_get_in_and_holds_up_nobody_who_is_not_there() {
    let (result, lines) = go(&Step::new("stop", Action::Breakpoint { note: "look at it".into() })).await;
    result.unwrap();
    assert_eq!(lines[0], "look at it");
    assert_eq!(lines[1], "to get in: ssh -i /tmp/no-such.key forge@local");
    assert!(lines[2].contains("goes on"), "{lines:?}");
}

#[test]
fn a_guest_that_is_not_reached_over_the_network_has_no_address_for_programs() {
    let parts = |described: &str| super::local::parts(described);
    assert_eq!(parts("forge@192.0.2.7:2222"), ("forge".into(), "192.0.2.7".into(), 2222));
    assert_eq!(parts("root@vm.example"), ("root".into(), "vm.example".into(), 22));
    assert_eq!(parts("the guest agent of 9001"), (String::new(), String::new(), 0));
}
