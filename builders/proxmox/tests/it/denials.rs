//! What a token may not do is told before a build, and by each call of one: privilege, path, and the granting command.

use forge_lab::{LEAST_PRIVILEGES_PVE9, LabConfig, PveVersion, StorageConfig};
use forge_machine::{Attachments, Finish, Hypervisor as _, PortError};

use crate::support::{Bench, TOKEN, bench_with, ladder, mark, query, spec};

/// Each release, and the privilege that reading the agent's answers takes there.
const RELEASES: [(PveVersion, &str); 2] =
    [(PveVersion::V8, "VM.Monitor"), (PveVersion::V9, "VM.GuestAgent.Audit")];

/// What a build needs on a release.
fn least(agent: &'static str) -> Vec<&'static str> {
    let each = LEAST_PRIVILEGES_PVE9.iter().copied();
    each.map(|name| if name == "VM.GuestAgent.Audit" { agent } else { name }).collect()
}

async fn bench_of(version: PveVersion, all: &[&str]) -> Bench {
    let bench = bench_with(LabConfig { run_guests: false, version, ..LabConfig::default() }).await;
    bench.lab.set_token_access(TOKEN, &[("/", all)]);
    bench
}

#[tokio::test]
async fn on_both_releases_each_missing_privilege_is_a_finding_of_the_plan() {
    for (version, agent) in RELEASES {
        let all = least(agent);
        let bench = bench_of(version, &all).await;
        assert_eq!(bench.pve.facts(&query()).await.expect("asked").1, [], "{version:?}");
        for privilege in
            ["VM.Clone", "VM.Allocate", "VM.PowerMgmt", "VM.Config.Options", agent, "VM.Console", "SDN.Use"]
        {
            let rest: Vec<&str> = all.iter().copied().filter(|name| *name != privilege).collect();
            bench.lab.set_token_access(TOKEN, &[("/", &rest)]);
            let found = bench.pve.facts(&query()).await.expect("asked").1;
            let named = found.iter().any(|finding| {
                finding.fatal
                    && finding.message.contains(&format!("lacks {privilege} on /"))
                    && finding.help.contains("pveum acl modify /")
            });
            assert!(named, "{version:?} {privilege}: {found:#?}");
        }
        bench.lab.stop().await;
    }
}

#[tokio::test]
async fn on_both_releases_builds_are_placed_without_the_right_to_see_memory_and_the_plan_says_so() {
    for (version, agent) in RELEASES {
        let rest = least(agent);
        let config = LabConfig {
            run_guests: false,
            version,
            nodes: ["pve", "pve2"].map(str::to_owned).to_vec(),
            storages: vec![StorageConfig::everything("local").shared()],
            ..LabConfig::default()
        };
        let bench = bench_with(config).await;
        for (node, gib) in [("pve", 1), ("pve2", 6)] {
            bench.lab.set_free_memory(node, gib << 30);
        }
        let placed = async || {
            let (facts, found) = bench.pve.facts(&query()).await.expect("asked");
            (facts.placed.expect("it had a choice"), facts.notes.join(" "), found)
        };
        bench.lab.set_token_access(TOKEN, &[("/", &[rest.as_slice(), &["Sys.Audit"]].concat())]);
        let (node, why, found) = placed().await;
        assert_eq!((node.as_str(), found), ("pve2", Vec::new()), "{version:?}: {why}");
        assert!(why.contains("6144 MiB free"), "{why}");
        bench.lab.set_token_access(TOKEN, &[("/", &rest)]);
        let (node, why, found) = placed().await;
        assert_eq!(node, "pve", "{version:?}: the source's: {why}");
        assert!(why.contains("memory not looked at (the token lacks Sys.Audit there)"), "{why}");
        let [told] = found.as_slice() else { panic!("{version:?}: {found:#?}") };
        assert!(
            !told.fatal && told.message.contains("lacks Sys.Audit on /nodes (needed to place"),
            "{told:?}"
        );
        assert!(told.help.contains("--privs Sys.Audit; pveum acl modify /nodes --roles"), "{told:?}");
        bench.lab.stop().await;
    }
}

#[tokio::test]
async fn on_both_releases_each_call_of_a_build_that_is_denied_says_what_grants_it() {
    for (version, agent) in RELEASES {
        let all = least(agent);
        let bench = bench_of(version, &all).await;
        let without = |privilege: &str| {
            let rest: Vec<&str> = all.iter().copied().filter(|name| *name != privilege).collect();
            bench.lab.set_token_access(TOKEN, &[("/", &rest)]);
        };
        let check = |case: &str, privilege: &str, id: &str, result: Result<(), PortError>| match result {
            Err(PortError::Denied { detail, .. }) => {
                assert!(detail.contains(privilege), "{version:?} {case}: {detail}");
                assert!(detail.contains(&format!("on /vms/{id}")), "{version:?} {case}: {detail}");
                let command = format!("pveum acl modify /vms/{id} --roles ForgeBuild");
                assert!(detail.contains(&command), "{version:?} {case}: {detail}");
            }
            other => panic!("{version:?} {case}: {other:?}"),
        };
        let mark = mark(61);
        let at = bench.clone_vm(&mark).await;
        let machine = bench.pve.machine(&at);
        let id = at.id.as_str();
        machine.configure(&spec(), &mark, &Attachments::default()).await.expect("configured");
        let task = machine.submit_start().await.expect("submitted");
        bench.pve.wait(&task).await.expect("started");

        without("VM.Console");
        check("the screen", "VM.Console", id, machine.display().await.map(|_| ()));
        without(agent);
        check("the agent", agent, id, machine.addresses().await.map(|_| ()));
        without("VM.PowerMgmt");
        check("stopping", "VM.PowerMgmt", id, machine.stop(&ladder(1, false)).await.map(|_| ()));
        bench.lab.set_token_access(TOKEN, &[("/", &all)]);
        machine.power_off().await.expect("stopped");
        without("VM.PowerMgmt");
        check("starting", "VM.PowerMgmt", id, machine.submit_start().await.map(|_| ()));
        for (privilege, change) in [
            ("VM.Config.Options", forge_machine::MachineSpec { ..spec() }),
            ("VM.Config.CPU", forge_machine::MachineSpec { cores: Some(3), ..spec() }),
            ("VM.Config.Memory", forge_machine::MachineSpec { memory_mib: Some(777), ..spec() }),
        ] {
            without(privilege);
            let result = machine.configure(&change, &mark, &Attachments::default()).await;
            check("configuring", privilege, id, result);
        }
        let finish = Finish::Template { name: "tpl".into(), tags: Vec::new(), notes: String::new() };
        without("VM.Allocate");
        check("the conversion", "VM.Allocate", id, machine.submit_finalize(&finish).await.map(|_| ()));
        check("removing", "VM.Allocate", id, machine.destroy().await);
        bench.lab.stop().await;
    }
}
