use std::collections::BTreeSet;

use super::*;

fn wanted() -> Wanted {
    Wanted {
        user: "forge@pve".into(),
        token: "build".into(),
        role: "ForgeBuild".into(),
        more: Vec::new(),
        pool: None,
        paths: paths(9, None, &[], &["local".into(), "local".into()], Some("/sdn/zones/localnetwork/vmbr0")),
        rotate: false,
        force: false,
    }
}

fn empty(major: u32) -> Standing {
    let users = [("root@pam".to_owned(), true)].into();
    Standing { major, version: format!("{major}.1"), users, ..Standing::default() }
}

/// What there is after changes were carried out.
fn after(mut standing: Standing, steps: &[Step]) -> Standing {
    for change in steps.iter().flat_map(|step| &step.changes) {
        match change.clone() {
            Change::AddPool { pool } => _ = standing.pools.insert(pool),
            Change::AddUser { user, .. } => _ = standing.users.insert(user, true),
            Change::AddRole { role, privileges } | Change::ExtendRole { role, privileges } => {
                standing.roles.entry(role).or_default().privileges.extend(privileges);
            }
            Change::RemoveToken { user, token } => {
                standing.tokens.remove(&token);
                standing.entries.retain(|(_, who, _)| *who != format!("{user}!{token}"));
            }
            Change::AddToken { token, .. } => _ = standing.tokens.insert(token, true),
            Change::Grant { path, role, users, tokens } => {
                for who in users.into_iter().chain(tokens) {
                    standing.entries.insert((path.clone(), who, role.clone()));
                }
            }
        }
    }
    standing
}

fn changes(steps: &[Step]) -> Vec<String> {
    steps.iter().flat_map(|step| &step.changes).map(|change| change.words().join(" ")).collect()
}

#[test]
fn from_nothing_everything_is_made_in_an_order_that_works_and_a_second_time_nothing() {
    let first = steps(&wanted(), &empty(9)).expect("possible");
    let words = changes(&first);
    assert_eq!(words.len(), 7, "{words:#?}");
    assert!(words[0].starts_with("pveum role add ForgeBuild --privs VM.Allocate,"), "{}", words[0]);
    assert!(words[0].contains("VM.GuestAgent.Audit") && !words[0].contains("VM.Monitor"), "{}", words[0]);
    assert_eq!(words[1], "pveum user add forge@pve --comment forge: builds VM templates");
    assert!(words[2].starts_with("pveum user token add forge@pve build --privsep 1 "), "{}", words[2]);
    assert!(words[0].contains(",Sys.Audit"), "{}", words[0]);
    let paths = ["/vms", "/storage/local", "/sdn/zones/localnetwork/vmbr0", "/nodes"];
    for (line, path) in words[3..].iter().zip(paths) {
        let expected =
            format!("pveum acl modify {path} --roles ForgeBuild --users forge@pve --tokens forge@pve!build");
        assert_eq!(*line, expected);
    }
    let second = steps(&wanted(), &after(empty(9), &first)).expect("possible");
    assert_eq!(changes(&second), Vec::<String>::new());
}

#[test]
fn what_is_there_is_used_and_only_what_lacks_is_added() {
    let all = after(empty(9), &steps(&wanted(), &empty(9)).expect("possible"));
    let mut standing = all.clone();
    let role = standing.roles.get_mut("ForgeBuild").expect("made");
    role.privileges.remove("VM.Console");
    role.privileges.insert("VM.Backup".into());
    standing.entries.remove(&("/vms".into(), "forge@pve".into(), "ForgeBuild".into()));
    let some = steps(&wanted(), &standing).expect("possible");
    assert_eq!(
        changes(&some),
        [
            "pveum role modify ForgeBuild --privs VM.Console --append 1",
            "pveum acl modify /vms --roles ForgeBuild --users forge@pve",
        ]
    );
    assert_eq!(some[0].found, "lacks VM.Console; it also has VM.Backup");
}

#[test]
fn a_token_is_made_anew_only_on_request_and_then_gets_its_rights_again() {
    let all = after(empty(9), &steps(&wanted(), &empty(9)).expect("possible"));
    let rotate = Wanted { rotate: true, ..wanted() };
    let words = changes(&steps(&rotate, &all).expect("possible"));
    assert_eq!(words[0], "pveum user token remove forge@pve build");
    assert!(words[1].starts_with("pveum user token add forge@pve build"), "{}", words[1]);
    assert_eq!(words[2], "pveum acl modify /vms --roles ForgeBuild --tokens forge@pve!build");
    assert_eq!(words.len(), 6, "{words:#?}");
}

#[test]
fn what_can_t_be_had_is_told_before_anything_is_changed() {
    let mut standing = empty(9);
    standing.roles.insert("PVEVMUser".into(), Role { special: true, ..Role::default() });
    let special = Wanted { role: "PVEVMUser".into(), ..wanted() };
    assert!(matches!(steps(&special, &standing), Err(Conflict::SpecialRole { .. })));
    let reserved = Wanted { role: "pveForge".into(), ..wanted() };
    assert!(matches!(steps(&reserved, &standing), Err(Conflict::ReservedRole { .. })));
    standing.users.insert("forge@pve".into(), false);
    assert!(matches!(steps(&wanted(), &standing), Err(Conflict::Disabled { .. })));
}

#[test]
fn what_others_have_is_changed_only_by_force() {
    let mut standing = empty(9);
    standing.roles.insert("Operators".into(), Role::default());
    let role = Wanted { role: "Operators".into(), ..wanted() };
    assert!(matches!(steps(&role, &standing), Err(Conflict::OtherRole { .. })));
    assert!(steps(&Wanted { force: true, ..role }, &standing).is_ok());

    standing.users.insert("forge@pve".into(), true);
    for (above, is_hidden) in [
        ("/", true),
        ("/storage", true),
        ("/vms", false),
        ("/nodes", false),
        ("/vm", false),
        ("/pool", false),
    ] {
        let mut standing = standing.clone();
        standing.entries.insert((above.into(), "forge@pve".into(), "PVEAdmin".into()));
        let told = steps(&wanted(), &standing);
        assert_eq!(matches!(told, Err(Conflict::WouldHide { .. })), is_hidden, "{above}: {told:?}");
        assert!(steps(&Wanted { force: true, ..wanted() }, &standing).is_ok());
    }
}

#[test]
fn releases_differ_in_privileges_and_a_pool_narrows_the_paths() {
    let of = |major| wanted().privileges(major).into_iter().collect::<BTreeSet<_>>();
    assert!(of(8).contains("VM.Monitor") && !of(8).contains("VM.GuestAgent.Audit"));
    assert!(of(7).contains("VM.Monitor") && !of(7).contains("SDN.Use"));
    assert!(of(9).contains("SDN.Use") && of(9).contains("Datastore.AllocateTemplate"));
    let pool = paths(9, Some("forge"), &[9000], &["local".into()], None);
    assert_eq!(pool, ["/pool/forge", "/vms/9000", "/storage/local", "/nodes"]);
    assert_eq!(paths(7, None, &[], &[], Some("/sdn/zones/localnetwork/vmbr0")), ["/vms", "/nodes"]);
}

#[test]
fn commands_and_calls_say_the_same() {
    let grant = Change::Grant {
        path: "/vms".into(),
        role: "R".into(),
        users: vec!["a@pve".into()],
        tokens: vec!["a@pve!t".into()],
    };
    let expected = vec![
        ("path", "/vms".to_owned()),
        ("roles", "R".into()),
        ("users", "a@pve".into()),
        ("tokens", "a@pve!t".into()),
    ];
    assert_eq!(grant.call(), (Verb::Put, "/access/acl".to_owned(), expected));
    let remove = Change::RemoveToken { user: "a@pve".into(), token: "t1".into() };
    assert_eq!(remove.call(), (Verb::Delete, "/access/users/a%40pve/token/t1".to_owned(), Vec::new()));
    let ask = Ask::new(&["nodes", "pve", "network"]).with("type", "any_bridge");
    assert_eq!(ask.words().join(" "), "pvesh get /nodes/pve/network --type any_bridge --output-format json");
    assert_eq!(ask.call().0, "/nodes/pve/network");
}
