//! What becomes of the output of steps, and of the secrets in the evidence, on a target that is made up.

use std::path::Path;
use std::sync::Arc;

use forge::plan::{Delivery, Plan};
use forge::provision::{Action, LocalStep, LocalWork, Step};
use forge_http_seed::answers::{Answers, Kind, Settings};
use forge_machine::fake::{FakeHypervisor, FakeWorld};

use crate::support::fake_build::plan;
use crate::support::workbench::Workbench;

fn bench(plan: Plan) -> Workbench {
    let world = FakeWorld::with_boot_vm();
    Workbench::new(plan, Box::new(move || Arc::new(FakeHypervisor::new(world.clone()))))
}

fn local(name: &str, line: &str) -> Step {
    let work = LocalStep {
        what: LocalWork::Shell(line.to_owned()),
        env: [].into(),
        valid_exit_codes: vec![0],
        timeout: None,
        dir: std::env::temp_dir(),
    };
    Step::new(name, Action::Local(work))
}

/// What scripts that come from Packer look at.
#[tokio::test(flavor = "multi_thread")]
async fn the_variables_of_packer_have_the_values_that_packer_gives() {
    for delivery in [Delivery::None, Delivery::Smbios] {
        let mut plan = plan();
        plan.seed.delivery = delivery;
        plan.provision = vec![local("look", "env | grep -E '^(PACKER|FORGE)_' | sort")];
        let (profile, chain) = (plan.profile.clone(), plan.chain_id.to_string());
        let bench = bench(plan);
        let ending = bench.build_with(None).await.expect("it ends");
        assert_eq!(ending.exit_code(), 0, "{ending:?}");
        let log = std::fs::read_to_string(bench.evidence().join("provision/01-look.log")).expect("a log");
        let value = |name: &str| {
            let line = log.lines().find_map(|line| line.split_once(&format!("{name}=")));
            line.unwrap_or_else(|| panic!("{name} is not in {log}")).1.to_owned()
        };
        assert_eq!(value("PACKER_BUILD_NAME"), profile);
        assert_eq!(value("PACKER_RUN_UUID"), chain);
        assert_eq!(value("PACKER_BUILDER_TYPE"), "proxmox-clone");
        let (whole, address, port) =
            (value("PACKER_HTTP_ADDR"), value("PACKER_HTTP_IP"), value("PACKER_HTTP_PORT"));
        if delivery == Delivery::Smbios {
            assert_eq!(whole, format!("{address}:{port}"));
            whole.parse::<std::net::SocketAddr>().expect("an address and a port");
        } else {
            assert_eq!((whole.as_str(), address.as_str(), port.as_str()), ("", "", ""));
        }
    }
}

/// The most memory that this process has had, in KiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

/// 256 MiB, or as many as `FORGE_STEP_OUTPUT` says.
#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_step_costs_no_memory_however_much_it_is() {
    let text = std::env::var("FORGE_STEP_OUTPUT").ok();
    let mib: u64 = text.and_then(|text| text.parse().ok()).unwrap_or(256);
    let flood =
        format!("head -c {} /dev/zero | tr '\\0' x | fold -w 1000; echo; echo the last line", mib << 20);
    let mut bench = bench(Plan { provision: vec![local("flood", &flood)], ..plan() });
    bench.without_output = true;
    let before = most_memory();
    let ending = bench.build_with(None).await.expect("it ends");
    assert_eq!(ending.exit_code(), 0, "{ending:?}");
    let grown = most_memory() - before;
    println!("{mib} MiB of output, {grown} KiB more memory");
    assert!(grown < 100 << 10, "{grown} KiB for {mib} MiB of output");
    let file = bench.evidence().join("provision/01-flood.log");
    let size = std::fs::metadata(&file).expect("it is there").len();
    assert!(size > mib << 20, "the whole output is there: {size} bytes");
}

/// All texts below a folder.
fn texts(folder: &Path) -> Vec<(std::path::PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            found.extend(texts(&entry.path()));
        } else {
            let bytes = std::fs::read(entry.path()).expect("readable");
            found.push((entry.path(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_evidence_of_an_installer_s_seed_does_not_hold_the_hash_of_the_password() {
    // The seed of cloud images has no password.
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Nocloud) {
        for create in [true, false] {
            let vars = serde_json::json!({ "password": "a long password 2B", "locale": "en_US.UTF-8" });
            let mut vars = vars.as_object().expect("an object").clone();
            if kind == Kind::Autounattend {
                vars.insert("image-name".into(), "Windows Server 2022 SERVERSTANDARDCORE".into());
                vars.insert("locale".into(), "en-US".into());
            }
            if kind == Kind::Preseed {
                vars.insert("mirror".into(), "http://mirror.example.org/debian".into());
            }
            let known: Vec<&str> = Settings::names(kind).collect();
            vars.retain(|name, _| known.contains(&name.as_str()));
            let mut plan = plan();
            plan.access.create = create;
            plan.seed.answers = Some(Answers {
                kind,
                settings: Settings::read(kind, &vars).expect("sound settings"),
                distribution: "any".into(),
                version: "1".into(),
                user_data: None,
                variables: serde_json::Map::new(),
                templates: std::collections::BTreeMap::new(),
            });
            let bench = bench(plan);
            let ending = bench.build_with(None).await.expect("it ends");
            assert_eq!(ending.exit_code(), 0, "{kind}: {ending:?}");
            let all = texts(&bench.evidence());
            assert!(all.iter().any(|(path, _)| path.parent().is_some_and(|parent| parent.ends_with("seed"))));
            for (path, text) in all {
                assert!(!text.contains("$6$"), "{kind}: a hash in {}", path.display());
            }
        }
    }
}
