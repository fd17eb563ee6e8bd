use super::*;
use crate::screen::Screen;
use crate::screen::tests::draw;

fn screen(lines: &[&str]) -> ScreenText {
    match Screen::read(&draw(lines, None)) {
        Screen::Text(text) => text,
        Screen::NoText(none) => panic!("{none}"),
    }
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

#[test]
fn text_is_followed_over_the_edge_of_the_screen() {
    let long: String = ('!'..='~').cycle().take(200).collect();
    let now = screen(&[&format!("boot: {}", &long[..74]), &long[74..154], &long[154..]]);
    assert_eq!(read(&now, (0, 6), &chars(&long)), Found { length: 200, end: (2, 46) });
    let mut wrong = chars(&long);
    wrong[160] = ' ';
    assert_eq!(read(&now, (0, 6), &wrong).length, 160);
}

#[test]
fn text_is_followed_over_a_line_that_syslinux_breaks_early() {
    let now = screen(&[
        "boot: linux auto url=http://10.0.2.2:8800/0123456789abcdef0123456789abcdef/ DEBC",
        "ONF_DE",
        "BUG=5 x",
    ]);
    let typed = "linux auto url=http://10.0.2.2:8800/0123456789abcdef0123456789abcdef/ DEBCONF_DEBUG=5 x";
    assert_eq!(read(&now, (0, 6), &chars(typed)).length, typed.len());
}

#[test]
fn text_is_followed_in_a_terminal_in_the_middle_of_the_screen() {
    let indent = " ".repeat(15);
    let now = screen(&[
        &format!("{indent}grub> linux /boot/vmlinuz answers=http://10.0.2.2:42217/41"),
        &format!("{indent}d9 quiet"),
    ]);
    let typed = "linux /boot/vmlinuz answers=http://10.0.2.2:42217/41d9 quiet";
    let found = read(&now, (0, 21), &chars(typed));
    assert_eq!(found, Found { length: typed.len(), end: (1, 23) });
    assert_eq!(seen(&now, (0, 21), typed.len()), typed);
    assert!(is_behind(&now, (0, 73), (1, 15)) && !is_behind(&now, (0, 25), (1, 15)));
}

#[test]
fn the_filling_of_a_dialogues_field_gives_way_to_what_is_typed() {
    let row = |typed: &str| format!("  │ {typed:_<40} │");
    let (empty, typed) = (screen(&[&row("")]), "web-server-01.build.forge.lab.org");
    let now = screen(&[&row(typed)]);
    assert_eq!(tail(&empty, (0, 4)), ['_']);
    // The cursor hides the first one while it is shown.
    let hidden: Vec<String> = empty.rows.iter().map(|row| row.replacen('_', " ", 1)).collect();
    let hidden = screen(&hidden.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(tail(&hidden, (0, 4)), ['_']);
    let mut whole = chars(typed);
    whole.extend(tail(&empty, (0, 4)));
    assert_eq!(read(&now, (0, 4), &whole).length, typed.len() + 1, "nothing else was typed");
    let doubled = screen(&[&row(&format!("{typed}g"))]);
    assert_eq!(read(&doubled, (0, 4), &whole).length, typed.len());
    assert_eq!(tail(&screen(&["name: __init__.py"]), (0, 6)), chars("__init__.py"));
}
