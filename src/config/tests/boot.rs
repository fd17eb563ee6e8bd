//! Boot steps: their words, needles, and everything that can be wrong with them.

use forge_console::frame::Frame;

use super::{least, load, sound};
use crate::config::load_profile;
use crate::config::profile::{BootStep, Wanted};
use crate::config::variables::Given;

#[test]
fn boot_steps_expect_repeat_and_look_at_a_part_of_the_screen() {
    let text = r#"
[boot]
steps = [
  { expect = [
    { text = "GRUB", steps = [{ keys = "<enter>" }], again = true },
    { regex = "lo+gin:$", lines = "20-25", columns = "1-40" },
    { text = "rescue", fail = "the disk is broken" },
  ], within = "1m" },
  { until = { regex = "^> " }, press = "<esc>", every = "2s" },
  { wait-for = "ready", still-for = "1s", lines = "3" },
  { type = "größe", layout = "de", enter = true, echo = "if-seen" },
]
"#;
    let profile = sound(&[("p/a.toml", &least(text))]);
    let [expect, until, wait, typing] = profile.boot.as_slice() else { panic!("{:?}", profile.boot) };
    let BootStep::Expect { outcomes, within } = expect else { panic!("{expect:?}") };
    assert_eq!((outcomes.len(), within.as_secs()), (3, 60));
    assert!(outcomes[0].again && outcomes[0].steps.len() == 1);
    assert_eq!((outcomes[1].sight.lines, outcomes[1].sight.columns), (Some((20, 25)), Some((1, 40))));
    assert_eq!(outcomes[2].fail.as_deref(), Some("the disk is broken"));
    assert!(matches!(until, BootStep::Until { every, .. } if every.as_secs() == 2), "{until:?}");
    assert!(matches!(wait, BootStep::WaitFor { still_for: Some(_), .. }), "{wait:?}");
    assert!(matches!(typing, BootStep::Type { enter: true, layout, .. } if layout == "de"), "{typing:?}");
}

#[test]
fn what_is_hardly_meant_in_boot_steps_is_told_before_anything_is_built() {
    let cases = [
        ("{ wait-for = \"a\\nb\" }", true, "looked at line by line"),
        ("{ wait-for = \"a\\tb\" }", true, "a control character"),
        (
            "{ wait-for = \"x\", within = \"2s\", still-for = \"5s\" }",
            true,
            "can't be still for 5 s within 2 s",
        ),
        ("{ wait-still = \"5m\" }", true, "can't be still for 300 s within 300 s"),
        ("{ until = \"x\", press = \"y\", every = \"9m\" }", false, "pressed only once"),
        ("{ wait = \"90s\" }", false, "this waits for 90 s, whatever the screen shows"),
        ("{ keys = \"<wait2m>\" }", false, "this waits for 120 s"),
        ("{ keys = \"<leftCtrlOff>\" }", false, "lets a key go that it did not hold"),
        ("{ keys = \"<leftCtrlOn>x\" }", true, "has no <leftCtrlOff>"),
        (
            "{ expect = [{ text = \"GRUB\" }, { text = \"GRUB rescue\" }] }",
            false,
            "\"GRUB rescue\" is never chosen",
        ),
        (
            "{ type = \" inst.ks=http://10.0.2.2:8000/ks.cfg\" }",
            false,
            "an address that forge does not serve",
        ),
        (
            "{ command = [\"auto url=http://h/p.cfg\", \"<enter>\"] }",
            false,
            "an address that forge does not serve",
        ),
        ("{ type = \"naïve\" }", true, "no key of a keyboard \"us\" types 'ï'"),
    ];
    for (step, fatal, message) in cases {
        let (profile, told) = load(&[("a.toml", &least(&format!("[boot]\nsteps = [{step}]\n")))]);
        assert!(told.contains(message), "{step}: {told}");
        assert_eq!(profile.is_none(), fatal, "{step}: {told}");
    }
    let sums = "[boot]\nboot-wait = \"50s\"\nsteps = [{ wait = \"50s\" }]\n[deadlines]\nbuild = \"90s\"\n";
    let (profile, told) = load(&[("a.toml", &least(sums))]);
    assert!(
        profile.is_none() && told.contains("wait for 100 s, and the whole build may take 90 s"),
        "{told}"
    );
    let fine = "[boot]\nsteps = [{ type = \" inst.ks={{ seed.url }}ks.cfg inst.repo=http://mirror/\" }, { keys = \"<leftAltOn>x<leftAltOff><wait5>\" }, { expect = [{ text = \"GRUB rescue\" }, { text = \"GRUB\" }, { text = \"GRUB\", lines = \"1\" }] }]\n";
    let (_, told) = load(&[("a.toml", &least(fine))]);
    assert!(!told.contains("forge does not serve") && !told.contains("hold"), "{told}");
}

#[test]
fn needles_are_pictures_beside_the_profile_and_what_is_wrong_with_them_is_told() {
    let mut picture = Frame::new(40, 20).expect("a picture");
    let blank = picture.png().expect("a picture");
    for y in (0..20).step_by(2) {
        picture.put_row(0, y, &[0x00ff_ffff; 40]);
    }
    let png = picture.png().expect("a picture");
    let load = |steps: &str| {
        let folder = super::folder(&[("a.toml", &least(&format!("[boot]\nsteps = [{steps}]\n")))]);
        std::fs::write(folder.path().join("next.png"), &png).expect("written");
        std::fs::write(folder.path().join("blank.png"), &blank).expect("written");
        std::fs::write(folder.path().join("large.png"), vec![0; 300 * 1024]).expect("written");
        std::fs::write(folder.path().join("text.png"), "no picture").expect("written");
        let (profile, findings) = load_profile(&folder.path().join("a.toml"), &Given::default());
        (profile, super::told(&findings, folder.path()))
    };
    let (profile, told) = load(
        r#"{ wait-for = { needle = "next.png", areas = ["0,0,10,10", "30, 10, 10, 10"], match = 95 } },
        { expect = [{ needle = "next.png" }, { text = "x" }] }, { until = { needle = "next.png" }, press = "x" }"#,
    );
    let profile = profile.unwrap_or_else(|| panic!("{told}"));
    let BootStep::WaitFor { sight, .. } = &profile.boot[0] else { panic!("{:?}", profile.boot) };
    let Wanted::Needle(needle) = &sight.wanted else { panic!("{sight:?}") };
    assert_eq!((needle.areas.as_slice(), needle.percent), (&[[0, 0, 10, 10], [30, 10, 10, 10]][..], 95));
    assert_eq!(needle.needle().map(|needle| needle.size).ok(), Some((40, 20)));

    for (step, message) in [
        ("{ wait-for = { needle = \"none.png\" } }", "the needle none.png can't be read"),
        (
            "{ wait-for = { needle = \"text.png\" } }",
            "the needle can't be read: the picture is no readable PNG",
        ),
        ("{ wait-for = { needle = \"large.png\" } }", "large.png has 307200 bytes"),
        ("{ wait-for = { needle = \"blank.png\" } }", "has next to nothing in it"),
        (
            "{ wait-for = { needle = \"next.png\", areas = [\"0,0,41,1\"] } }",
            "does not lie inside the needle",
        ),
        ("{ wait-for = { needle = \"next.png\", areas = [\"1x1\"] } }", "`1x1` is no area"),
        ("{ wait-for = { needle = \"next.png\", match = 20 } }", "`match` is a whole number of percent"),
        ("{ wait-for = { needle = \"next.png\", regex = \"x\" } }", "and only one"),
        ("{ wait-for = { needle = \"next.png\" }, lines = \"3\" }", "parts of a text, and this is a needle"),
        ("{ wait-for = { serial = \"(\" } }", "`(` is no regular expression"),
        ("{ wait-for = { serial = \"x\" }, lines = \"3\" }", "parts of a text, and this is the serial port"),
        ("{ until = { serial = \"x\" }, press = \"<esc>\" }", "this needs a `regex` or a `needle`"),
        (
            "{ expect = [{ needle = \"next.png\", columns = \"3\" }] }",
            "parts of a text, and this is a needle",
        ),
    ] {
        let (_, told) = load(step);
        assert!(told.contains(message), "{step}: {told}");
    }
}

#[test]
fn what_is_wrong_with_boot_steps_is_told_with_advice() {
    let text = r#"
[boot]
steps = [
  { expect = [{ text = "a", regex = "b" }, { text = "c", again = true }] },
  { until = "x" },
  { wait-for = { regex = "(" } },
  { wait-for = "x", lines = "9-3" },
  { type = "größe" },
]
"#;
    let (_, told) = load(&[("p/a.toml", &least(text))]);
    for message in [
        "an outcome needs a `text`, a `regex` or a `needle`, and only one",
        "`again` without `steps` would find the same screen at once",
        "`until` needs the keys to be pressed until then",
        "`(` is no regular expression",
        "`9-3` names no lines",
        "no key of a keyboard \"us\" types 'ö'",
    ] {
        assert!(told.contains(message), "{message}: {told}");
    }
}
