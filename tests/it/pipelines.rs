//! The files of `os-profiles/pipelines`: the Makefile's goals on the lab, and every call of forge in all of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::lab_site::{LabSite, SECRET_VARIABLE};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("os-profiles/pipelines")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("the file")
}

/// Runs goals of the Makefile in the folder of a site.
async fn make(site: &LabSite, arguments: &[&str]) -> (Option<i32>, String) {
    let output = tokio::process::Command::new("make")
        .args(["--no-print-directory", "-f"])
        .arg(folder().join("Makefile"))
        .arg(format!("FORGE={}", env!("CARGO_BIN_EXE_forge")))
        .args(arguments)
        .current_dir(site.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", site.path())
        .env("FORGE_STATE_DIR", site.path().join("state"))
        .env(SECRET_VARIABLE, &site.secret)
        .output()
        .await
        .expect("make runs");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code(), text.concat())
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn make_is_here() -> bool {
    let here = Command::new("make").arg("--version").output().is_ok_and(|output| output.status.success());
    if !here {
        eprintln!("skipped: there is no make here; `cargo lab test` installs it");
    }
    here
}

#[tokio::test(flavor = "multi_thread")]
async fn the_goals_of_the_makefile_do_on_the_lab_what_they_say() -> anyhow::Result<()> {
    if !make_is_here() {
        return Ok(());
    }
    let site = LabSite::in_name_only().await?.with_old_template("debian-12").await?;
    for (goals, code, words) in [
        (vec!["help"], 0, "builds a profile"),
        (vec!["validate", "PROFILES=tiny.toml debian-12"], 0, ""),
        (vec!["doctor"], 0, "pass  login"),
        (vec!["plan-tiny.toml"], 0, "full clone of boot-vm"),
        (vec!["list"], 0, "tpl-debian-12"),
        (vec!["latest-debian-12"], 0, "8999\n"),
        (vec!["tfvars-debian-12"], 0, "template_vmid = 8999"),
        (vec!["prune-dry-run"], 0, "it bears the tag `latest`"),
        (vec!["prune", "KEEP=1"], 0, "it bears the tag `latest`"),
        (vec!["promote-8999"], 0, "is the latest"),
        (vec!["rollback-debian-12"], 2, "there is no template older"),
        (vec!["render-ubuntu-2404"], 0, ""),
        (vec!["gc"], 0, ""),
    ] {
        let (ended, said) = make(&site, &goals).await;
        assert_eq!(ended, Some(code), "{goals:?}: {said}");
        assert!(said.contains(words), "{goals:?}: {said}");
    }
    assert!(site.path().join("rendered/ubuntu-2404").is_dir());
    // What these would do takes a guest: they are only asked for their calls.
    for (goal, call) in [
        ("build-ubuntu-2204", "build ubuntu-22.04 --output output"),
        ("build-ubuntu-22.04", "build ubuntu-22.04 --output output"),
        ("build-mine.toml", "build mine.toml --output output"),
        ("test-win2022", "latest --profile win2022)"),
        ("prestage", "prestage almalinux-10 "),
        ("init", "init proxmox root@pve1 --env-file .env.proxmox --output output"),
        ("prune", "prune --keep 3 --older-than 90d --archive nfs --yes"),
    ] {
        let (ended, said) = make(&site, &["-n", goal, "HOST=root@pve1", "ARCHIVE=nfs"]).await;
        assert!(ended == Some(0) && said.contains(call), "{goal}: {said}");
    }
    site.close().await;
    Ok(())
}

/// The calls of forge in a text: the command and its options.
fn calls(text: &str) -> Vec<(String, Vec<String>)> {
    let mut text = text.replace("$(FORGE) $(FLAGS)", "forge").replace("$(FORGE)", "forge");
    for variable in ["$(call profile,$*)", "$(OUTPUT)", "$(PROFILES)", "$(KEEP)", "$(OLDER_THAN)"] {
        text = text.replace(variable, "X");
    }
    let mut found = Vec::new();
    // What one call takes from another is a call of its own.
    while let Some((before, rest)) = text.split_once("$(forge ") {
        let (inner, after) = rest.split_once(')').expect("it is closed");
        found.extend(calls(&format!("forge {inner}\n")));
        text = format!("{before}X{after}");
    }
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '/'])) {
        for (at, _) in line.match_indices("forge ") {
            let before = line[..at].chars().last();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/')) {
                continue;
            }
            let call = line[at..].split([';', '|', '>', ')', '\'']).next().unwrap_or_default();
            let mut words = call.split_whitespace().skip(1).map(str::to_owned);
            let Some(command) = words.next().filter(|word| word.chars().all(|c| c.is_ascii_lowercase()))
            else {
                continue;
            };
            let options = words.filter(|word| word.starts_with('-')).collect();
            found.push((command, options));
        }
    }
    found
}

#[test]
fn every_call_of_forge_in_the_pipelines_is_one_that_forge_takes() {
    let mut commands = BTreeSet::new();
    for name in ["Makefile", "Jenkinsfile", "github-actions.yml", "gitlab-ci.yml"] {
        let found = calls(&read(name));
        assert!(found.len() >= 6, "{name}: {found:?}");
        for (command, options) in found {
            let help = Command::new(env!("CARGO_BIN_EXE_forge"))
                .args([&command, "--help"])
                .output()
                .expect("it runs");
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            assert!(help.contains(&format!("Usage: forge {command}")), "{name}: forge {command}");
            for option in options {
                assert!(help.contains(&option), "{name}: forge {command} {option}");
            }
            commands.insert(command);
        }
    }
    for command in ["validate", "doctor", "build", "test", "latest", "prune", "rollback", "gc"] {
        assert!(commands.contains(command), "{command}: {commands:?}");
    }
}

#[test]
fn the_workflows_are_yaml_with_what_their_services_ask_for() {
    let github: serde_json::Value = serde_yaml::from_str(&read("github-actions.yml")).expect("YAML");
    let steps = github["jobs"]["build"]["steps"].as_array().expect("steps");
    assert!(steps.iter().all(|step| step["run"].is_string() || step["uses"].is_string()), "{steps:?}");
    let gitlab: serde_json::Value = serde_yaml::from_str(&read("gitlab-ci.yml")).expect("YAML");
    let stages: Vec<&str> =
        gitlab["stages"].as_array().expect("stages").iter().filter_map(serde_json::Value::as_str).collect();
    for job in ["validate", "build", "publish"] {
        let stage = gitlab[job]["stage"].as_str().unwrap_or_default();
        assert!(stages.contains(&stage) && gitlab[job]["script"].is_array(), "{job}: {}", gitlab[job]);
    }
}

#[test]
fn terraform_takes_the_variables_that_forge_prints() {
    let terraform = read("terraform.tf");
    for name in ["template_vmid", "template_name", "template_node"] {
        assert!(terraform.contains(&format!("variable \"{name}\"")), "{name}");
        assert!(terraform.contains(&format!("var.{name}")), "{name} is used");
    }
    assert_eq!(terraform.matches('{').count(), terraform.matches('}').count());
}

/// GitHub shows what the last step of the workflow wrote into the file that it named.
#[test]
fn the_step_summary_of_a_workflow_has_what_each_build_says_of_itself_once() {
    let workflow = read("github-actions.yml");
    let step = workflow.split("- name: Summary\n").nth(1).expect("the step");
    let script = step.lines().find_map(|line| line.trim().strip_prefix("run: ")).expect("its script");
    let folder = tempfile::tempdir().expect("a folder");
    let run = || {
        let status = Command::new("bash")
            .args(["-e", "-c", script])
            .current_dir(folder.path())
            .env("GITHUB_STEP_SUMMARY", folder.path().join("summary"))
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.expect("bash runs").success(), "a workflow that failed before any build is told too");
    };
    run();
    for build in ["web/CHAIN-1", "db/CHAIN-2"] {
        let evidence = folder.path().join("output").join(build);
        std::fs::create_dir_all(&evidence).expect("a folder");
        std::fs::write(evidence.join("README.md"), format!("# {build}\n")).expect("written");
    }
    std::os::unix::fs::symlink("CHAIN-1", folder.path().join("output/web/latest")).expect("a link");
    run();
    let summary = std::fs::read_to_string(folder.path().join("summary")).expect("written");
    assert_eq!(summary, "# db/CHAIN-2\n# web/CHAIN-1\n");
}
