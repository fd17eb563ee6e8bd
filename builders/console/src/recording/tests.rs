use std::time::Duration;

use super::*;
use crate::console::Console;
use crate::expect::{Pattern, Seen, expect};
use crate::screen::tests::draw;
use crate::testing::{Guest, console};

fn shot(lines: &[&str]) -> (Shot, Frame) {
    let frame = draw(lines, None);
    (Shot::of(&Screen::read(&frame), &frame), frame)
}

#[test]
fn only_what_changed_is_written_with_its_time_text_and_picture() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::open(folder.path()).unwrap();
    for (second, lines) in
        [(0, ["boot: "]), (1, ["boot: "]), (2, ["boot: linux"]), (3, ["boot: linux"])].into_iter()
    {
        let (shot, frame) = shot(&lines);
        let written = recorder.store(Duration::from_secs(second), shot, Some(&frame)).unwrap();
        assert_eq!(written, second % 2 == 0, "{second}");
    }
    assert_eq!(recorder.len(), 2);
    drop(recorder);

    // Going on adds to what is there.
    let mut recorder = Recorder::open(folder.path()).unwrap();
    let (third, _) = shot(&["login:"]);
    assert!(recorder.store(Duration::from_secs(1), third, None).unwrap());

    let recording = Recording::open(folder.path()).unwrap();
    let times: Vec<u64> = recording.shots.iter().map(|shot| shot.t_ms).collect();
    assert_eq!(times, [0, 2000, 3000]);
    assert_eq!(recording.shots[1].text.as_deref(), Some(&["boot: linux".to_owned()][..]));
    assert_eq!(recording.shots[1].file.as_deref(), Some("00002.png"));
    let picture = recording.picture(&recording.shots[1]).unwrap().unwrap();
    assert!(Screen::read(&picture).contains("boot: linux"));
    assert_eq!(recording.picture(&recording.shots[2]).unwrap(), None);
}

/// The VM is started anew in the middle of a build, whose clock goes on; a build that is gone on with has a new one.
#[test]
fn a_recording_that_goes_on_keeps_the_clock_of_its_build_and_a_later_one_begins_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = |seconds: u64, line: &str| {
        let (shot, frame) = shot(&[line]);
        let mut recorder = Recorder::open(folder.path()).unwrap();
        assert!(recorder.store(Duration::from_secs(seconds), shot, Some(&frame)).unwrap());
    };
    store(600, "installing");
    store(660, "the installed system");
    store(5, "gone on with");
    let times: Vec<u64> =
        Recording::open(folder.path()).unwrap().shots.iter().map(|shot| shot.t_ms / 1000).collect();
    assert_eq!(times, [600, 660, 665]);
}

#[test]
fn a_line_that_was_cut_off_costs_that_line_only() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let store = |line: &str| {
        let (shot, frame) = shot(&[line]);
        Recorder::open(folder.path()).unwrap().store(Duration::from_secs(1), shot, Some(&frame)).unwrap();
    };
    store("first");
    let mut index = File::options().append(true).open(folder.path().join(INDEX)).unwrap();
    index.write_all(b"{\"t-ms\":2,\"wid").unwrap();
    assert_eq!(Recording::open(folder.path()).unwrap().shots.len(), 1);
    store("second");
    let shots = Recording::open(folder.path()).unwrap().shots;
    assert_eq!(shots.len(), 2);
    assert_eq!(shots[1].text.as_ref().unwrap()[0].trim_end(), "second");
}

#[test]
fn a_recording_never_leads_out_of_its_folder_and_its_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join(INDEX);
    for name in ["../secret.png", "/etc/passwd", ".hidden"] {
        std::fs::write(&index, format!(r#"{{"t-ms":0,"width":1,"height":1,"file":"{name}"}}"#) + "\n")
            .unwrap();
        let recording = Recording::open(folder.path()).unwrap();
        let error = recording.picture(&recording.shots[0]).unwrap_err();
        assert!(matches!(error, RecordingError::Name { .. }), "{error}");
    }
    std::fs::write(&index, "{\"t-ms\":0,\"width\":1,\"height\":1}\nnonsense\n").unwrap();
    let error = Recording::open(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("line 2 of "), "{error}");
}

/// What the test does with a live guest it does again with the recording, and nobody is there any more.
#[tokio::test(start_paused = true)]
async fn a_recorded_session_is_waited_on_again_without_its_guest() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::with_prompt("boot: ");
    guest.shows_cursor = false;
    let (live, guest) = console(guest).await;
    let mut recorder = Recorder::open(folder.path()).unwrap();
    let mut record = |second, console: &Console| {
        let shot = Shot::of(&console.screen(), &console.frame());
        recorder.store(Duration::from_secs(second), shot, Some(&console.frame())).unwrap();
    };
    record(0, &live);
    crate::console::lock(&guest).lines.push("login: ".to_owned());
    live.wait_for("login:", Duration::from_secs(5)).await.unwrap();
    record(90, &live);
    crate::console::lock(&guest).lines.push("Kernel panic - not syncing: x".to_owned());
    live.wait_for("panic", Duration::from_secs(5)).await.unwrap();
    record(600, &live);
    drop((live, guest));

    let recording = Recording::open(folder.path()).unwrap();
    let console = recording.play().await.unwrap();
    let began = tokio::time::Instant::now();
    assert!(console.screen().contains("boot:") && !console.screen().contains("login:"));
    let login = [Pattern::text("login:")];
    assert!(matches!(expect(&console, &login, Duration::from_secs(100)).await, Ok(Seen::Pattern(0))));
    assert!(began.elapsed() >= Duration::from_secs(89), "{:?}", began.elapsed());
    let never = [Pattern::text("GRUB")];
    let seen = expect(&console, &never, Duration::from_secs(900)).await.unwrap();
    let Seen::Fatal(sighting) = seen else { panic!("{seen:?}") };
    assert!(sighting.to_string().to_lowercase().contains("panic"), "{sighting}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_size_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::open(folder.path()).unwrap();
    let small = Frame::new(64, 48).unwrap();
    recorder.store(Duration::ZERO, Shot::of(&Screen::read(&small), &small), Some(&small)).unwrap();
    let (text, frame) = shot(&["SeaBIOS", "", "boot: "]);
    recorder.store(Duration::from_secs(9), text, Some(&frame)).unwrap();
    let console = Recording::open(folder.path()).unwrap().play().await.unwrap();
    assert_eq!(console.size(), (64, 48));
    console.wait_for("boot:", Duration::from_secs(20)).await.unwrap();
    assert_eq!(console.size(), (720, 400));
}
