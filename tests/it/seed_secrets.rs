//! What the evidence of a build shows of a seed's secrets: nothing, in whatever language an installer's file is written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forge::plan::{Delivery, Plan, SeedPlan};
use forge_http_seed::answers::{Answers, Kind, Settings};
use forge_machine::fake::{FakeHypervisor, FakeWorld};
use serde_json::json;

use crate::support::fake_build::plan;
use crate::support::workbench::Workbench;

/// It has what each language writes in another way.
const SECRET: &str = "Tr0ub&4'dor<x>\"y\\z";

fn plan_of(kind: Kind, distribution: &str, version: &str, delivery: Delivery) -> Plan {
    let mut vars = json!({ "password": SECRET, "late-commands": [format!("register --token {SECRET}")] });
    if kind == Kind::Autounattend {
        vars["image-name"] = "Windows Server 2022".into();
        vars["locale"] = "en-US".into();
    }
    let settings = Settings::read(kind, vars.as_object().expect("a table")).expect("sound settings");
    let answers = Answers {
        kind,
        settings,
        distribution: distribution.into(),
        version: version.into(),
        user_data: None,
        variables: serde_json::Map::new(),
        templates: BTreeMap::new(),
    };
    let plan = plan();
    Plan { seed: SeedPlan { delivery, answers: Some(answers), ..plan.seed.clone() }, ..plan }
}

fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(texts(&path));
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(&path).expect("readable")).into_owned();
            found.push((path.display().to_string(), text));
        }
    }
    found
}

#[tokio::test]
async fn no_secret_of_a_seed_is_readable_in_the_evidence_whatever_language_it_is_written_in() {
    for (kind, distribution, version) in [
        (Kind::Autoinstall, "ubuntu", "24.04"),
        (Kind::Kickstart, "rocky", "9"),
        (Kind::Preseed, "debian", "12"),
        (Kind::Autounattend, "windows", "2022"),
        (Kind::Autoyast, "opensuse-leap", "15.6"),
        (Kind::Agama, "opensuse-leap", "16.0"),
    ] {
        for delivery in [Delivery::Typed, Delivery::Disc, Delivery::Floppy] {
            // The Debian installer finds no disc by itself, and Windows alone looks at a floppy.
            if (kind == Kind::Preseed && delivery == Delivery::Disc)
                || (kind != Kind::Autounattend && delivery == Delivery::Floppy)
            {
                continue;
            }
            let world = FakeWorld::with_boot_vm();
            let plan = plan_of(kind, distribution, version, delivery);
            let bench = Workbench::new(plan, Box::new(move || Arc::new(FakeHypervisor::new(world.clone()))));
            // As the command does with a profile's secret variables.
            bench.redactor.add(SECRET);
            let ending = bench.build_with(None).await.expect("it lives");
            assert_eq!(ending.exit_code(), 0, "{kind}: {ending:?}");
            let texts = texts(&bench.evidence());
            let main = texts.iter().find(|(path, _)| path.ends_with(kind.main_file()));
            let (_, text) = main.expect("the seed is in the evidence");
            assert!(text.contains("register --token ***") || kind == Kind::Autounattend, "{kind}: {text}");
            for (path, text) in &texts {
                for piece in ["Tr0ub", "4dor", "dor<x", "dor&lt;x"] {
                    assert!(!text.contains(piece), "{kind}: {path} holds {piece}: {text}");
                }
            }
        }
    }
}
