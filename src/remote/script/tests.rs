//! Scripts on this machine's own shell.

use super::*;
use crate::remote::testing::LocalGuest;

#[derive(Default)]
struct Lines(Vec<String>);

impl ScriptOutput for Lines {
    fn line(&mut self, line: &str, stderr: bool) {
        self.0.push(format!("{}{line}", if stderr { "! " } else { "" }));
    }

    fn mark(&mut self, text: &str) {
        self.0.push(format!("<{text}>"));
    }
}

async fn run(script: &RemoteScript) -> (ScriptRun, Vec<String>) {
    let mut lines = Lines::default();
    let run = run_script(&LocalGuest::default(), script, &mut lines).await.unwrap();
    (run, lines.0)
}

#[tokio::test]
async fn the_exit_status_comes_back_in_the_mark_and_the_folder_is_gone() {
    let (run, lines) =
        run(&RemoteScript::sh("echo out; echo no newline | tr -d '\\n'; echo err >&2; exit 3")).await;
    assert_eq!(run.end, ScriptEnd::Exited(3));
    assert!(lines.contains(&"out".to_owned()) && lines.contains(&"! err".to_owned()), "{lines:?}");
    assert!(lines.contains(&"no newline".to_owned()), "{lines:?}");
    let begun = run.begun.unwrap();
    assert_eq!(begun.boot_id.unwrap().len(), 36);
    assert!(begun.dir.contains("/forge-") && !std::path::Path::new(&begun.dir).exists());
}

#[tokio::test]
async fn a_script_sees_its_variables_its_folder_and_no_input() {
    let mut script = RemoteScript::sh("echo \"$A|$(pwd)|$(cat)|\"; ps ax; env");
    script.env.insert("A".into(), "it's $HOME\nand more".into());
    script.dir = Some("/usr".into());
    let nonce = script.sentinel.nonce().to_owned();
    let (run, lines) = run(&script).await;
    assert_eq!(run.end, ScriptEnd::Exited(0));
    assert_eq!(&lines[..2], ["it's $HOME", "and more|/usr||"]);
    assert!(lines.iter().all(|line| !line.contains(&nonce)), "the nonce is seen by the script");
}

/// What a script makes in a template, others have to be able to read: keys of a repository, configuration.
#[tokio::test]
async fn a_script_makes_files_with_the_users_own_umask() {
    let own = std::process::Command::new("sh").args(["-c", "umask"]).output().unwrap();
    let (run, lines) = run(&RemoteScript::sh("umask")).await;
    assert_eq!(run.end, ScriptEnd::Exited(0));
    assert_eq!(lines, [String::from_utf8(own.stdout).unwrap().trim()]);
}

#[tokio::test]
async fn a_failing_line_ends_the_script_and_later_ones_are_not_run() {
    let (run, lines) = run(&RemoteScript::sh("false\necho never")).await;
    assert_eq!((run.end, lines.len()), (ScriptEnd::Exited(1), 0));
}

#[tokio::test]
async fn a_wrapper_that_is_killed_is_no_success() {
    let (run, _) = run(&RemoteScript::sh("echo so far; kill -9 $PPID; sleep 0.1")).await;
    assert!(matches!(run.end, ScriptEnd::Truncated(_)), "{run:?}");
    assert_eq!(run.tail, ["so far"]);
}

#[tokio::test]
async fn scripts_of_any_length_and_content_arrive_whole() {
    let mut content = String::from("cat <<'EOF' | cksum\n");
    let body: String = (0..20_000).map(|n| format!("line {n} '\" ' \\ $x\n")).collect();
    content.push_str(&body);
    content.push_str("EOF\n");
    let (run, lines) = run(&RemoteScript::sh(content)).await;
    assert_eq!(run.end, ScriptEnd::Exited(0));
    let length = body.len().to_string();
    assert!(lines[0].ends_with(&length), "{lines:?} for {length} bytes");
}

#[tokio::test]
async fn a_script_that_takes_too_long_is_told_with_its_last_lines() {
    let mut script = RemoteScript::sh("echo begun; sleep 600");
    script.timeout = Some(Duration::from_millis(700));
    let (run, _) = run(&script).await;
    assert_eq!(run.end, ScriptEnd::TimedOut(Duration::from_millis(700)));
    assert_eq!(run.tail.first().map(String::as_str), Some("begun"));
}

#[tokio::test]
async fn a_script_over_its_limit_is_ended_by_the_guest_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    // Neither minds a polite signal, and the second is nobody's child any more.
    let text = format!(
        "trap '' TERM; (sleep 6000 & echo $! >>{0}); echo $$ >>{0}; while :; do sleep 1; done",
        file.display()
    );
    let mut script = RemoteScript::sh(text);
    script.timeout = Some(Duration::from_secs(1));
    script.env.insert("limit".into(), "6000".into());
    let (run, _) = run(&script).await;
    assert_eq!(run.end, ScriptEnd::TimedOut(Duration::from_secs(1)));
    let pids = std::fs::read_to_string(&file).unwrap();
    assert_eq!(pids.lines().count(), 2);
    let gone = async {
        while pids.lines().any(|pid| std::path::Path::new(&format!("/proc/{pid}/cwd")).exists()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("they are ended");
}

#[tokio::test]
async fn what_a_script_with_a_limit_leaves_in_the_background_stays() {
    let mut script = RemoteScript::sh("sleep 600 >/dev/null 2>&1 & echo $!; exit 4");
    script.timeout = Some(Duration::from_secs(500));
    let (run, lines) = run(&script).await;
    assert_eq!(run.end, ScriptEnd::Exited(4));
    // The watch sees within a second that the script has ended, and its group is then empty but for the daemon.
    let daemon = std::path::PathBuf::from(format!("/proc/{}", lines[0]));
    let group = std::fs::read_to_string(daemon.join("stat")).unwrap();
    let group = group.split(' ').nth(4).unwrap().to_owned();
    let members = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let stats = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        stats.filter(|stat| stat.rsplit(") ").next().unwrap().split(' ').nth(2) == Some(&group)).count()
    };
    let watched = async {
        while members() > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), watched).await.expect("the watch ends");
    assert!(daemon.join("cwd").exists(), "the daemon is still there");
    _ = std::process::Command::new("kill").arg(&lines[0]).status();
}

#[tokio::test]
async fn variables_of_any_name_change_nothing_of_how_a_script_is_run() {
    let mut script = RemoteScript::sh("echo \"$d $nonce $limit $length $offset\"; exit 3");
    for name in ["d", "nonce", "limit", "length", "offset"] {
        script.env.insert(name.into(), format!("own-{name}"));
    }
    for timeout in [None, Some(Duration::from_secs(100))] {
        script.timeout = timeout;
        let (run, lines) = run(&script).await;
        assert_eq!(run.end, ScriptEnd::Exited(3));
        assert_eq!(lines, ["own-d own-nonce own-limit own-length own-offset"]);
    }
}

/// A guest whose temporary folder holds 64 KiB.
fn narrow() -> LocalGuest {
    let line = |line: &str| {
        let inner = format!(
            "mount -t tmpfs -o size=64k tmpfs \"$TMPDIR\" || exit 77; /bin/sh -c {}; code=$?; \
             [ -z \"$(ls \"$TMPDIR\")\" ] || echo left; exit $code",
            quote::sh(line)
        );
        format!("exec unshare -rm /bin/sh -c {}", quote::sh(&inner))
    };
    LocalGuest::default().changing(line)
}

#[tokio::test]
async fn root_is_become_by_the_way_that_is_named_or_by_the_first_that_works() {
    use std::os::unix::fs::PermissionsExt as _;
    if LocalGuest::unprivileged().is_none() {
        println!("skipped: needs root and setpriv, to run as somebody who is not root");
        return;
    }
    for (become_root, refuses, expected) in [
        (Become::Sudo, "", "sudo -n -H /bin/sh D/run D inner\n"),
        (Become::Doas, "", "doas -n /bin/sh D/run D inner\n"),
        (Become::Su, "", "su root -c /bin/sh 'D/run' 'D' inner\n"),
        (Become::Auto, "", "sudo -n true\nsudo -n -H /bin/sh D/run D inner\n"),
        (Become::Auto, "sudo", "sudo -n true\ndoas -n true\ndoas -n /bin/sh D/run D inner\n"),
        (
            Become::Auto,
            "sudo doas",
            "sudo -n true\ndoas -n true\nsu root -c true\nsu root -c /bin/sh 'D/run' 'D' inner\n",
        ),
        (Become::No, "", ""),
    ] {
        let tools = tempfile::tempdir().unwrap();
        std::fs::set_permissions(tools.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let log = tools.path().join("log");
        for (name, act) in [
            ("sudo", "while [ \"${1#-}\" != \"$1\" ]; do shift; done; exec \"$@\""),
            ("doas", "shift; exec \"$@\""),
            ("su", "exec /bin/sh -c \"$3\""),
        ] {
            let text = format!(
                "#!/bin/sh\necho \"{name} $*\" >>{}\ncase ' {refuses} ' in *' {name} '*) exit 1 ;; esac\n{act}\n",
                log.display()
            );
            std::fs::write(tools.path().join(name), text).unwrap();
            std::fs::set_permissions(tools.path().join(name), std::fs::Permissions::from_mode(0o755))
                .unwrap();
        }
        let path = format!("export PATH={}:$PATH; ", tools.path().display());
        let line = move |line: &str| format!("{path}{line}");
        let guest = LocalGuest::unprivileged().unwrap().changing(line);
        let mut script = RemoteScript::sh("cat; echo \"$A\"; exit 3");
        script.env.insert("A".into(), "it's there".into());
        script.dir = Some("/".into());
        script.become_root = become_root;
        let mut lines = Lines::default();
        let run = run_script(&guest, &script, &mut lines).await.unwrap();
        assert_eq!(
            (run.end, lines.0),
            (ScriptEnd::Exited(3), vec!["it's there".to_owned()]),
            "{become_root:?}"
        );
        let asked = std::fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(
            asked.replace(&run.begun.unwrap().dir, "D"),
            expected,
            "{become_root:?} without {refuses}"
        );
    }
}

#[tokio::test]
async fn a_script_that_finds_no_room_for_itself_is_not_run() {
    let guest = narrow();
    let mut lines = Lines::default();
    let small = run_script(&guest, &RemoteScript::sh("echo runs"), &mut lines).await.unwrap();
    if small.end == ScriptEnd::Truncated(ExecOutcome::Exited(77)) || lines.0 != ["runs"] {
        eprintln!("skipped: no file system can be mounted here: {small:?}");
        return;
    }
    // Room for one copy and not for two, and not even for one.
    for kib in [45, 200] {
        let filler = "# so that it is long enough to find no room\n".repeat(kib * 1024 / 44);
        let mut lines = Lines::default();
        let script = RemoteScript::sh(format!("echo began\n{filler}echo ended\n"));
        let run = run_script(&guest, &script, &mut lines).await.unwrap();
        assert_eq!(run.end, ScriptEnd::Truncated(ExecOutcome::Exited(125)), "{kib} KiB: {run:?}");
        assert_eq!(run.begun, None);
        assert!(lines.0.iter().all(|line| line.starts_with("! ")), "nothing ran, all is gone: {:?}", lines.0);
        let told = lines.0.concat();
        assert!(told.to_lowercase().contains("no space left"), "{told}");
    }
}

#[tokio::test]
async fn a_script_of_which_only_the_beginning_came_is_not_run() {
    let script = RemoteScript::sh("echo never\n");
    let whole = script.command();
    // Each place that may be the last to arrive, where the wrapper itself is cut too.
    for length in (0..whole.stdin.len()).step_by(7).chain([whole.stdin.len() - 1]) {
        let command = Command { stdin: whole.stdin[..length].to_vec(), ..whole.clone() };
        let mut output = Vec::new();
        let guest = LocalGuest::default();
        guest.exec(&command, &mut output).await.unwrap();
        let output = String::from_utf8_lossy(&output).into_owned();
        let begun = output.contains(script.sentinel.nonce()) || output.contains("never");
        assert!(!begun, "{length} bytes: {output}");
    }
}

#[tokio::test]
async fn a_missing_way_to_root_is_told_instead_of_running_the_script() {
    let Some(guest) = LocalGuest::unprivileged() else {
        println!("skipped: needs root and setpriv, to run as somebody who may not become root");
        return;
    };
    let mut script = RemoteScript::sh("echo never");
    script.become_root = Become::Auto;
    let mut lines = Lines::default();
    let run = run_script(&guest, &script, &mut lines).await.unwrap();
    assert!(matches!(&run.end, ScriptEnd::NoRoot(why) if why.contains("su:")), "{run:?}");
    assert!(lines.0.is_empty());
}

#[tokio::test]
async fn an_imitated_guest_is_taken_for_a_real_one() {
    let script = RemoteScript::sh("#: op x done\necho never run");
    let answer = imitate(&script.command(), 7).unwrap();
    let mut lines = Lines::default();
    let mut sink = Sink {
        filter: Filter::new(script.sentinel.clone()),
        stdout: LineSplitter::default(),
        stderr: LineSplitter::default(),
        tail: Tail::new(1),
        begun: None,
        end: None,
        limit: Duration::ZERO,
        output: &mut lines,
    };
    sink.write(Stream::Stdout, &answer);
    assert_eq!(sink.end, Some(ScriptEnd::Exited(7)));
    assert_eq!(lines.0, ["<op x done>"]);
    assert!(imitate(&Command::new("uname"), 0).is_none());
}
