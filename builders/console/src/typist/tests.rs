use std::collections::HashMap;

use super::*;
use crate::testing::{Guest, console, is_typable};

const LINE: &str =
    " ds=nocloud;s=http://10.0.2.2:8800/0123456789abcdef0123456789abcdef/ AUTO=\"Yes & No\" quiet --- ";

async fn typed(guest: Guest, text: &str) -> (Result<TypeReport, TypeError>, Guest) {
    let options = TypeOptions { echo_limit: Duration::from_millis(1500), ..TypeOptions::default() };
    typed_with(guest, text, &options).await
}

async fn typed_with(
    guest: Guest,
    text: &str,
    options: &TypeOptions,
) -> (Result<TypeReport, TypeError>, Guest) {
    assert!(is_typable(text));
    let (console, shared) = console(guest).await;
    let outcome = type_text(&console, text, options).await;
    // What was rolled is let go without waiting: the guest takes it a moment later.
    tokio::time::timeout(Duration::from_secs(20), async {
        while !crate::console::lock(&shared).down.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    let guest = crate::console::lock(&shared).clone();
    (outcome, guest)
}

#[tokio::test(start_paused = true)]
async fn a_line_longer_than_the_screen_is_verified_without_a_wasted_key() {
    for shows_cursor in [true, false] {
        let guest = Guest { shows_cursor, ..Guest::with_prompt("boot: linux") };
        let (outcome, guest) = typed(guest, LINE).await;
        let report = outcome.unwrap();
        assert!(report.verified);
        assert_eq!((report.keys, report.corrections), (LINE.len(), 0));
        assert_eq!(guest.keys, LINE);
        assert!(guest.down.is_empty());
    }
}

/// QEMU's keyboard holds 16 bytes: a key that is pressed behind more releases than that, on a guest that is busy, is lost.
#[tokio::test(start_paused = true)]
async fn the_key_after_a_text_is_not_behind_the_releases_of_all_its_keys() {
    let text = "The quick brown fox jumps over the lazy dog 0123456789 -=[];',./ Sphinx of black quartz";
    let (outcome, guest) = typed(Guest::with_prompt("boot: "), text).await;
    assert!(outcome.unwrap().verified);
    assert_eq!(guest.keys, text);
    assert!(guest.most_releases <= 4, "{} releases in a row", guest.most_releases);
}

#[tokio::test(start_paused = true)]
async fn the_screen_may_scroll_while_the_line_is_typed() {
    let mut guest = Guest::with_prompt("");
    guest.lines = (0..24).map(|number| format!("line {number}")).collect();
    guest.lines.push("boot: linux".to_owned());
    let (outcome, guest) = typed(guest, LINE).await;
    assert!(outcome.unwrap().verified);
    assert_eq!(guest.keys, LINE);
}

#[tokio::test(start_paused = true)]
async fn lost_wrong_and_doubled_keys_are_corrected() {
    type Fault = (usize, Option<char>);
    let cases: [(&str, &[Fault]); 6] = [
        ("a key is lost", &[(20, None)]),
        ("a key is wrong", &[(20, Some('#'))]),
        ("the first key is wrong", &[(1, Some('#'))]),
        ("a blank is lost", &[(69, None)]),
        ("the last key is lost", &[(LINE.len() - 1, None)]),
        ("two places", &[(10, None), (60, Some('x'))]),
    ];
    for (name, faults) in cases {
        let guest = Guest { faults: faults.iter().copied().collect(), ..Guest::with_prompt("boot: linux") };
        let (outcome, guest) = typed(guest, LINE).await;
        let report = outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(report.verified, "{name}");
        assert!(report.corrections >= 1, "{name}: {report:?}");
        let shown: String = guest.lines[2..].concat();
        assert_eq!(shown, format!("boot: linux{LINE}"), "{name}");
    }
}

/// On a busy machine a menu that stood still was not drawn to its end: the cursor stood in its last line.
#[tokio::test(start_paused = true)]
async fn typing_that_began_before_the_screen_was_drawn_begins_anew_and_harms_nothing() {
    for text in [LINE, "linux quiet"] {
        let late_line = Some("    linux /vmlinuz quiet".to_owned());
        let guest = Guest { late_line, ..Guest::with_prompt("Minimum Em") };
        let (outcome, guest) = typed(guest, text).await;
        let report = outcome.unwrap();
        assert_eq!((report.verified, report.corrections), (true, 0));
        assert!(
            report.elapsed < Duration::from_secs(5),
            "what stands elsewhere is not waited for: {report:?}"
        );
        assert_eq!(guest.lines[2], "Minimum Em", "what stood there still does");
        assert_eq!(guest.lines[3..].concat(), format!("    linux /vmlinuz quiet{text}"));
    }
}

/// The same, and what is typed first falls where the same character had stood: no change of the screen shows its place.
#[tokio::test(start_paused = true)]
async fn typing_over_what_was_drawn_earlier_is_found_by_the_cursor() {
    let drawn = "    linux /vmlinuz quiet";
    let guest = Guest {
        redrawn_line: Some(drawn.to_owned()),
        ..Guest::with_prompt(&format!("{}l and more of an earlier screen", " ".repeat(drawn.len())))
    };
    let (outcome, guest) = typed(guest, "linux quiet").await;
    let report = outcome.unwrap();
    assert!(report.verified);
    assert!(report.elapsed < Duration::from_secs(5), "{report:?}");
    assert_eq!(guest.lines[2], format!("{drawn}linux quiet"));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_corrected_is_quoted() {
    let faults: HashMap<usize, Option<char>> = (0..200).map(|number| (number, Some('w'))).collect();
    let guest = Guest { faults, ..Guest::with_prompt("boot: ") };
    let (outcome, guest) = typed(guest, "aqa").await;
    let error = outcome.unwrap_err();
    assert!(
        error.to_string().starts_with(
            "typed \"aqa\", but the screen shows \"w\" after 3 corrections; it shows\n| SeaBIOS"
        ),
        "{error}"
    );
    assert!(guest.down.is_empty(), "no key stays pressed");
}

#[tokio::test(start_paused = true)]
async fn a_keyboard_of_another_layout_is_named() {
    // What a German keyboard makes of these keys of an American one, however often they are typed.
    let german = |character| match character {
        'y' => Some('z'),
        '/' => Some('-'),
        '-' => Some('ß'),
        other => Some(other),
    };
    let mut guest = Guest::with_prompt("boot: ");
    guest.layout = Some(german);
    let (outcome, _) = typed(guest, "ey/dev").await;
    let error = outcome.unwrap_err().to_string();
    let words = "typed \"ey/dev\", but the screen shows \"ez\" after 3 corrections, as if the guest's keyboard had the \
                 layout `de` or `ch`; it shows";
    assert!(error.starts_with(words), "{error}");
}

#[tokio::test(start_paused = true)]
async fn caps_lock_that_is_on_in_the_guest_is_named_as_the_reason() {
    for caps in [true, false] {
        let faults = (0..200).map(|number| (number, Some('Q'))).collect();
        let guest = Guest { caps, faults, ..Guest::with_prompt("boot: ") };
        let (outcome, guest) = typed(guest, "quiet").await;
        let error = outcome.unwrap_err().to_string();
        let words = "the screen shows \"Q\" after 3 corrections, and caps lock is on in the guest; it shows";
        assert_eq!(error.contains(words), caps, "{error}");
        assert!(guest.down.is_empty(), "no key stays pressed");
    }
}

#[tokio::test(start_paused = true)]
async fn without_scancodes_a_layouts_keys_travel_as_the_keysyms_of_a_us_keyboard() {
    let german = |character: char| {
        let mut places = "yz/-;&_)".chars().zip("zy-ßö/?=".chars());
        places.find(|(us, _)| *us == character).map_or(Some(character), |(_, german)| Some(german))
    };
    let mut guest = Guest::with_prompt("boot: ");
    guest.layout = Some(german);
    let layout = Layout::by_name("de").unwrap();
    let (console, shared) = console(guest).await;
    assert!(!console.types_scancodes());
    let options = TypeOptions { layout, ..TypeOptions::default() };
    let report = type_text(&console, "size=yz-/ö", &options).await.unwrap();
    assert_eq!((report.verified, report.corrections), (true, 0));
    let guest = crate::console::lock(&shared);
    assert_eq!(guest.lines[2], "boot: size=yz-/ö", "what the guest made of them");
    assert_eq!(guest.keys, "siye)zy/&;", "what came on the wire");
}

#[tokio::test(start_paused = true)]
async fn without_an_echo_it_fails_or_goes_on_blind_as_told() {
    let guest = || Guest { echoes: false, ..Guest::with_prompt("Name: ") };
    let limit = Duration::from_millis(300);
    let options = |echo| TypeOptions { echo, echo_limit: limit, ..TypeOptions::default() };
    let (outcome, _) = typed_with(guest(), "secret", &options(Echo::Required)).await;
    let error = outcome.unwrap_err().to_string();
    assert!(error.starts_with("typed \"secret\", but nothing of it appeared within 0.3 s"), "{error}");
    for echo in [Echo::IfSeen, Echo::None] {
        let (outcome, guest) = typed_with(guest(), "secret", &options(echo)).await;
        let report = outcome.unwrap();
        assert!(!report.verified);
        assert_eq!(report.keys, 6);
        assert!("secret".starts_with(&guest.keys));
    }
}

#[tokio::test(start_paused = true)]
async fn at_a_prompt_for_a_password_it_types_blind_and_says_so() {
    let guest = Guest { echoes: false, ..Guest::with_prompt("forge's Password: ") };
    let (outcome, _) = typed(guest, "secret").await;
    let report = outcome.unwrap();
    assert_eq!((report.verified, report.prompt_hides, report.keys), (false, true, 6));
    assert!(report.elapsed >= Duration::from_millis(600), "slowly: {:?}", report.elapsed);
}

#[tokio::test(start_paused = true)]
async fn a_picture_without_text_is_typed_blind_and_said_so() {
    let (outcome, _) = typed(Guest { graphics: true, ..Guest::with_prompt("boot: ") }, "Ab c").await;
    assert!(!outcome.unwrap().verified);
}

#[tokio::test(start_paused = true)]
async fn a_slow_guest_is_not_overrun() {
    let guest = Guest { slowness: Duration::from_millis(15), ..Guest::with_prompt("boot: ") };
    let (outcome, guest) = typed(guest, "linux vga=normal -- AUTO").await;
    let report = outcome.unwrap();
    assert_eq!((report.verified, report.corrections), (true, 0));
    assert_eq!(guest.keys, "linux vga=normal -- AUTO");
}

#[tokio::test(start_paused = true)]
async fn a_key_does_not_stay_down_while_nothing_comes_of_it() {
    let (console, shared) = console(Guest { echoes: false, ..Guest::with_prompt("boot: ") }).await;
    let options = TypeOptions::default();
    let typing = type_text(&console, "linux", &options);
    let looking = async {
        sleep(Duration::from_millis(1_500)).await;
        crate::console::lock(&shared).clone()
    };
    let (outcome, guest) = tokio::join!(typing, looking);
    assert!(matches!(outcome, Err(TypeError::NoEcho { .. })), "{outcome:?}");
    assert_eq!((guest.keys.as_str(), guest.down.len()), ("l", 0), "pressed once, and up long before the end");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_leaves_no_key_pressed() {
    let guest = Guest { slowness: Duration::from_millis(5), ..Guest::with_prompt("boot: ") };
    let (console, shared) = console(guest).await;
    let options = TypeOptions::default();
    let typing = type_text(&console, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", &options);
    assert!(tokio::time::timeout(Duration::from_millis(60), typing).await.is_err());
    console.wait_still(Duration::from_millis(300), Duration::from_secs(20)).await.unwrap();
    let guest = crate::console::lock(&shared);
    assert!(guest.down.is_empty());
    assert!("ABCDEFGHIJKLMNOPQRSTUVWXYZ".starts_with(&guest.keys));
}

#[tokio::test(start_paused = true)]
async fn what_has_no_key_is_refused_before_anything_is_typed() {
    let (outcome, guest) = {
        let (console, shared) = console(Guest::with_prompt("boot: ")).await;
        let outcome = type_text(&console, "grüße", &TypeOptions::default()).await;
        (outcome, crate::console::lock(&shared).clone())
    };
    assert_eq!(outcome.unwrap_err().to_string(), "'ü' at character 2 can't be typed");
    assert!(guest.keys.is_empty());
}
