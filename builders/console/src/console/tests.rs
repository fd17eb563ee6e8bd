use std::time::Duration;

use super::*;
use crate::frame::Rect;
use crate::keymap::{self, ENTER, SHIFT, us};
use crate::testing::{Guest, console};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_text_comes_and_an_error_quotes_the_screen() {
    let (console, guest) = console(Guest::with_prompt("boot: ")).await;
    console.wait_for("boot:", SOON).await.unwrap();
    let error = console.wait_for("login:", Duration::from_millis(30)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the screen did not show \"login:\" within 0.0 s; it shows\n| SeaBIOS (version 1.16.3)\n| boot:"
    );
    let waiting = console.wait_for("login:", SOON);
    let later = async { lock(&guest).lines.push("debian login: ".to_owned()) };
    let (outcome, ()) = tokio::join!(waiting, later);
    outcome.unwrap();
    assert_eq!(console.size(), (720, 400));
}

#[tokio::test(start_paused = true)]
async fn stillness_is_counted_from_the_last_change_of_content() {
    let (console, guest) = console(Guest::with_prompt("boot: ")).await;
    console.wait_still(Duration::from_millis(100), SOON).await.unwrap();
    assert!(console.unchanged_for() >= Duration::from_millis(100));
    lock(&guest).shows_cursor = false;
    let changes = console.changes();
    console.wait_still(Duration::from_millis(300), SOON).await.unwrap();
    assert_eq!(console.changes(), changes, "a cursor that disappears is no change");
    let change = console.wait_change(SOON);
    let later = async { lock(&guest).lines.push("x".to_owned()) };
    let (outcome, ()) = tokio::join!(change, later);
    outcome.unwrap();
    let error = console.wait_still(SOON, Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().starts_with("the screen was not still for 20.0 s within 0.0 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_display_that_goes_away_is_named_and_its_last_picture_stays() {
    let (console, guest) = console(Guest::with_prompt("boot: ")).await;
    lock(&guest).lines.clear();
    let error = console.wait_for("login:", SOON).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the screen was lost while waiting; it showed\n| SeaBIOS (version 1.16.3)\n| boot:"
    );
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the display closed the connection");
    assert!(console.png().unwrap().starts_with(b"\x89PNG"));
    assert!(matches!(console.press(&[ENTER]).await, Err(KeyError::Console(ConsoleError::Closed))));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_display_is_refused_when_opening() {
    use tokio::io::AsyncWriteExt;
    let (ours, mut theirs) = tokio::io::duplex(64);
    theirs.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
    let error = Console::open(ours, None).await.unwrap_err();
    assert!(matches!(error, ConsoleError::Rfb(_)), "{error:?}");
    let (ours, theirs) = tokio::io::duplex(64);
    drop(theirs);
    assert!(matches!(Console::open(ours, None).await, Err(ConsoleError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn held_keys_are_released_and_shift_agrees_with_the_keysym() {
    let (console, guest) = console(Guest::with_prompt("boot: ")).await;
    console.hold(SHIFT, true).await.unwrap();
    console.press(&[us('a').unwrap()]).await.unwrap();
    console.wait_for("boot: A", SOON).await.unwrap();
    while lock(&guest).down != [SHIFT.keysym] {
        tokio::task::yield_now().await;
    }
    let ctrl = keymap::special("leftctrl").unwrap();
    console.hold(ctrl, true).await.unwrap();
    console.release_all();
    console.press(&[us('b').unwrap()]).await.unwrap();
    console.wait_for("boot: Ab", SOON).await.unwrap();
    while !lock(&guest).down.is_empty() {
        tokio::task::yield_now().await;
    }
    console.hold(ctrl, true).await.unwrap();
    drop(console);
    while !lock(&guest).down.is_empty() {
        tokio::task::yield_now().await;
    }
}

/// A desktop: flat areas with edges, and a spinner that turns in the middle.
fn desktop(turn: u32) -> Frame {
    let mut frame = Frame::new(1280, 800).unwrap();
    for y in 0..800_u32 {
        let row: Vec<u32> = (0..1280_u32)
            .map(|x| {
                let spinner = (600..632).contains(&x) && (400..432).contains(&y);
                let window = (203..1001).contains(&x) && (121..703).contains(&y);
                match (window, y < 151, x / 41 % 2 == 0 && y / 23 % 3 == 0) {
                    _ if spinner => 0x00ff_0000 + turn * 7 + x / 8,
                    (true, true, _) => 0x0020_4080,
                    (true, false, true) => 0x00c8_c8c8,
                    (true, false, false) => 0x00f0_f0f0,
                    (false, ..) => 0x0000_5a9e,
                }
            })
            .collect();
        frame.put_row(0, y, &row);
    }
    frame
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_never_rests_is_not_read_at_every_frame() {
    let mut look = Look::new();
    look.show(&desktop(0), Some(Rect { x: 0, y: 0, width: 1280, height: 800 }));
    let first = Arc::clone(&look.screen);
    assert!(first.text().is_none(), "{first}");
    let spinner = Rect { x: 600, y: 400, width: 32, height: 32 };
    for turn in 1..=50 {
        look.show(&desktop(turn), Some(spinner));
        assert!(Arc::ptr_eq(&look.screen, &first), "frame {turn} was read");
        assert_eq!(look.changes, u64::from(turn) + 1, "it is a change all the same");
    }
    look.show(&desktop(50), Some(spinner));
    assert_eq!(look.changes, 51, "what is drawn again as it was is none");
    // A picture of another size is another screen: it is read at once.
    look.show(&Frame::new(1024, 768).unwrap(), Some(Rect { x: 0, y: 0, width: 1024, height: 768 }));
    assert!(look.screen.to_string().contains("1024x768"), "{}", look.screen);
    look.show(&desktop(51), Some(Rect { x: 0, y: 0, width: 1280, height: 800 }));
    let second = Arc::clone(&look.screen);
    tokio::time::advance(Duration::from_secs(600)).await;
    look.show(&desktop(52), Some(spinner));
    assert!(!Arc::ptr_eq(&look.screen, &second), "its time has come");
}

#[tokio::test(start_paused = true)]
async fn text_that_follows_a_picture_is_read_although_nothing_moves_after_it() {
    let (console, guest) = console(Guest { graphics: true, ..Guest::with_prompt("boot: ") }).await;
    assert!(console.screen().text().is_none(), "{}", console.screen());
    let changes = console.changes();
    // Its update may come before the picture is read again.
    lock(&guest).graphics = false;
    console.wait_for("boot:", SOON).await.unwrap();
    assert!(console.changes() > changes);
    let (screen, again) = (console.screen(), console.snapshot().0);
    assert!(screen.same_content(&again), "{screen}\n{again}");
}

/// A machine eight times as slow shows what it draws in steps that far apart.
#[tokio::test(start_paused = true)]
async fn what_is_drawn_to_its_end_is_judged_by_the_displays_own_pace() {
    for (refresh, least, most) in [(5, 300, 1_000), (240, 4_800, 7_000)] {
        let refresh = Duration::from_millis(refresh);
        let (console, _guest) = console(Guest { refresh, ..Guest::with_prompt("boot: ") }).await;
        let began = Instant::now();
        assert!(console.wait_drawn(SOON).await.unwrap());
        let took = began.elapsed().as_millis();
        assert!((least..most).contains(&took), "{took} ms at {refresh:?}");
    }
    let (console, guest) = console(Guest::with_prompt("boot: ")).await;
    let drawn = console.wait_drawn(SOON);
    let drawing = async {
        for turn in 0..200_u32 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            lock(&guest).lines[0] = turn.to_string();
        }
    };
    let (drawn, ()) = tokio::join!(drawn, drawing);
    assert!(!drawn.unwrap(), "it never rests");
}
