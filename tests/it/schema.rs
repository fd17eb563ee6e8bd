//! `forge schema`, `forge profiles --export` and `forge validate`, as people use them: nobody is asked for anything.

use std::process::Command;

fn forge(arguments: &[&str], folder: &std::path::Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .output()
        .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn schemas_are_printed_for_editors() {
    let folder = tempfile::tempdir().expect("a folder");
    for (which, key) in [("profile", "provision"), ("site", "targets"), ("proof", "artefact")] {
        let (code, out, err) = forge(&["schema", which], folder.path());
        assert_eq!(code, Some(0), "{err}");
        let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert!(schema["properties"][key]["description"].is_string(), "{which}: {out}");
        assert_eq!(schema["additionalProperties"], false);
    }
}

#[test]
fn exported_profiles_are_sound_where_they_are_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, out, err) = forge(&["profiles", "rocky-9", "--export", "mine"], folder.path());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.lines().any(|line| line == "mine/rocky-9.toml") && out.contains("mine/base-"), "{out}");
    let (code, out, err) = forge(&["validate", "mine/rocky-9.toml"], folder.path());
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("rocky-9: sound"), "{err}");
    let own = folder.path().join("mine/rocky-9.toml");
    std::fs::write(&own, "# changed\n").expect("writable");
    let (code, out, err) = forge(&["profiles", "--export", "mine"], folder.path());
    assert_eq!(code, Some(3), "{out}");
    assert!(
        err.contains("mine/rocky-9.toml was not written") && out.contains("mine/debian-12.toml"),
        "{err}"
    );
    assert_eq!(std::fs::read_to_string(own).expect("readable"), "# changed\n");
}

#[test]
fn a_folder_of_profiles_and_a_pattern_are_validated_with_a_table_and_an_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(forge(&["profiles", "--export", "mine"], folder.path()).0, Some(0));
    for named in ["mine", "mine/*.toml"] {
        let (code, out, err) = forge(&["validate", named], folder.path());
        assert_eq!(code, Some(0), "{named}: {err}");
        let row =
            |name: &str| out.lines().find(|line| line.starts_with(&format!("{name} "))).map(str::to_owned);
        let rocky = row("rocky-9").unwrap_or_else(|| panic!("{out}"));
        assert!(rocky.contains("mine/rocky-9.toml") && rocky.ends_with("sound"), "{rocky}");
        assert!(!out.contains("base-"), "bases are no profiles: {out}");
        let count = out.lines().count() - 1;
        assert!(count > 30 && err.contains(&format!("{count} of {count} profiles are sound")), "{err}");
    }
    std::fs::write(folder.path().join("mine/web.toml"), "schema = 1\nname = \"web\"\n[vm]\nmemmory = 1\n")
        .expect("written");
    let (code, out, err) = forge(&["validate", "mine", "--only", "web,rocky-*"], folder.path());
    assert_eq!(code, Some(3), "{out}");
    assert!(err.contains("did you mean `memory`?"), "{err}");
    let web = out.lines().find(|line| line.starts_with("web ")).unwrap_or_else(|| panic!("{out}"));
    assert!(web.ends_with("wrong") && out.contains("rocky-10 ") && !out.contains("debian-12 "), "{out}");
    let (code, _, err) = forge(&["validate", "nothing/*.toml"], folder.path());
    assert!(code == Some(3) && err.contains("there is no profile in nothing/*.toml"), "{err}");
}

#[test]
fn every_file_of_the_folder_of_profiles_is_sound_by_one_command() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("os-profiles");
    let names =
        std::fs::read_dir(&folder).expect("it is there").map(|each| each.expect("readable").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".toml"));
    names.sort();
    let arguments: Vec<&str> = std::iter::once("validate").chain(names.iter().map(String::as_str)).collect();
    let (code, out, err) = forge(&arguments, &folder);
    assert_eq!(code, Some(0), "{err}");
    for name in &names {
        let stem = name.trim_end_matches(".toml");
        let row = out.lines().find(|line| line.starts_with(&format!("{stem} ")));
        let sound = row.is_some_and(|row| row.ends_with("sound"));
        assert!(
            sound && (!stem.starts_with("base-") || err.contains(&format!("{name}:"))),
            "{stem}: {out}{err}"
        );
    }
    assert!(!err.contains("error"), "{err}");
    assert!(!folder.join("output").exists(), "nothing is written");
}
