use proptest::prelude::*;

use super::*;

fn key(name: &str) -> KeyStroke {
    keymap::special(name).unwrap()
}

fn typed(text: &str) -> BootAction {
    BootAction::Type(text.to_owned())
}

#[test]
fn packers_language_is_understood() {
    let hold = |name| BootAction::Hold(key(name));
    let release = |name| BootAction::Release(key(name));
    let a = keymap::us('a').unwrap();
    let seconds = |seconds| BootAction::Wait(Duration::from_secs(seconds));
    let cases: Vec<(&str, Vec<BootAction>)> = vec![
        ("", vec![]),
        ("<esc><ENTER>", vec![BootAction::Press(key("esc")), BootAction::Press(key("enter"))]),
        ("<wait><wait7><wait1m20s>", vec![seconds(1), seconds(7), seconds(80)]),
        ("<wait500ms>", vec![BootAction::Wait(Duration::from_millis(500))]),
        ("<wait1.5s>", vec![BootAction::Wait(Duration::from_millis(1500))]),
        ("<leftCtrlOn>x<leftCtrlOff>", vec![hold("leftctrl"), typed("x"), release("leftctrl")]),
        ("<aOn><aOff>", vec![BootAction::Hold(a), BootAction::Release(a)]),
        ("<aOff>", vec![BootAction::Release(a)]),
        ("<pageUp><rightSuper>", vec![BootAction::Press(key("pgup")), BootAction::Press(key("rightsuper"))]),
        (
            "<tab> inst.ks=http://10.0.2.2:8800/ks.cfg<enter>",
            vec![
                BootAction::Press(key("tab")),
                typed(" inst.ks=http://10.0.2.2:8800/ks.cfg"),
                BootAction::Press(key("enter")),
            ],
        ),
    ];
    for (command, actions) in cases {
        assert_eq!(parse(command).unwrap(), actions, "{command}");
    }
}

#[test]
fn each_special_key_of_packer_is_pressed_held_and_let_go_in_any_case() {
    for (name, stroke) in keymap::SPECIAL_KEYS {
        let capital = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
        for name in [name.to_owned(), name.to_uppercase(), capital] {
            assert_eq!(parse(&format!("<{name}>")).unwrap(), [BootAction::Press(stroke)], "{name}");
            for (on, off) in [("On", "Off"), ("ON", "OFF"), ("on", "off")] {
                let held = parse(&format!("<{name}{on}><{name}{off}>")).unwrap();
                assert_eq!(held, [BootAction::Hold(stroke), BootAction::Release(stroke)], "{name}{on}");
            }
        }
    }
}

#[test]
fn the_new_words_wait_for_the_screen() {
    let wait_for = |text: &str, limit: Option<u64>| BootAction::WaitFor {
        text: text.to_owned(),
        limit: limit.map(Duration::from_secs),
    };
    let cases = [
        (r#"<waitFor "GNU GRUB">"#, vec![wait_for("GNU GRUB", None)]),
        (r#"<WAITFOR "boot:" 90s>x"#, vec![wait_for("boot:", Some(90)), typed("x")]),
        (r#"<waitFor "say \"<yes>\"" 2m>"#, vec![wait_for("say \"<yes>\"", Some(120))]),
        ("<waitStill 2s>", vec![BootAction::WaitStill(Duration::from_secs(2))]),
        ("<waitStill>", vec![BootAction::WaitStill(Duration::from_secs(1))]),
    ];
    for (command, actions) in cases {
        assert_eq!(parse(command).unwrap(), actions, "{command}");
    }
}

#[test]
fn what_does_not_look_like_a_tag_is_typed() {
    for text in ["a < b", "<", "x <= y > z", "cat <<EOF", "<>", "if [ 1 <2 ]; then echo >x; fi", "<a href>"] {
        assert_eq!(parse(text).unwrap(), [typed(text)]);
    }
    assert_eq!(parse("<lt>enter>").unwrap(), [typed("<enter>")]);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let cases = [
        (
            "ab<entr>",
            "<entr> is no key and no wait; did you mean <enter>? to type it, write <lt>entr> (at byte 2)",
        ),
        (
            "<leftCtlOn>",
            "<leftCtlOn> is no key and no wait; did you mean <leftctrlOn>? to type it, write <lt>leftCtlOn> (at byte 0)",
        ),
        ("<quux>", "<quux> is no key and no wait; to type it, write <lt>quux> (at byte 0)"),
        ("<wait0>", "<wait0> must wait longer than nothing (at byte 0)"),
        ("<waitFor \"x\" 0s>", "<waitFor \"x\" 0s> must wait longer than nothing (at byte 0)"),
        ("<wait5x>", "\"5x\" is no duration; write 5, 2s, 500ms or 1m20s (at byte 0)"),
        (
            "<wiat5>",
            "<wiat5> is no key and no wait; did you mean <wait>? to type it, write <lt>wiat5> (at byte 0)",
        ),
        (
            "<waitFor GRUB>",
            "waitFor needs a text in double quotes: <waitFor \"text\"> or <waitFor \"text\" 90s> (at byte 0)",
        ),
        (
            "<waitFor \"GRUB>",
            "waitFor needs a text in double quotes: <waitFor \"text\"> or <waitFor \"text\" 90s> (at byte 0)",
        ),
        ("x<leftAltOn>y", "<leftAltOn> has no <leftAltOff> (at byte 1)"),
        ("<aOn>", "<aOn> has no <aOff> (at byte 0)"),
        ("grüße", "no key of a US keyboard types 'ü' (at byte 2)"),
    ];
    for (command, message) in cases {
        let errors = parse(command).unwrap_err();
        assert_eq!(errors[0].to_string(), message, "{command}");
    }
    let all = parse("<entr> ü <leftShiftOn><wait0>").unwrap_err();
    assert_eq!(all.iter().map(|error| error.offset).collect::<Vec<_>>(), [0, 7, 10, 23]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_and_offsets_stay_inside(command in "(<|>|On|wait|waitFor \"|\"|[a-z0-9 é\\\\])*") {
        if let Err(errors) = parse(&command) {
            for error in errors {
                prop_assert!(error.offset < command.len());
            }
        }
    }

    #[test]
    fn text_without_angle_brackets_is_typed_as_it_is(text in "[ -;=-~]{1,60}") {
        prop_assert_eq!(parse(&text).unwrap(), [BootAction::Type(text)]);
    }
}

#[test]
fn tags_that_are_not_ended_are_found_and_what_is_ended_is_not() {
    for (command, pieces) in [
        ("<enter><wait5><leftCtrlOn>x<leftCtrlOff><waitFor \"a <b\" 5m><wait 5>", &[][..]),
        ("a<b <c", &[]),
        ("linux<enter", &["<enter"]),
        ("<leftCtrlOn x<wait", &["<leftCtrlOn", "<wait"]),
        ("<enter 5>", &["<enter"]),
        ("<tab/><esc<f10>", &["<tab", "<esc"]),
    ] {
        assert_eq!(unended(command), pieces, "{command}");
    }
}
