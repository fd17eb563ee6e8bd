use serde_json::json;

use super::*;
use crate::set::SeedFile;

/// A system of each kind.
pub(super) const SYSTEMS: [(Kind, &str, &str); 8] = [
    (Kind::Autoinstall, "ubuntu", "24.04"),
    (Kind::Autoinstall, "ubuntu", "22.04"),
    (Kind::Kickstart, "rocky", "9"),
    (Kind::Kickstart, "rhel", "10"),
    (Kind::Preseed, "debian", "12"),
    (Kind::Autounattend, "windows", "2022"),
    (Kind::Autoyast, "opensuse-leap", "15.6"),
    (Kind::Agama, "opensuse-leap", "16.0"),
];

pub(super) fn answers(kind: Kind, distribution: &str, version: &str, mut vars: Value) -> Answers {
    let table = vars.as_object_mut().expect("an object");
    if kind == Kind::Autounattend {
        table.entry("image-name").or_insert(json!("Windows Server 2022 SERVERSTANDARDCORE"));
        table.entry("locale").or_insert(json!("en-US"));
    }
    if kind == Kind::Preseed {
        table.entry("mirror").or_insert(json!("http://mirror.example.org/debian"));
    }
    let known: Vec<&str> = Settings::names(kind).collect();
    table.retain(|name, _| known.contains(&name.as_str()));
    Answers {
        kind,
        settings: Settings::read(kind, table).expect("sound settings"),
        distribution: distribution.into(),
        version: version.into(),
        user_data: None,
        variables: Map::new(),
        templates: BTreeMap::new(),
    }
}

fn build() -> Build {
    Build::sample("forge", true, Some("build"))
}

#[test]
fn the_built_in_templates_pass_their_own_lint() {
    for kind in Kind::ALL {
        for (name, text) in kind.templates() {
            let findings = lint_template(name, text);
            assert_eq!(findings, [], "{kind}/{name}");
        }
    }
}

/// Values that would break out of each language, where settings let them in.
pub(super) fn awkward() -> Value {
    json!({
        "late-commands": ["echo 'a' \"b\" $(c) `d` \\ ]]> --> <e> & %end # {{ f }}", "true"],
        "kernel-arguments": "console=ttyS0,115200 a='b c' <d>&e",
        "organization": "A & B ]]> <c> \"d\" 'e'",
        "password": "p'a\"s$s & <w>ord\\",
        "address": "192.0.2.10/24", "gateway": "192.0.2.1",
        "address6": "2001:db8::10/64", "gateway6": "2001:db8::1",
        "nameservers": ["192.0.2.53", "2001:db8::53"],
        "mirror": "http://mirror.example.org:8080/some/where", "proxy": "http://proxy.example.org:3128",
        "ntp": ["ntp.example.org"], "packages": ["vim", "tmux"], "base-packages": ["qemu-guest-agent"],
        "repositories": ["extra=http://mirror.example.org/extra"], "layout": "lvm", "swap": true,
        "disk": "sda", "fips": true, "selinux": "permissive", "interface": "ens18",
    })
}

#[test]
fn every_kind_renders_with_defaults_and_with_everything_and_passes_the_lint() {
    for (kind, distribution, version) in SYSTEMS {
        for vars in [json!({}), awkward()] {
            for firmware in [false, true] {
                let mut answers = answers(kind, distribution, version, vars.clone());
                answers.settings.set_firmware(firmware);
                let files = answers.render(&build()).unwrap_or_else(|errors| panic!("{kind}: {errors:?}"));
                assert!(files.get(kind.main_file()).is_some(), "{kind}");
                let findings = answers.lint(&build());
                let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
                assert_eq!(shown, Vec::<String>::new(), "{kind} {version}");
                assert_eq!(answers.render(&build()), Ok(files), "the same values give the same bytes");
            }
        }
    }
}

impl PartialEq for RenderError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[test]
fn a_value_comes_back_out_of_each_language_as_it_went_in() {
    let vars = awkward();
    let command = vars["late-commands"][0].as_str().expect("text").to_owned();
    let text = |kind, name: &str| {
        let (_, distribution, version) = SYSTEMS.iter().find(|(each, ..)| *each == kind).expect("there");
        let files = answers(kind, distribution, version, vars.clone()).render(&build()).expect("renders");
        files.get(name).and_then(SeedFile::text).expect("text").to_owned()
    };
    let autoinstall: Value = serde_yaml::from_str(&text(Kind::Autoinstall, "user-data")).expect("YAML");
    let install = &autoinstall["autoinstall"];
    assert_eq!(install["late-commands"][0][5], command);
    // Each key is where Subiquity looks for it.
    for pointer in
        ["/proxy", "/apt/fallback", "/storage/layout/match/path", "/ssh/install-server", "/shutdown"]
    {
        assert!(install.pointer(pointer).is_some(), "{pointer}");
    }
    assert_eq!(
        autoinstall["autoinstall"]["network"]["ethernets"]["ens18"]["addresses"][1],
        "2001:db8::10/64"
    );

    let kickstart = text(Kind::Kickstart, "ks.cfg");
    let quoted = format!("sh -c '{}'", command.replace('\'', r"'\''"));
    assert!(kickstart.lines().any(|line| line == quoted), "{kickstart}");

    let preseed = text(Kind::Preseed, "preseed.cfg");
    let late = preseed.lines().find(|line| line.contains("late_command")).expect("there");
    assert!(late.ends_with("in-target sh -c 'true'") && late.contains("A".to_lowercase().as_str()), "{late}");

    let xml = text(Kind::Autounattend, "Autounattend.xml");
    assert!(
        xml.contains("<Organization>A &amp; B ]]&gt; &lt;c&gt; &quot;d&quot; &apos;e&apos;</Organization>")
    );
    let script = text(Kind::Autounattend, "forge.ps1");
    assert!(script.contains(&format!("cmd.exe /c '{}'", command.replace('\'', "''"))), "{script}");
}

#[test]
fn no_password_of_a_linux_seed_is_readable() {
    for (kind, distribution, version) in SYSTEMS.into_iter().filter(|(kind, ..)| *kind != Kind::Autounattend)
    {
        let vars = json!({ "password": "hush-hush" });
        let files = answers(kind, distribution, version, vars).render(&build()).expect("renders");
        let all: String = files.texts().map(|(_, text)| text).collect();
        assert!(!all.contains("hush-hush"), "{kind}");
        assert!(all.contains("$6$"), "{kind}: its hash is there");
    }
    let build = format!("{:?}", build());
    assert!(!build.contains("Made-for-each-build"), "{build}");
}

#[test]
fn a_custom_layout_is_in_the_installers_own_language_and_can_be_nothing_else() {
    let lines = |kind, distribution, version, partitions: &str| {
        let vars = json!({ "layout": "custom", "partitions": partitions });
        answers(kind, distribution, version, vars).render(&build()).map_err(|errors| {
            errors.iter().flat_map(RenderError::findings).map(|f| f.message).collect::<Vec<_>>().join("\n")
        })
    };
    let ks = lines(Kind::Kickstart, "rocky", "9", "reqpart\npart / --grow --fstype=xfs").expect("renders");
    assert!(ks.get("ks.cfg").and_then(SeedFile::text).is_some_and(|text| text.contains("\npart / --grow")));
    let error = lines(Kind::Kickstart, "rocky", "9", "part /\n%post\nevil").expect_err("refused");
    assert!(error.contains("`%post` is no line of kickstart"), "{error}");
    let recipe =
        lines(Kind::Preseed, "debian", "12", "root :: \\\n 500 10000 -1 ext4 \\\n method{ format } .")
            .expect("ok");
    let text = recipe.get("preseed.cfg").and_then(SeedFile::text).expect("text").to_owned();
    assert!(text.contains("expert_recipe string root :: 500 10000 -1 ext4 method{ format } ."), "{text}");
    let error =
        lines(Kind::Autoyast, "opensuse-leap", "15.6", "<partitioning/><scripts/>").expect_err("refused");
    assert!(error.contains("not one whole XML element"), "{error}");
    let error = lines(Kind::Autoinstall, "ubuntu", "24.04", "not: a list").expect_err("refused");
    assert!(error.contains("must be a YAML list"), "{error}");
}

#[test]
fn a_finding_names_the_line_of_the_template() {
    let mut answers =
        answers(Kind::Kickstart, "rocky", "9", json!({ "ntp": ["a.example.org", "b.example.org"] }));
    let text = "text\n{# two\nlines #}\n{% for server in ntp -%}\ntimesource --ntp-servr={{ server | ks }}\n{% endfor -%}\n\
                {% if fips -%}\nskipped\n{% endif -%}\nlang {{ locale | ks }}\nkeybord us\ntimezone UTC\nrootpw --lock\ncdrom\nautopart\nauth --x\n";
    let file = TemplateFile { shown: "my.ks.tera".into(), text: text.into(), template: true };
    answers.templates.insert("ks.cfg".into(), file);
    let shown: Vec<String> = answers.lint(&build()).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(shown.join("\n"), @r##"
        my.ks.tera:5:1: `timesource` has no option `--ntp-servr`
        my.ks.tera:11:1: kickstart has no command `keybord`
        my.ks.tera:16:1: `auth` has no option `--x`
        my.ks.tera:16:1: none of keyboard is there: Anaconda would ask the keyboard
        "##);
    answers.version = "8".into();
    assert!(answers.lint(&build())[0].message.contains("unknown release"));
}

#[test]
fn a_template_of_ones_own_is_rendered_strictly_and_sees_the_profiles_variables() {
    let mut answers = answers(Kind::Preseed, "debian", "12", json!({}));
    answers.variables.insert("port".into(), json!(8080));
    let mut with = |text: &str| {
        let file = TemplateFile { shown: "mine".into(), text: text.into(), template: true };
        answers.templates.insert("extra.txt".into(), file);
        answers
            .render(&build())
            .map(|files| files.get("extra.txt").and_then(SeedFile::text).unwrap_or_default().to_owned())
    };
    assert_eq!(with("{{ var.port | sh }}"), Ok("'8080'".into()));
    let errors = with("{% if var.prt %}x{% endif %}").expect_err("undefined");
    assert_eq!(errors[0].to_string(), "mine:1:7: `var.prt` is not defined");
}

#[test]
fn the_script_of_windows_says_that_it_is_utf_8_only_when_that_matters() {
    let script = |command: &str| {
        let vars = json!({ "late-commands": [command] });
        let answers = answers(Kind::Autounattend, "windows", "2022", vars);
        assert_eq!(answers.lint(&build()), [], "{command}");
        let files = answers.render(&build()).expect("renders");
        let bytes = files.get("forge.ps1").expect("there").bytes().to_vec();
        assert!(!files.texts().any(|(name, text)| name != "forge.ps1" && text.contains('\u{feff}')));
        bytes
    };
    let marked = script("echo Grüße aus Köln");
    assert!(marked.starts_with(b"\xef\xbb\xbf# Run once"), "{:?}", marked.get(..16));
    assert!(String::from_utf8_lossy(&marked).contains("cmd.exe /c 'echo Grüße aus Köln'"));
    assert!(script("echo hello").starts_with(b"# Run once"));
}

#[test]
fn windows_answers_over_winrm_as_the_profile_says_and_notes_what_was_there_before() {
    let script = |tls, basic, port| {
        let mut build = build();
        build.winrm = Some(WinRm { tls, basic, port });
        let files =
            answers(Kind::Autounattend, "windows", "2022", json!({})).render(&build).expect("renders");
        files.get("forge.ps1").and_then(|file| file.text()).expect("there").to_owned()
    };
    let plain = script(false, false, 5985);
    assert!(plain.contains("Enable-PSRemoting") && !plain.contains("AllowUnencrypted"), "{plain}");
    assert!(!plain.contains("Transport=HTTP'"), "Windows' own listener has that port");
    // What sealing needs to know is written down before anything is changed.
    assert!(plain.find("-Name HttpListener") < plain.find("Enable-PSRemoting"));
    let other = script(false, true, 15985);
    assert!(other.contains("\\Port\" -Value '15985'") && other.contains("AllowUnencrypted"), "{other}");
    let tls = script(true, true, 5986);
    assert!(
        tls.contains("-Transport HTTPS -Address * -Port '5986'") && tls.contains("-Name Certificate"),
        "{tls}"
    );
    assert!(!tls.contains("AllowUnencrypted"), "{tls}");
    // Nothing is opened that nobody asked for.
    let files = answers(Kind::Autounattend, "windows", "2022", json!({})).render(&build()).expect("renders");
    assert!(!files.texts().any(|(_, text)| text.contains("PSRemoting")));
}

#[test]
fn the_hash_that_the_files_have_for_the_password_is_known() {
    for kind in [Kind::Autoinstall, Kind::Kickstart, Kind::Preseed, Kind::Autoyast, Kind::Agama] {
        let answers = answers(kind, "any", "1", json!({ "password": "own-2B-or-not" }));
        let hash = answers.password_hash(&build()).expect("there is a password");
        let files = answers.render(&build()).expect("renders");
        let texts: Vec<&str> = files.texts().map(|(_, text)| text).collect();
        let hashes = texts.iter().map(|text| text.matches("$6$").count()).sum::<usize>();
        let known = texts.iter().map(|text| text.matches(&hash).count()).sum::<usize>();
        assert!(hashes == known && known > 0, "{kind}: {known} of {hashes}");
    }
}

#[test]
fn the_user_of_a_windows_has_one_password_and_it_is_the_settings_own_if_they_have_one() {
    for (vars, word) in [(json!({}), "random-1A"), (json!({ "password": "own-2B" }), "own-2B")] {
        let answers = answers(Kind::Autounattend, "windows", "2022", vars);
        let mut build = build();
        build.random_password = "random-1A".into();
        let files = answers.render(&build).expect("renders");
        let xml = files.get("Autounattend.xml").and_then(|file| file.text()).expect("there");
        assert_eq!(xml.matches(&format!("<Value>{word}</Value>")).count(), 2, "{xml}");
        assert_eq!(answers.account_password(&build.random_password), word);
    }
}
