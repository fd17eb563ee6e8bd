//! What is found out about a target before a build.

use forge_lab::{ImportVm, LEAST_PRIVILEGES_PVE9, LabConfig, StorageConfig};
use forge_machine::{
    CloneSelector, FactsQuery, Finding, Finish, Hypervisor as _, Ownership, SourceSelector, VmRef,
};
use forge_proxmox::api::encode::Params;

use crate::support::{Bench, SOURCE, TOKEN, bench, bench_with, mark, query, spec};

fn by(selector: CloneSelector) -> FactsQuery {
    FactsQuery { source: SourceSelector::Clone(selector), ..query() }
}

async fn findings(bench: &Bench, query: &FactsQuery) -> Vec<Finding> {
    bench.pve.facts(query).await.expect("asked").1
}

#[tokio::test]
async fn a_sound_target_has_facts_and_no_findings() {
    let bench = bench().await;
    let (facts, found) = bench.pve.facts(&query()).await.expect("asked");
    assert_eq!(found, []);
    assert!(facts.product.starts_with("Proxmox VE 9."), "{}", facts.product);
    assert_eq!(facts.nodes, ["pve"]);
    assert_eq!(facts.bridges, Some(vec!["vmbr0".to_owned()]));
    assert!(facts.storages.iter().any(|storage| storage.name == "local" && storage.active), "{facts:?}");
    let source = facts.source.as_ref().expect("the boot VM");
    assert_eq!((source.vm.id.as_str(), source.name.as_str(), source.agent), ("100", "boot-vm", true));
    assert_eq!(source.disks.len(), 1);
    assert_eq!(bench.pve.check(&spec(), &facts), []);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_source_is_found_by_name_number_and_tags() {
    let bench = bench().await;
    for vmid in [201, 202] {
        let import = ImportVm {
            vmid,
            name: format!("tpl-{vmid}"),
            template: true,
            tags: "golden;debian".into(),
            extra: [("meta".to_owned(), format!("creation-qemu=10.0.2,ctime={}", 2_000_000_000 - vmid))]
                .into(),
            ..ImportVm::default()
        };
        bench.lab.import_vm(import).await.expect("imported");
    }
    for (selector, id) in [
        (CloneSelector::Name("boot-vm".into()), "100"),
        (CloneSelector::Vmid(SOURCE), "100"),
        (CloneSelector::Tags(vec!["Debian".into(), "golden".into()]), "201"),
    ] {
        let (facts, found) = bench.pve.facts(&by(selector.clone())).await.expect("asked");
        assert_eq!(found, [], "{selector}");
        assert_eq!(facts.source.map(|source| source.vm), Some(VmRef::new(id, "pve")), "{selector}");
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_named_beside_what_does() {
    let bench = bench().await;
    let wrong = FactsQuery {
        storages: vec!["locale".into()],
        bridges: vec!["vmbr1".into()],
        node: Some("pve9".into()),
        ..by(CloneSelector::Name("boot-wm".into()))
    };
    let found = findings(&bench, &wrong).await;
    for (setting, help) in [
        ("source.clone", "did you mean `boot-vm`?"),
        ("storage", "did you mean `local`?"),
        ("bridge", "did you mean `vmbr0`?"),
        ("node", "did you mean `pve`?"),
    ] {
        let hit = found.iter().find(|finding| finding.setting == setting && finding.fatal);
        assert!(hit.is_some_and(|finding| finding.help.contains(help)), "{setting}: {found:#?}");
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn two_vms_of_one_name_are_an_error() {
    let bench = bench().await;
    bench.lab.import_vm(ImportVm { vmid: 101, ..ImportVm::default() }).await.expect("imported");
    let found = findings(&bench, &query()).await;
    assert!(found.len() == 1 && found[0].message.contains("VM 100 on pve, VM 101 on pve"), "{found:#?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn each_privilege_a_build_needs_is_missed_when_it_is_taken_away() {
    let bench = bench().await;
    for privilege in [
        "VM.Clone",
        "VM.Allocate",
        "VM.PowerMgmt",
        "VM.Config.Options",
        "VM.GuestAgent.Audit",
        "VM.Console",
        "Datastore.AllocateSpace",
        "SDN.Use",
    ] {
        let rest: Vec<&str> =
            LEAST_PRIVILEGES_PVE9.iter().copied().filter(|name| *name != privilege).collect();
        bench.lab.set_token_access(TOKEN, &[("/", &rest)]);
        let found = findings(&bench, &query()).await;
        let named = found
            .iter()
            .any(|finding| finding.fatal && finding.message.contains(&format!("lacks {privilege} on /")));
        assert!(named, "{privilege}: {found:#?}");
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_privilege_that_only_this_spec_needs_is_missed_by_the_check() {
    let bench = bench().await;
    let rest: Vec<&str> =
        LEAST_PRIVILEGES_PVE9.iter().copied().filter(|name| *name != "VM.Config.Memory").collect();
    bench.lab.set_token_access(TOKEN, &[("/", &rest)]);
    let (facts, found) = bench.pve.facts(&query()).await.expect("asked");
    assert_eq!(found, []);
    let mut spec = spec();
    spec.memory_mib = Some(2048);
    let found = bench.pve.check(&spec, &facts);
    assert!(found.len() == 1 && found[0].message.contains("lacks VM.Config.Memory on /vms"), "{found:#?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_storage_that_takes_no_disks_is_refused() {
    let config = LabConfig {
        run_guests: false,
        storages: vec![StorageConfig::everything("local"), StorageConfig::of("media", &["iso"])],
        ..LabConfig::default()
    };
    let bench = bench_with(config).await;
    let (facts, _) = bench.pve.facts(&query()).await.expect("asked");
    let mut spec = spec();
    spec.source = forge_machine::SourceSpec::Clone {
        vm: VmRef::new("100", "pve"),
        name: "boot-vm".into(),
        full: true,
        storage: Some("media".into()),
    };
    let found = bench.pve.check(&spec, &facts);
    assert!(found.len() == 1 && found[0].message.contains("does not take VM disks"), "{found:#?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn ids_are_proposed_from_the_range_past_taken_and_refused_ones() {
    let bench = bench().await;
    bench
        .lab
        .import_vm(ImportVm { vmid: 9000, name: "x".into(), ..ImportVm::default() })
        .await
        .expect("imported");
    let refused = [VmRef::new("9001", "pve")];
    let id = bench.pve.propose_id(&spec(), &refused).await.expect("an id");
    assert_eq!(id, VmRef::new("9002", "pve"));

    let mut anywhere = spec();
    anywhere.ids = None;
    let first = bench.pve.propose_id(&anywhere, &[]).await.expect("an id");
    assert_eq!(first.id, "101");
    let second = bench.pve.propose_id(&anywhere, &[first]).await.expect("an id");
    assert_eq!(second.id, "102");

    let mut full = spec();
    full.ids = Some((9000, 9001));
    let again = bench.pve.propose_id(&full, &refused).await.expect("whoever had it is gone");
    assert_eq!(again.id, "9001");
    let other = ImportVm { vmid: 9001, name: "y".into(), ..ImportVm::default() };
    bench.lab.import_vm(other).await.expect("imported");
    let error = bench.pve.propose_id(&full, &refused).await.expect_err("none is left");
    assert!(error.to_string().contains("9000 to 9001"), "{error}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn an_id_of_the_profile_s_own_that_is_taken_is_a_finding_that_says_who_has_it() {
    let bench = bench().await;
    let template = ImportVm { vmid: 9000, name: "tpl-x".into(), template: true, ..ImportVm::default() };
    bench.lab.import_vm(template).await.expect("imported");
    for (vmid, expected) in
        [(9001, None), (9000, Some("the template tpl-x on pve")), (SOURCE, Some("the VM boot-vm on pve"))]
    {
        let found = findings(&bench, &FactsQuery { vmid: Some(vmid), ..query() }).await;
        let Some(by) = expected else {
            assert_eq!(found, []);
            continue;
        };
        let [told] = found.as_slice() else { panic!("{vmid}: {found:#?}") };
        assert!(told.fatal && told.setting == "vm.vmid", "{told:?}");
        assert_eq!(told.message, format!("VMID {vmid} is taken: {by} has it"));
        assert!(told.help.contains("not with `--force` either"), "{told:?}");
    }
    // The token does not see it, and the cluster says that it is there.
    let others: Vec<&str> = LEAST_PRIVILEGES_PVE9.to_vec();
    bench.lab.set_token_access(TOKEN, &[("/", &others), ("/vms/9000", &["VM.Clone"])]);
    let found = findings(&bench, &FactsQuery { vmid: Some(9000), ..query() }).await;
    assert!(found[0].message.contains("something that the token may not see"), "{found:#?}");

    let mut only = spec();
    only.ids = Some((9000, 9000));
    let error = bench.pve.propose_id(&only, &[]).await.expect_err("it is taken");
    assert!(error.to_string().contains("9000 is taken"), "{error}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn what_builds_left_behind_is_found_by_its_mark() {
    let bench = bench().await;
    let ours = mark(1);
    let at = bench.clone_vm(&ours).await;
    let stranger = ImportVm {
        vmid: 300,
        name: "forge-web".into(),
        extra: [("description".to_owned(), ours.to_description())].into(),
        ..ImportVm::default()
    };
    bench.lab.import_vm(stranger).await.expect("imported");
    let found = bench.pve.orphans().await.expect("asked");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].vm, &found[0].mark), (&at, &ours));
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_node_that_is_down_hides_its_own_vms_and_no_others() {
    let nodes = ["pve", "pve2"].map(str::to_owned).to_vec();
    let bench = bench_with(LabConfig { run_guests: false, nodes, ..LabConfig::default() }).await;
    let ours = mark(1);
    let at = bench.clone_vm(&ours).await;
    for (vmid, node, template) in [(301, "pve", true), (302, "pve2", true), (303, "pve2", false)] {
        let vm = ImportVm {
            vmid,
            node: Some(node.to_owned()),
            name: format!("forge-{vmid}"),
            tags: "golden".into(),
            template,
            ..ImportVm::default()
        };
        bench.lab.import_vm(vm).await.expect("imported");
    }
    let golden = || async {
        let found = bench.pve.templates(Some("golden")).await.expect("asked");
        found.into_iter().map(|each| each.vm.id).collect::<Vec<String>>()
    };
    assert_eq!(golden().await, ["301", "302"]);
    bench.lab.set_online("pve2", false);
    assert_eq!(golden().await, ["301"]);
    let orphans = bench.pve.orphans().await.expect("asked");
    assert_eq!(orphans.iter().map(|each| &each.vm).collect::<Vec<_>>(), [&at]);
    let (facts, findings) = bench.pve.facts(&query()).await.expect("asked");
    assert_eq!(facts.source.map(|source| source.vm.id).as_deref(), Some("100"));
    let told: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert!(told.len() == 1 && told[0].starts_with("pve2 does not answer, and 2 VMs of it"), "{told:?}");
    assert!(!findings[0].fatal);

    // A server that is down itself hides nothing: nobody could be asked.
    let nobody = bench.client(|config| config.url = "https://127.0.0.1:9".into());
    assert!(nobody.orphans().await.is_err() && nobody.templates(None).await.is_err());
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_build_is_placed_by_what_is_planned_and_under_way_unless_its_disks_are_on_one_node() {
    for shared in [true, false] {
        let storage = StorageConfig { shared, ..StorageConfig::everything("local") };
        let nodes = ["pve", "pve2", "pve3"].map(str::to_owned).to_vec();
        let config = LabConfig { run_guests: false, nodes, storages: vec![storage], ..LabConfig::default() };
        let bench = bench_with(config).await;
        bench.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat())]);
        let mut query = query();
        let mut chosen = Vec::new();
        for _ in 0..4 {
            let (facts, findings) = bench.pve.facts(&query).await.expect("asked");
            assert_eq!(findings, []);
            let node = facts.placed.expect("it had a choice");
            assert!(facts.notes[0].contains(&node), "{:?}", facts.notes);
            query.placed.push((node.clone(), 1024));
            chosen.push(node);
        }
        let each: std::collections::BTreeSet<&String> = chosen.iter().take(3).collect();
        assert_eq!((chosen[0].as_str(), each.len()), ("pve", if shared { 3 } else { 1 }), "{chosen:?}");
        if shared {
            // One that is under way counts as well, by its own configuration.
            query.placed.clear();
            let alive = Ownership { heartbeat: jiff::Timestamp::now(), ..mark(3) };
            let at = bench.clone_vm(&alive).await;
            let attachments = forge_machine::Attachments::default();
            bench.pve.machine(&at).configure(&spec(), &alive, &attachments).await.expect("configured");
            let (facts, _) = bench.pve.facts(&query).await.expect("asked");
            let second = facts.placed.expect("it had a choice");
            assert_ne!(second, "pve");
            bench.lab.set_online(&second, false);
            let (facts, _) = bench.pve.facts(&query).await.expect("asked");
            let third = facts.placed.expect("it had a choice");
            assert!(third != "pve" && third != second, "a node that is down is no place: {third}");
        }
        bench.lab.stop().await;
    }
}

#[tokio::test]
async fn of_unequal_nodes_a_build_goes_to_the_one_with_the_memory_and_the_space_that_it_needs() {
    const MIB: u64 = 1 << 20;
    // The source's disk has 1 GiB.
    let fast = StorageConfig::of("fast", &["images", "iso"]).with_size(1040 * MIB);
    let far = StorageConfig { nodes: Some(vec!["pve".into()]), ..StorageConfig::of("far", &["images"]) };
    let config = LabConfig {
        run_guests: false,
        nodes: ["pve", "pve2", "pve3"].map(str::to_owned).to_vec(),
        storages: vec![StorageConfig::everything("local").shared(), fast, far],
        ..LabConfig::default()
    };
    let bench = bench_with(config).await;
    let privileges = [LEAST_PRIVILEGES_PVE9, &["Sys.Audit", "Datastore.AllocateTemplate"]].concat();
    bench.lab.set_token_access(TOKEN, &[("/", &privileges)]);
    for (node, gib) in [("pve", 2), ("pve2", 6), ("pve3", 4)] {
        bench.lab.set_free_memory(node, gib << 30);
    }
    let mut query = FactsQuery { storages: vec!["fast".into()], memory_mib: Some(1024), ..query() };
    let placed = async |query: &FactsQuery| {
        let (facts, findings) = bench.pve.facts(query).await.expect("asked");
        assert_eq!(findings, []);
        (facts.placed.expect("it had a choice"), facts.notes.join(" "))
    };
    let (node, why) = placed(&query).await;
    assert!(node == "pve2" && why.contains("node pve2 of 3: 0 builds, 6144 MiB free"), "{node}: {why}");
    // What is planned there takes its memory: fewer builds come before more memory.
    query.placed.push(("pve2".into(), 3000));
    assert_eq!(placed(&query).await.0, "pve3");
    query.placed.push(("pve3".into(), 3000));
    assert_eq!(placed(&query).await.0, "pve", "1024 MiB fit there, and nothing is under way");
    query.memory_mib = Some(3072);
    assert_eq!(placed(&query).await.0, "pve2", "the only one that has so much left");
    // Where the disks don't fit is no place, however much memory there is.
    query.placed.clear();
    let filling = vec![1; 30 << 20];
    bench.pve.client().upload_bytes("pve2", "fast", "filling.iso", &filling).await.expect("sent");
    while !bench.lab.running_tasks().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(placed(&query).await.0, "pve3");
    // A storage that one node alone has decides it.
    query.storages = vec!["far".into()];
    assert_eq!(placed(&query).await.0, "pve");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_tag_that_the_clusters_policy_keeps_from_the_token_is_a_finding_and_is_refused_with_words() {
    let bench = bench().await;
    let admin = bench.lab.add_token("root@pam!admin", &[("/", &["Sys.Modify", "Sys.Audit"])]);
    let admin = bench.client(|config| {
        config.token_id = "root@pam!admin".into();
        config.token_secret = admin.into();
    });
    let policy = |access: &'static str, registered: &'static str| {
        let body = Params::new().with("user-tag-access", access).with("registered-tags", registered);
        let client = admin.client().clone();
        async move { client.put("/cluster/options", &body).await.expect("set") }
    };
    let tagged = FactsQuery { tags: vec!["golden".into(), "base".into(), "latest".into()], ..query() };
    assert_eq!(findings(&bench, &tagged).await, [], "without a policy every tag may be set");

    let mark = crate::support::mark(41);
    let at = bench.clone_vm(&mark).await;
    let machine = bench.pve.machine(&at);
    machine.configure(&spec(), &mark, &forge_machine::Attachments::default()).await.expect("configured");
    let set = async || {
        let finish = Finish::Template { name: "tpl".into(), tags: tagged.tags.clone(), notes: String::new() };
        machine.publish(&finish).await
    };
    let task = machine
        .submit_finalize(&Finish::Template { name: "tpl".into(), tags: Vec::new(), notes: String::new() })
        .await
        .expect("submitted");
    bench.pve.wait(&task).await.expect("converted");

    // The policy is hidden from this token; that another VM bears the tag gives it away.
    policy("user-allow=free", "base").await;
    let found = findings(&bench, &tagged).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].fatal && found[0].setting == "template.tags" && found[0].message.contains("`base`"));
    let error = set().await.expect_err("refused").to_string();
    assert!(error.contains("Sys.Modify") && error.contains("'base'"), "{error}");

    // Who sees the policy is told of every tag that it refuses.
    bench.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat())]);
    policy("user-allow=list,user-allow-list=forge-build;forge-kept;latest", "base").await;
    let found = findings(&bench, &tagged).await;
    let named: Vec<bool> = found.iter().map(|each| each.message.contains("`golden`")).collect();
    assert_eq!(named, [true, false, false], "{found:?}");
    assert!(found[2].setting == "source" && found[2].message.contains("`boot`"), "{found:?}");
    assert!(found[0].help.contains("user-allow-list=forge-build;forge-kept;golden;latest'"), "{found:?}");
    assert!(set().await.is_err());

    policy("user-allow=list,user-allow-list=forge-build;forge-kept;latest;golden;base;boot", "other").await;
    assert_eq!(findings(&bench, &tagged).await, []);
    set().await.expect("published");
    assert_eq!(bench.config_of(&at, "tags").as_deref(), Some("base;golden;latest"));
    bench.lab.stop().await;
}
