//! What a step does, on this machine's shell and on an SSH server that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::remote::testing::{Faults, LocalGuest, SshServer};
use crate::remote::{Become, BuildKey, SshGuest, WaitInput, wait_for_guest};

#[derive(Default)]
struct Lines(Vec<String>);

impl OutputObserver for Lines {
    fn line(&mut self, line: &str, stderr: bool) {
        self.0.push(format!("{}{line}", if stderr { "! " } else { "" }));
    }
}

async fn on(guest: &dyn Guest, step: &ShellStep) -> (Result<StepOutcome, ProvisionError>, Vec<String>) {
    let mut lines = Lines::default();
    let env = BTreeMap::from([("FORGE_PROFILE".to_owned(), "debian 12".to_owned())]);
    (run(guest, step, &env, &mut lines).await, lines.0)
}

async fn here(step: &ShellStep) -> (Result<StepOutcome, ProvisionError>, Vec<String>) {
    on(&LocalGuest::default(), step).await
}

async fn connect(server: &SshServer) -> Arc<SshGuest> {
    let input = WaitInput {
        access: crate::remote::SshAccess::default(),
        source: Arc::new(server.address),
        user: "forge".into(),
        key: Arc::new(BuildKey::generate().unwrap()),
        host_key: None,
        limit: Duration::from_secs(30),
    };
    wait_for_guest(input, &|_| {}).await.unwrap()
}

#[tokio::test]
async fn lines_see_the_builds_variables_and_their_own() {
    let mut step = ShellStep::inline("greet", ["echo \"$FORGE_PROFILE $NAME\"", "echo done >&2"]);
    step.env.insert("NAME".into(), "it's me".into());
    let (outcome, lines) = here(&step).await;
    assert_eq!(outcome.unwrap().exit, 0);
    assert!(
        lines.contains(&"debian 12 it's me".to_owned()) && lines.contains(&"! done".to_owned()),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_failing_line_fails_the_step_with_its_last_words() {
    let (outcome, _) =
        here(&ShellStep::inline("x", ["echo before", "echo broken >&2; exit 3", "echo after"])).await;
    let error = outcome.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("status 3") && text.contains("| broken") && !text.contains("after"), "{text}");
    assert!(error.hint().contains("valid-exit-codes"));
}

#[tokio::test]
async fn allowed_exit_codes_are_successes_and_others_are_not() {
    for (code, allowed, ok) in [(3, vec![0, 3], true), (0, vec![3], false), (4, vec![0, 3], false)] {
        let mut step = ShellStep::inline("x", [format!("exit {code}")]);
        step.valid_exit_codes = allowed.clone();
        let (outcome, _) = here(&step).await;
        assert_eq!(outcome.is_ok(), ok, "{code} of {allowed:?}");
    }
}

#[tokio::test]
async fn a_script_is_run_by_the_program_it_names() {
    let source = ShellSource::Script {
        path: "x.sh".into(),
        content: "#!/usr/bin/env bash\na=(1 2 3); echo \"${#a[@]} {{ not ours }}\"\n".into(),
    };
    let (outcome, lines) = here(&ShellStep::new("x", source)).await;
    outcome.unwrap();
    assert_eq!(lines, ["3 {{ not ours }}"]);
    let mut step = ShellStep::inline("x", ["p a b"]);
    step.interpreter = Some("/bin/cat".into());
    let (outcome, lines) = here(&step).await;
    outcome.unwrap();
    assert_eq!(lines, ["p a b"]);
}

#[tokio::test]
async fn a_missing_command_a_missing_folder_and_a_bad_variable_are_named() {
    let (outcome, _) = here(&ShellStep::inline("x", ["no-such-command-here"])).await;
    assert!(outcome.unwrap_err().to_string().contains("command not found"));
    let mut step = ShellStep::inline("x", ["true"]);
    step.work_dir = Some("/no/such/folder".into());
    let (outcome, _) = here(&step).await;
    assert!(outcome.unwrap_err().to_string().contains("/no/such/folder"));
    let mut step = ShellStep::inline("x", ["true"]);
    step.env.insert("a-b".into(), String::new());
    assert!(matches!(here(&step).await.0, Err(ProvisionError::BadVariable { name }) if name == "a-b"));
}

#[tokio::test]
async fn a_step_over_its_limit_fails_with_what_it_had_printed() {
    let mut step = ShellStep::inline("x", ["echo begun", "sleep 5"]);
    step.timeout = Some(Duration::from_millis(700));
    let text = here(&step).await.0.unwrap_err().to_string();
    assert!(text.contains("700ms") && text.contains("begun"), "{text}");
}

#[tokio::test]
async fn root_needs_nothing_to_become_root() {
    let mut step = ShellStep::inline("x", ["id -u"]);
    step.become_root = Become::Auto;
    match here(&step).await {
        (Ok(_), lines) => assert_eq!(lines, ["0"]),
        (Err(ProvisionError::NoRoot { tried }), _) => assert!(tried.contains("sudo"), "{tried}"),
        (Err(error), _) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_cut_connection_is_a_failure_although_the_script_would_have_succeeded() {
    let server = SshServer::start(Faults { cut_at: Some("halfway"), ..Faults::default() }).await;
    let guest = connect(&server).await;
    let (outcome, lines) = on(guest.as_ref(), &ShellStep::inline("x", ["echo halfway", "sleep 1"])).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, ProvisionError::ConnectionLost { .. }), "{error:?}");
    assert!(error.hint().contains("expect-disconnect"));
    assert!(lines.is_empty() || lines == ["halfway"]);
}

#[tokio::test]
async fn an_expected_disconnect_ends_when_the_same_guest_answers_again() {
    let server = SshServer::start(Faults { cut_at: Some("halfway"), ..Faults::default() }).await;
    let guest = connect(&server).await;
    let mut step = ShellStep::inline("x", ["echo halfway", "sleep 1"]);
    step.expect_disconnect = true;
    let (outcome, _) = on(guest.as_ref(), &step).await;
    // This machine did not reboot, so its boot id is the old one.
    assert_eq!(outcome.unwrap(), StepOutcome { exit: 0, disconnected: true, rebooted: false });
}

#[tokio::test]
async fn another_machine_in_the_guests_place_fails_an_expected_disconnect() {
    let server = SshServer::start(Faults { cut_at: Some("halfway"), ..Faults::default() }).await;
    let guest = connect(&server).await;
    server.change(|faults| faults.other_host_key = true);
    let mut step = ShellStep::inline("x", ["echo halfway", "sleep 1"]);
    step.expect_disconnect = true;
    let (outcome, _) = on(guest.as_ref(), &step).await;
    assert!(
        matches!(outcome, Err(ProvisionError::NotBack { source: GuestError::HostKeyChanged { .. } })),
        "{outcome:?}"
    );
}

/// What a script's end is when the server misbehaves under it: the outcome, word by word.
async fn ended(faults: Faults, line: &str) -> (Result<StepOutcome, String>, Vec<String>) {
    let server = SshServer::start(faults).await;
    let guest = connect(&server).await;
    let (outcome, lines) = on(guest.as_ref(), &ShellStep::inline("x", [line])).await;
    (outcome.map_err(|error| error.to_string()), lines)
}

#[tokio::test]
async fn a_server_that_tells_no_exit_status_does_not_hide_the_script_s_own() {
    let silent = || Faults { no_exit_status: true, ..Faults::default() };
    assert_eq!(ended(silent(), "true").await.0.unwrap().exit, 0);
    let error = ended(silent(), "echo why; exit 3").await.0.unwrap_err();
    assert_eq!(error, "the script exited with status 3, allowed: 0; its last lines:\n    | why");
    // Nor does it make a success of a script that was cut off.
    let error = ended(silent(), "echo so far; kill -9 $PPID; sleep 0.2").await.0.unwrap_err();
    assert_eq!(
        error,
        "the connection to the guest was lost before the script had ended; its last lines:\n    | so far"
    );
}

#[tokio::test]
async fn a_script_whose_session_is_killed_by_a_signal_is_cut_off_and_not_done() {
    let error = ended(Faults::default(), "echo so far; kill -9 $PPID; sleep 0.2").await.0.unwrap_err();
    assert_eq!(
        error,
        "the script was cut off: the guest ended it (killed by a signal) before it could tell its end; \
         its last lines:\n    | so far"
    );
}

#[tokio::test]
async fn binary_and_endless_looking_output_hides_neither_the_end_nor_the_last_lines() {
    let line =
        "head -c 300000 /dev/urandom; echo; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last; exit 9";
    let (outcome, lines) = ended(Faults::default(), line).await;
    let error = outcome.unwrap_err();
    assert!(error.starts_with("the script exited with status 9, allowed: 0"), "{error:.200}");
    assert!(error.ends_with("    | last") && error.len() < 8000, "{}", error.len());
    // Nothing a terminal would obey, and no line without bounds.
    assert!(lines.iter().all(|line| line.len() <= 64 * 1024 && !line.contains('\x1b')));
}

/// Each way in which a server, or the line to it, may misbehave under a script has one outcome and one message.
#[tokio::test]
async fn each_misbehaviour_has_its_outcome_and_its_words() {
    const LOST: &str = "the connection to the guest was lost before the script had ended";
    let so_far = |words: &str| format!("{words}; its last lines:\n    | so far");
    let none = Faults::default;
    let cases: Vec<(&str, Faults, &str, Result<i32, String>)> = vec![
        ("nothing", none(), "echo so far", Ok(0)),
        ("a slow line", Faults { slow: Some(Duration::from_millis(2)), ..none() }, "echo so far", Ok(0)),
        ("no exit status", Faults { no_exit_status: true, ..none() }, "echo so far", Ok(0)),
        ("the status before the output", Faults { status_first: true, ..none() }, "sleep 0.3; echo so far", Ok(0)),
        ("one refused channel", Faults { refuse_channels: 1, ..none() }, "echo so far", Ok(0)),
        (
            "a failing script whose server tells success first",
            Faults { status_first: true, ..none() },
            "sleep 0.3; echo so far; exit 3",
            Err(so_far("the script exited with status 3, allowed: 0")),
        ),
        ("cut", Faults { cut_at: Some("so far"), ..none() }, "echo so far; sleep 5", Err(so_far(LOST))),
        (
            "reset",
            Faults { cut_at: Some("so far"), reset: true, ..none() },
            "echo so far; sleep 5",
            Err(so_far(LOST)),
        ),
        (
            "half open",
            Faults { freeze_at: Some("so far"), ..none() },
            "echo so far; sleep 600",
            Err(so_far(LOST)),
        ),
        (
            "cut while the script is on its way",
            Faults { cut_input_at: Some(20), ..none() },
            "echo so far",
            Err(format!("{LOST}; it had printed nothing")),
        ),
        (
            "the output lost behind its first bytes",
            Faults { most_output: Some(10), ..none() },
            "echo so far",
            Err("the script could not be started in the guest (status 0); its last lines:\n    | forge-mark".into()),
        ),
        (
            "no commands",
            Faults { refuse_commands: true, ..none() },
            "echo so far",
            Err("the script could not be handed to the guest: GUEST runs no commands: the server refuses to run commands".into()),
        ),
        (
            "no channels",
            Faults { refuse_channels: usize::MAX, ..none() },
            "echo so far",
            Err("the script could not be handed to the guest: GUEST opens no channel even after a reconnection".into()),
        ),
        (
            "killed by a signal",
            none(),
            "echo so far; kill -9 $PPID; sleep 0.2",
            Err(so_far(
                "the script was cut off: the guest ended it (killed by a signal) before it could tell its end",
            )),
        ),
        (
            "killed by a signal that is not told",
            Faults { no_exit_status: true, ..none() },
            "echo so far; kill -9 $PPID; sleep 0.2",
            Err(so_far(LOST)),
        ),
    ];
    for (what, faults, line, expected) in cases {
        let server = SshServer::start(Faults::default()).await;
        let input = WaitInput {
            access: crate::remote::SshAccess {
                keep_alive: Some(Duration::from_secs(2)),
                ..crate::remote::SshAccess::default()
            },
            source: Arc::new(server.address),
            user: "forge".into(),
            key: Arc::new(BuildKey::generate().unwrap()),
            host_key: None,
            limit: Duration::from_secs(60),
        };
        // A slow line is slow from its beginning.
        server.change(|now| now.slow = faults.slow);
        let guest = wait_for_guest(input, &|_| {}).await.unwrap();
        server.change(|now| *now = faults);
        let (outcome, _) = on(guest.as_ref(), &ShellStep::inline("x", [line])).await;
        let told = outcome.map(|outcome| outcome.exit).map_err(|error| crate::engine::error::chain(&error));
        let told = told.map_err(|told| told.replace(&guest.describe(), "GUEST"));
        // What was on its way when the line was cut may be lost with it.
        let cut = ["cut", "reset", "half open"].contains(&what);
        let told = told
            .map_err(|told| if cut { told.replace("; it had printed nothing", &so_far("")) } else { told });
        match (&told, &expected) {
            // What russh says of it is its own affair.
            (Err(told), Err(expected)) if what == "no channels" => {
                assert!(told.starts_with(expected.as_str()), "{what}: {told}");
            }
            _ => assert_eq!(told, expected, "{what}"),
        }
    }
}

#[tokio::test]
async fn a_refused_channel_costs_a_reconnection_and_nothing_else() {
    let (outcome, lines) = ended(Faults { refuse_channels: 1, ..Faults::default() }, "echo in").await;
    assert_eq!(outcome.unwrap(), StepOutcome { exit: 0, disconnected: false, rebooted: false });
    assert_eq!(lines, ["in"]);
}

#[tokio::test]
async fn a_script_costs_one_channel_whatever_it_is_given() {
    let server = SshServer::start(Faults::default()).await;
    let guest = connect(&server).await;
    let channels = || server.channels.load(std::sync::atomic::Ordering::SeqCst);
    let plain = ShellStep::inline("x", ["echo in"]);
    let limited = ShellStep { timeout: Some(Duration::from_secs(50)), ..plain.clone() };
    let given = ShellStep {
        work_dir: Some("/".into()),
        env: [("A".to_owned(), "b".to_owned())].into(),
        ..plain.clone()
    };
    for step in [plain, limited, given] {
        let before = channels();
        on(guest.as_ref(), &step).await.0.unwrap();
        assert_eq!(channels() - before, 1, "{step:?}");
    }
}

#[tokio::test]
async fn a_script_that_can_not_be_begun_is_tried_again_only_when_the_step_says_so() {
    for (start_retry, ok) in [(None, false), (Some(Duration::from_secs(30)), true)] {
        let server = SshServer::start(Faults::default()).await;
        let guest = connect(&server).await;
        // The channel of the first try and that after its reconnection.
        server.change(|faults| faults.refuse_channels = 2);
        let mut step = ShellStep::inline("x", ["echo in"]);
        step.start_retry = start_retry;
        let mut lines = Lines::default();
        let outcome = run_patiently(guest.as_ref(), &step, &BTreeMap::new(), &mut lines).await;
        assert_eq!(outcome.is_ok(), ok, "{outcome:?}");
        assert_eq!(lines.0.contains(&"in".to_owned()), ok, "{:?}", lines.0);
    }
}
