//! `forge init proxmox` by the real program, against a lab that has nobody but root.

use std::os::unix::fs::PermissionsExt as _;

use forge_lab::{ImportVm, LEAST_PRIVILEGES_PVE9, LabConfig, PveVersion, ShellConfig};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

use crate::support::fresh::{Fresh, PASSWORD, mode, root};
use crate::support::lab_site::{Done, PROFILE};

fn refused(done: &Done, words: &[&str]) {
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    for word in words {
        assert!(done.stderr.contains(word), "`{word}` is not in:\n{}", done.stderr);
    }
}

#[test]
fn the_role_is_what_was_measured_and_what_sends_media_and_sees_memory() {
    let mut ours = forge::backends::setup::Wanted {
        user: String::new(),
        token: String::new(),
        role: String::new(),
        more: Vec::new(),
        pool: None,
        paths: Vec::new(),
        rotate: false,
        force: false,
    }
    .privileges(9);
    let mut measured: Vec<String> = LEAST_PRIVILEGES_PVE9.iter().map(|name| (*name).to_owned()).collect();
    measured.extend(["Datastore.AllocateTemplate", "Sys.Audit"].map(str::to_owned));
    ours.sort();
    measured.sort();
    assert_eq!(ours, measured);
}

/// From root alone to a plan without a finding, then again without a change.
async fn becomes_ready(version: PveVersion) -> anyhow::Result<()> {
    let fresh = Fresh::new(version).await?;
    let done = fresh.init(&["--env-file", ".env.proxmox"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("the token was tried"), "{}", done.stderr);
    assert!(done.stderr.contains(fresh.shell.host_key()), "the host key is shown: {}", done.stderr);
    assert_eq!(mode(&fresh.path(".env.proxmox")), 0o600);
    let env = fresh.read(".env.proxmox");
    let variable = |name: &str| {
        let line = env.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.unwrap_or_else(|| panic!("{name} is not in {env}")).trim_matches('\'').to_owned()
    };
    assert_eq!(variable("PROXMOX_URL"), format!("{}/api2/json", fresh.lab.url()));
    assert_eq!(variable("PROXMOX_TOKEN_ID"), "forge@pve!build");
    let names = ["PROXMOX_NODE", "PROXMOX_STORAGE_VM", "PROXMOX_STORAGE_ISO", "PROXMOX_BRIDGE"];
    assert_eq!(names.map(variable), ["pve", "local", "local", "vmbr0"]);
    assert_eq!(variable("PROXMOX_TLS_FINGERPRINT"), fresh.lab.fingerprint());
    let secret = variable("PROXMOX_TOKEN_SECRET");
    assert_eq!(secret.len(), 36, "{secret}");

    // The secret is in one file and nowhere else; root's password is nowhere.
    for (path, text) in fresh.written() {
        let holds = text.contains(&secret);
        assert_eq!(holds, path.ends_with(".env.proxmox"), "{}", path.display());
        assert!(!text.contains(PASSWORD), "{}", path.display());
    }
    for text in [&done.stdout, &done.stderr] {
        assert!(!text.contains(&secret) && !text.contains(PASSWORD), "{text}");
    }
    let evidence = fresh.path("output/init/latest");
    let proof: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(evidence.join("proof.json"))?)?;
    assert_eq!((&proof["kind"], &proof["token-id"]), (&"init".into(), &"forge@pve!build".into()), "{proof}");
    assert_eq!(proof["host-key"], fresh.shell.host_key(), "{proof}");
    assert!(fresh.read("state/known_hosts").contains("ssh-ed25519"));
    let verified = fresh.forge(&["evidence", "verify", "output/init/latest"], &[]).await;
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert!(verified.stdout.contains("forge@pve!build"), "{}", verified.stdout);

    // What was made is enough: by the site file with the variable, and by the variables alone.
    std::fs::write(fresh.path("tiny.toml"), PROFILE)?;
    let by_site = fresh.forge(&["plan", "tiny.toml"], &[("PROXMOX_TOKEN_SECRET", &secret)]).await;
    assert_eq!((by_site.code, by_site.stderr.as_str()), (Some(0), ""), "{}", by_site.stdout);
    let by_variables = fresh.forge(&["plan", "tiny.toml", "--env-file", ".env.proxmox"], &[]).await;
    assert_eq!((by_variables.code, by_variables.stderr.as_str()), (Some(0), ""), "{}", by_variables.stdout);

    // A second time nothing is to be done, and nothing is done.
    let (state, site) = (fresh.lab.access_state(), fresh.read("forge.toml"));
    let again = fresh.init(&["--env-file", ".env.proxmox"]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("nothing to change"), "{}", again.stderr);
    assert_eq!(fresh.lab.access_state(), state);
    assert_eq!((fresh.read("forge.toml"), fresh.read(".env.proxmox")), (site, env));
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_root_alone_becomes_a_target_that_plans_and_stays_as_it_is_on_pve_9() -> anyhow::Result<()>
{
    becomes_ready(PveVersion::V9).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_root_alone_becomes_a_target_that_plans_and_stays_as_it_is_on_pve_8() -> anyhow::Result<()>
{
    becomes_ready(PveVersion::V8).await
}

/// A real build with what init has made, in a pool where one is named.
async fn builds(version: PveVersion, more: &[&str]) -> anyhow::Result<()> {
    let Some(fresh) = Fresh::with_tiny_guest(version).await? else { return Ok(()) };
    let done = fresh.init(more).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert_eq!(mode(&fresh.path(".pve.token")), 0o600);
    fresh.tell_how_guests_reach_forge();
    std::fs::write(fresh.path("tiny.toml"), PROFILE)?;
    // As the shipped profiles are built: with the trial of the template, which takes rights on that too.
    let built = fresh.forge(&["build", "tiny.toml", "--test"], &[]).await;
    assert_eq!(built.code, Some(0), "{}{}", built.stdout, built.stderr);
    let templates: Vec<(String, String)> =
        fresh.lab.vms().into_iter().filter(|vm| vm.template).map(|vm| (vm.name, vm.tags)).collect();
    assert_eq!(templates, [("tpl-tiny".to_owned(), "forge;latest;validated".to_owned())], "{}", built.stderr);
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_made_builds_a_tiny_guest_on_pve_9_in_a_pool() -> anyhow::Result<()> {
    builds(PveVersion::V9, &["--pool", "forge", "--boot-vm", "9000"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_made_builds_a_tiny_guest_on_pve_8() -> anyhow::Result<()> {
    builds(PveVersion::V8, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_commands_that_a_shell_takes_and_changes_nothing() -> anyhow::Result<()> {
    let fresh = Fresh::new(PveVersion::V9).await?;
    let before = fresh.lab.access_state();
    let done = fresh.init(&["--dry-run", "--pool", "forge"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(fresh.lab.access_state(), before);
    assert_eq!(fresh.written(), [], "no file is written");
    let lines = done.stdout.lines().map(|line| line.split(' ').take(4).collect::<Vec<_>>().join(" "));
    let expected = [
        "pveum pool add forge",
        "pveum role add ForgeBuild",
        "pveum user add forge@pve",
        "pveum user token add",
        "pveum acl modify /pool/forge",
        "pveum acl modify /storage/local",
        "pveum acl modify /sdn/zones/localnetwork/vmbr0",
        "pveum acl modify /nodes",
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected, "{}", done.stdout);
    for words in ["would write forge.toml", "bridge = \"vmbr0\"", "nothing was done"] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    // They are what is really run.
    let real = fresh.init(&["--pool", "forge", "--json"]).await;
    assert_eq!(real.code, Some(0), "{}", real.stderr);
    let summary: serde_json::Value = serde_json::from_str(&real.stdout)?;
    let changes: Vec<&str> =
        summary["changes"].as_array().into_iter().flatten().filter_map(|v| v.as_str()).collect();
    assert_eq!(changes, done.stdout.lines().collect::<Vec<_>>());
    let run = fresh.shell.lines();
    assert!(changes.iter().all(|change| run.iter().any(|line| line == change)), "{run:#?}");
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_there_is_never_made_anew_unless_asked_for() -> anyhow::Result<()> {
    let fresh = Fresh::new(PveVersion::V9).await?;
    assert_eq!(fresh.init(&[]).await.code, Some(0));
    let secret = fresh.read(".pve.token");
    std::fs::remove_file(fresh.path(".pve.token"))?;
    let before = fresh.lab.access_state();

    let unknown = fresh.init(&[]).await;
    refused(
        &unknown,
        &["the token forge@pve!build exists", "known nowhere", "PROXMOX_TOKEN_SECRET", "--rotate-token"],
    );
    std::fs::write(fresh.path(".pve.token"), "11111111-2222-3333-4444-555555555555\n")?;
    let wrong = fresh.init(&[]).await;
    refused(&wrong, &["the secret of forge@pve!build", "does not open it"]);
    assert!(!wrong.stderr.contains("11111111-2222"), "{}", wrong.stderr);
    assert_eq!(fresh.lab.access_state(), before, "neither has changed anything");

    // Known from the environment, it is kept again.
    std::fs::remove_file(fresh.path(".pve.token"))?;
    let (host, url) = (format!("root@{}", fresh.shell.address()), fresh.lab.url());
    let arguments =
        ["init", "proxmox", &host, "--url", &url, "--host-key", fresh.shell.host_key(), "--env-file", ".env"];
    let known = [("FORGE_SSH_PASSWORD", PASSWORD), ("PROXMOX_TOKEN_SECRET", secret.trim())];
    let done = fresh.forge(&arguments, &known).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(fresh.read(".env").contains(secret.trim()));
    assert_eq!(fresh.lab.access_state(), before);

    // On request it is made anew, with its rights, and the old secret opens nothing.
    std::fs::write(fresh.path(".pve.token"), &secret)?;
    let rotated = fresh.init(&["--rotate-token"]).await;
    assert_eq!(rotated.code, Some(0), "{}", rotated.stderr);
    assert!(rotated.stderr.contains("the token was tried"), "{}", rotated.stderr);
    let new = fresh.read(".pve.token");
    assert_ne!(new, secret);
    assert!(fresh.lab.access_state().contains(new.trim()));
    assert!(!fresh.lab.access_state().contains(secret.trim()));
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_s_site_file_is_kept_and_another_s_target_is_only_replaced_by_force() -> anyhow::Result<()> {
    let fresh = Fresh::new(PveVersion::V9).await?;
    let theirs = "# theirs\n[targets.local]\ntype = \"qemu\"\n";
    std::fs::write(fresh.path("forge.toml"), theirs)?;
    assert_eq!(fresh.init(&[]).await.code, Some(0));
    let both = fresh.read("forge.toml");
    assert!(both.starts_with(theirs) && both.contains("[targets.pve]"), "{both}");

    let other = both.replace("forge@pve!build", "ci@pve!other");
    std::fs::write(fresh.path("forge.toml"), &other)?;
    let before = fresh.lab.access_state();
    let done = fresh.init(&["--user", "new@pve"]).await;
    refused(&done, &["has a target `pve` already", "ci@pve!other", "--force", "[targets.pve]"]);
    assert_eq!((fresh.read("forge.toml"), fresh.lab.access_state()), (other, before));
    let forced = fresh.init(&["--force"]).await;
    assert_eq!(forced.code, Some(0), "{}", forced.stderr);
    assert_eq!(fresh.read("forge.toml"), both);
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_doctor_names_carry_the_role_that_init_made() -> anyhow::Result<()> {
    let fresh = Fresh::new(PveVersion::V9).await?;
    let done = fresh.init(&["--role", "Builders"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(fresh.read("forge.toml").contains("role = \"Builders\"\n"), "{}", fresh.read("forge.toml"));
    fresh.lab.set_token_access("forge@pve!build", &[("/", &["VM.Audit"])]);
    let done = fresh.forge(&["doctor"], &[]).await;
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    let helps: Vec<&str> = done.stdout.lines().filter(|line| line.contains("pveum acl modify")).collect();
    assert!(helps.len() > 10, "{}", done.stdout);
    assert!(helps.iter().all(|help| help.contains("--roles Builders ")), "{}", done.stdout);
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_on_a_virtual_network_are_given_and_named_in_its_own_zone() -> anyhow::Result<()> {
    let config = LabConfig {
        run_guests: false,
        vnets: vec![("lan1".to_owned(), "lab".to_owned())],
        ..LabConfig::default()
    };
    let boot_vm = ImportVm {
        extra: [("net0".to_owned(), "virtio=BC:24:11:00:00:01,bridge=lan1".to_owned())].into(),
        ..ImportVm::default()
    };
    let fresh = Fresh::with(config, root(), boot_vm).await?;
    let done = fresh.init(&["--bridge", "lan1"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("pveum acl modify /sdn/zones/lab/lan1 "), "{}", done.stderr);
    assert!(done.stderr.contains("the token was tried: it may do all of it"), "{}", done.stderr);
    std::fs::write(fresh.path("tiny.toml"), PROFILE)?;
    let done = fresh.forge(&["doctor", "tiny.toml"], &[]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    for words in ["pass  bridge lan1 of pve", "pass  privileges on /sdn/zones/lab/lan1"] {
        assert!(done.stdout.contains(words), "{}", done.stdout);
    }

    // Who may see the network and not use it is told where it is.
    let rest: Vec<&str> = LEAST_PRIVILEGES_PVE9.iter().copied().filter(|each| *each != "SDN.Use").collect();
    fresh.lab.set_token_access("forge@pve!build", &[("/", &[&rest[..], &["SDN.Audit"]].concat())]);
    for command in ["doctor", "plan"] {
        let done = fresh.forge(&[command, "tiny.toml"], &[]).await;
        assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
        let said = done.stdout + &done.stderr;
        assert!(said.contains("lacks SDN.Use on /sdn/zones/lab/lan1 "), "{said}");
        assert!(
            said.contains("pveum acl modify /sdn/zones/lab/lan1 ") && !said.contains("localnetwork"),
            "{said}"
        );
    }
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_file_keeps_its_remarks_its_mode_and_the_file_that_a_link_leads_to() -> anyhow::Result<()> {
    let fresh = Fresh::new(PveVersion::V9).await?;
    let done = fresh.init(&[]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let made = fresh.read("forge.toml");
    assert!(made.contains("\n# vmids = \"9001-9099\"   # "), "{made}");
    let theirs = made.replace("bridge = ", "# rack 3\nbridge = ").replace("forge@pve!build", "ci@pve!other");
    std::fs::create_dir(fresh.path("shared"))?;
    std::fs::write(fresh.path("shared/site.toml"), theirs)?;
    std::fs::set_permissions(fresh.path("shared/site.toml"), std::fs::Permissions::from_mode(0o664))?;
    std::fs::remove_file(fresh.path("forge.toml"))?;
    std::os::unix::fs::symlink("shared/site.toml", fresh.path("forge.toml"))?;
    let done = fresh.init(&["--force", "--vmids", "9101-9199"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains("forge.toml is a link to ") && done.stderr.contains("shared/site.toml"),
        "{}",
        done.stderr
    );
    assert!(fresh.path("forge.toml").is_symlink(), "the link is left");
    assert_eq!(mode(&fresh.path("shared/site.toml")), 0o664);
    let site = fresh.read("shared/site.toml");
    assert!(site.contains("# rack 3\nbridge = ") && site.contains("vmids = \"9101-9199\"\n"), "{site}");
    assert!(site.contains("forge@pve!build") && !site.contains("# vmids"), "{site}");

    // A link that leads nowhere, and one in a secret's place, are told before anything is changed.
    let before = fresh.lab.access_state();
    std::fs::remove_file(fresh.path("shared/site.toml"))?;
    refused(&fresh.init(&[]).await, &["forge.toml is a link to shared/site.toml, and there is no such file"]);
    std::fs::remove_file(fresh.path("forge.toml"))?;
    std::fs::write(fresh.path("other"), "theirs")?;
    std::os::unix::fs::symlink("other", fresh.path(".env"))?;
    let done = fresh.init(&["--env-file", ".env", "--force", "--rotate-token"]).await;
    refused(&done, &[".env is a link to other, and a secret is written through none", "--env-file"]);
    assert_eq!((fresh.read("other").as_str(), fresh.lab.access_state()), ("theirs", before));
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_key_lets_in_where_the_agent_is_gone_or_has_none_that_fits() -> anyhow::Result<()> {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
    let shell =
        ShellConfig { authorized_keys: vec![key.public_key().to_openssh()?], ..ShellConfig::default() };
    let config = LabConfig { run_guests: false, ..LabConfig::default() };
    let fresh = Fresh::with(config, shell, ImportVm::default()).await?;
    std::fs::create_dir(fresh.path(".ssh"))?;
    std::fs::write(fresh.path(".ssh/id_ed25519"), key.to_openssh(LineEnding::LF)?.as_bytes())?;
    let socket = fresh.path("agent").display().to_string();
    let (host, url) = (format!("root@{}", fresh.shell.address()), fresh.lab.url());
    let arguments = ["init", "proxmox", &host, "--url", &url, "--host-key", fresh.shell.host_key()];
    let agent = [("SSH_AUTH_SOCK", socket.as_str())];
    let done = fresh.forge(&arguments, &agent).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    // Without it, what was tried is told.
    std::fs::remove_file(fresh.path(".ssh/id_ed25519"))?;
    refused(&fresh.forge(&arguments, &agent).await, &["refuses the login of `root`", "ssh-agent: "]);
    let password = [agent[0], ("FORGE_SSH_PASSWORD", "another word")];
    refused(&fresh.forge(&arguments, &password).await, &["ssh-agent: ", "password refused"]);
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_init_from_beginning_is_told_and_nothing_is_changed() -> anyhow::Result<()> {
    let fresh = Fresh::new(PveVersion::V9).await?;
    let before = fresh.lab.access_state();
    let (host, url) = (format!("root@{}", fresh.shell.address()), fresh.lab.url());
    let base = ["init", "proxmox", &host, "--url", &url];
    let password = [("FORGE_SSH_PASSWORD", PASSWORD)];

    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let done = fresh.forge(&[&base[..], &["--host-key", other]].concat(), &password).await;
    refused(&done, &["another host key than --host-key says", fresh.shell.host_key()]);
    let done = fresh.forge(&base, &password).await;
    refused(&done, &["nothing is known of 127.0.0.1's host key", "give --host-key", fresh.shell.host_key()]);
    assert_eq!(fresh.shell.lines(), Vec::<String>::new(), "nothing was run there");

    let known = [&base[..], &["--host-key", fresh.shell.host_key()]].concat();
    let done = fresh.forge(&known, &[("FORGE_SSH_PASSWORD", "another word")]).await;
    refused(&done, &["refuses the login of `root`", "password refused", "--ssh-key"]);
    assert!(!done.stderr.contains("another word"), "{}", done.stderr);
    let done = fresh.forge(&known, &[]).await;
    refused(&done, &["neither a key, nor an agent, nor a password"]);

    let done = fresh.init(&["--bridge", "vmbr7"]).await;
    refused(&done, &["there is no bridge `vmbr7`", "there are: vmbr0"]);
    let done = fresh.init(&["--role", "PVEVMUser"]).await;
    refused(&done, &["the role PVEVMUser came with Proxmox VE", "VM.Allocate", "--role"]);
    let pin = "AB:".repeat(31) + "AB";
    let done = fresh.init(&["--url", "https://127.0.0.1:1", "--dry-run"]).await;
    assert_eq!(done.code, Some(2), "one address: {}", done.stderr);
    let done = fresh
        .forge(&["init", "proxmox", "--api", "127.0.0.1", "--url", &url, "--fingerprint", &pin], &[])
        .await;
    refused(&done, &["shows another certificate than --fingerprint says", fresh.lab.fingerprint()]);

    for (config, user, words) in [
        (ShellConfig { user: "ops".into(), ..root() }, "ops", "ops is not root on 127.0.0.1"),
        (
            ShellConfig { proxmox: false, ..root() },
            "root",
            "127.0.0.1 is no Proxmox VE node: it has no pveum and no pvesh",
        ),
    ] {
        let other = fresh.lab.serve_shell(config).await?;
        let host = format!("{user}@{}", other.address());
        let arguments = ["init", "proxmox", &host, "--url", &url, "--host-key", other.host_key()];
        refused(&fresh.forge(&arguments, &password).await, &[words]);
    }
    assert_eq!(fresh.lab.access_state(), before);
    assert!(!fresh.path("forge.toml").exists());
    fresh.lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_api_alone_the_same_is_made_and_by_either_way_it_stays() -> anyhow::Result<()> {
    let (by_api, by_ssh) = (Fresh::new(PveVersion::V9).await?, Fresh::new(PveVersion::V9).await?);
    let url = by_api.lab.url();
    let arguments =
        ["init", "proxmox", "127.0.0.1", "--api", "--url", &url, "--fingerprint", by_api.lab.fingerprint()];
    let password = [("PROXMOX_PASSWORD", PASSWORD)];
    let done = by_api.forge(&arguments, &password).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("the token was tried"), "{}", done.stderr);
    assert!(!by_api.written().iter().any(|(_, text)| text.contains(PASSWORD)));
    assert_eq!(by_ssh.init(&[]).await.code, Some(0));
    let same = |fresh: &Fresh| fresh.lab.access_state().replace(fresh.read(".pve.token").trim(), "<secret>");
    assert_eq!(same(&by_api), same(&by_ssh), "both ways make the same");

    let before = by_api.lab.access_state();
    let again = by_api.forge(&arguments, &password).await;
    assert!(again.stderr.contains("nothing to change"), "{}", again.stderr);
    let other_way = by_api.init(&[]).await;
    assert!(other_way.stderr.contains("nothing to change"), "{}", other_way.stderr);
    assert_eq!(by_api.lab.access_state(), before);
    let wrong = by_api.forge(&arguments, &[("PROXMOX_PASSWORD", "another word")]).await;
    assert_eq!(wrong.code, Some(3), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("authentication failure"), "{}", wrong.stderr);
    by_api.lab.stop().await;
    by_ssh.lab.stop().await;
    Ok(())
}
