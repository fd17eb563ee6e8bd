//! The operations on a folder that stands for a guest's root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::remote::testing::{Faults, LocalGuest, SshServer};
use crate::remote::{BuildKey, WaitInput, wait_for_guest};

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        root.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nforge:x:1000:1000::/home/forge:/bin/bash\n\
                                  ann:x:1001:1001::/home/ann:/bin/bash\nforger:x:1002:1002::/home/forger:/bin/sh\n");
        root.write("etc/shadow", "root:*::\nforge:!::\nann:$6$x::\n");
        root.write(
            "etc/group",
            "sudo:x:27:ann,forge\nadm:x:4:forge,ann\nforge:x:1000:\nx:x:5:forge\ny:x:6:forger\n",
        );
        root
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn program(&self, path: &str, text: &str) {
        self.write(path, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(self.0.path().join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.path().join(path)).ok()
    }

    fn has(&self, path: &str) -> bool {
        self.0.path().join(path).symlink_metadata().is_ok()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn seal(&self, names: &[&str], created: bool) -> Result<Vec<SealResult>, SealError> {
        self.seal_without(&Leaks::default(), names, created).await
    }

    async fn seal_without(
        &self,
        leaks: &Leaks,
        names: &[&str],
        created: bool,
    ) -> Result<Vec<SealResult>, SealError> {
        self.seal_with(leaks, names, created, &[]).await
    }

    async fn seal_with(
        &self,
        leaks: &Leaks,
        names: &[&str],
        created: bool,
        env: &[(&str, &str)],
    ) -> Result<Vec<SealResult>, SealError> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut script = script(&names, "forge", created, leaks).unwrap();
        // The folder must never be empty: the operations would then be carried out on this machine.
        assert!(self.path().is_absolute());
        script.env.insert("FORGE_SEAL_ROOT".into(), self.path().to_str().unwrap().into());
        script.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        script.become_root = Become::No;
        run_script_of(&LocalGuest::default(), &script).await
    }

    async fn one(&self, name: &str, created: bool) -> SealOutcome {
        let mut results = match self.seal(&[name], created).await {
            Ok(results) | Err(SealError::Failed { results }) => results,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(results.len(), 1, "{results:?}");
        results.remove(0).outcome
    }
}

#[tokio::test]
async fn host_keys_are_removed_and_other_ssh_files_stay() {
    let root = Root::new();
    assert!(matches!(root.one("ssh-host-keys", true).await, SealOutcome::Skipped(_)));
    for file in ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "sshd_config"] {
        root.write(&format!("etc/ssh/{file}"), "x");
    }
    let SealOutcome::Done(text) = root.one("ssh-host-keys", true).await else { panic!() };
    assert!(text.contains("nothing known"), "{text}");
    assert!(root.has("etc/ssh/sshd_config") && !root.has("etc/ssh/ssh_host_ed25519_key"));
    root.write("etc/ssh/ssh_host_rsa_key", "x");
    root.program("usr/bin/cloud-init", "true");
    assert_eq!(root.one("ssh-host-keys", true).await, SealOutcome::Done(String::new()));
}

#[tokio::test]
async fn the_machine_id_is_emptied_and_d_bus_follows_it() {
    let root = Root::new();
    root.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    root.write("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n");
    assert_eq!(root.one("machine-id", true).await, SealOutcome::Done(String::new()));
    assert_eq!(root.read("etc/machine-id").unwrap(), "");
    assert_eq!(
        fs::read_link(root.path().join("var/lib/dbus/machine-id")).unwrap(),
        Path::new("/etc/machine-id")
    );
}

#[tokio::test]
async fn cloud_init_is_cleaned_where_it_is_and_its_failure_is_told() {
    let root = Root::new();
    assert!(matches!(root.one("cloud-init", true).await, SealOutcome::Skipped(_)));
    root.program("usr/bin/timeout", "shift; exec \"$@\"");
    root.program("usr/bin/cloud-init", "echo \"$@\" >>\"$FORGE_SEAL_ROOT/called\"; [ \"$1\" = clean ]");
    assert_eq!(root.one("cloud-init", true).await, SealOutcome::Done(String::new()));
    let called = root.read("called").unwrap();
    assert_eq!(called, "status --wait\nclean --logs --seed\n", "whatever its status, it is done then");
    root.program("usr/bin/cloud-init", "echo no space left; exit 1");
    let SealOutcome::Failed(text) = root.one("cloud-init", true).await else { panic!() };
    assert!(text.contains("no space left"), "{text}");
}

#[tokio::test]
async fn caches_histories_leases_and_seeds_are_removed_and_nothing_beside_them() {
    let root = Root::new();
    let gone = [
        ("package-caches", "var/cache/apt/archives/x.deb"),
        ("package-caches", "var/cache/dnf/repo/x"),
        ("shell-history", "home/ann/.bash_history"),
        ("shell-history", "root/.bash_history"),
        ("dhcp-leases", "var/lib/dhcp/dhclient.ens3.leases"),
        ("dhcp-leases", "var/lib/NetworkManager/secret_key"),
        ("random-seed", "var/lib/systemd/random-seed"),
    ];
    let stay = [
        "var/lib/apt/lists/x",
        "var/cache/apt/archives/lock",
        "home/ann/.bashrc",
        "var/lib/dhcp/dhclient.conf",
    ];
    for path in gone.iter().map(|(_, path)| *path).chain(stay) {
        root.write(path, "x");
    }
    for name in ["package-caches", "shell-history", "dhcp-leases", "random-seed"] {
        assert!(matches!(root.one(name, true).await, SealOutcome::Done(_)), "{name}");
        assert!(matches!(root.one(name, true).await, SealOutcome::Skipped(_)), "{name} again");
    }
    assert!(gone.iter().all(|(_, path)| !root.has(path)) && stay.iter().all(|path| root.has(path)));
}

#[tokio::test]
async fn logs_are_emptied_in_place_and_old_ones_and_answers_removed() {
    let root = Root::new();
    for path in [
        "auth.log",
        "wtmp",
        "syslog.1",
        "dpkg.log.2.gz",
        "installer/cdebconf/questions.dat",
        "apt/history log",
    ] {
        root.write(&format!("var/log/{path}"), "secret");
    }
    root.write("root/anaconda-ks.cfg", "rootpw");
    assert_eq!(root.one("logs", true).await, SealOutcome::Done(String::new()));
    for path in ["auth.log", "wtmp", "apt/history log"] {
        assert_eq!(root.read(&format!("var/log/{path}")).unwrap(), "", "{path}");
    }
    for path in ["var/log/syslog.1", "var/log/dpkg.log.2.gz", "var/log/installer", "root/anaconda-ks.cfg"] {
        assert!(!root.has(path), "{path}");
    }
}

fn with_access(root: &Root) {
    let key = BuildKey::generate().unwrap();
    let line = key.public_openssh();
    root.write("home/forge/.ssh/authorized_keys", &format!("{line}\n"));
    root.write("home/ann/.ssh/authorized_keys", &format!("ssh-ed25519 AAAA ann\n{line}\n"));
    root.write("root/.ssh/authorized_keys", &format!("no-pty,command=\"echo no\" {line}\n"));
    root.write(
        "etc/sudoers.d/90-cloud-init-users",
        "# Created by cloud-init\n\nforge ALL=(ALL) NOPASSWD:ALL\n",
    );
    root.write(
        "etc/sudoers.d/team",
        "ann ALL=(ALL) ALL\nforge ALL=(ALL) NOPASSWD:ALL\nforger ALL=(ALL) ALL\n",
    );
    root.write("var/mail/forge", "x");
}

#[tokio::test]
async fn the_build_user_goes_with_everything_of_it_and_others_stay() {
    for with_userdel in [true, false] {
        let root = Root::new();
        with_access(&root);
        if with_userdel {
            root.program(
                "usr/sbin/userdel",
                "echo \"$@\" >\"$FORGE_SEAL_ROOT/called\"; sed -i /^forge:/d \"$FORGE_SEAL_ROOT/etc/passwd\"\n\
                 echo 'userdel: user forge is currently used by process 1' >&2; exit 8",
            );
        }
        assert_eq!(root.one("build-user", true).await, SealOutcome::Done(String::new()));
        let passwd = root.read("etc/passwd").unwrap();
        assert!(
            !passwd.contains("\nforge:") && passwd.contains("forger:") && passwd.contains("ann:"),
            "{passwd}"
        );
        if with_userdel {
            assert_eq!(root.read("called").unwrap(), "-f -r forge\n");
        } else {
            assert_eq!(root.read("etc/shadow").unwrap(), "root:*::\nann:$6$x::\n");
            assert_eq!(root.read("etc/group").unwrap(), "sudo:x:27:ann\nadm:x:4:ann\nx:x:5:\ny:x:6:forger\n");
        }
        for path in
            ["home/forge", "etc/sudoers.d/90-cloud-init-users", "var/mail/forge", "root/.ssh/authorized_keys"]
        {
            assert!(!root.has(path), "{path}");
        }
        assert_eq!(root.read("etc/sudoers.d/team").unwrap(), "ann ALL=(ALL) ALL\nforger ALL=(ALL) ALL\n");
        assert_eq!(root.read("home/ann/.ssh/authorized_keys").unwrap(), "ssh-ed25519 AAAA ann\n");
        assert!(matches!(root.one("build-user", true).await, SealOutcome::Skipped(_)));
    }
}

#[tokio::test]
async fn a_user_from_before_the_build_loses_only_the_key() {
    let root = Root::new();
    with_access(&root);
    assert!(matches!(root.one("build-user", false).await, SealOutcome::Done(_)));
    assert!(root.read("etc/passwd").unwrap().contains("\nforge:") && root.has("home/forge"));
    assert!(!root.has("home/forge/.ssh/authorized_keys") && root.has("etc/sudoers.d/90-cloud-init-users"));
}

#[tokio::test]
async fn after_a_failure_the_access_to_the_guest_is_left_alone() {
    let root = Root::new();
    with_access(&root);
    root.write("etc/ssh/ssh_host_ed25519_key", "x");
    root.program("usr/bin/cloud-init", "exit 1");
    let names = ["build-user", "ssh-host-keys", "cloud-init", "machine-id"];
    let Err(SealError::Failed { results }) = root.seal(&names, true).await else { panic!() };
    let words: Vec<String> = results
        .iter()
        .map(|r| format!("{} {}", r.operation, r.outcome.to_string().split(':').next().unwrap()))
        .collect();
    assert_eq!(
        words,
        ["machine-id skipped", "cloud-init failed", "ssh-host-keys left out", "build-user left out"]
    );
    assert!(root.has("etc/ssh/ssh_host_ed25519_key") && root.has("home/forge"));
}

#[tokio::test]
async fn a_connection_that_is_lost_while_sealing_is_no_success() {
    let server = SshServer::start(Faults { cut_at: Some("op machine-id"), ..Faults::default() }).await;
    let input = WaitInput {
        access: crate::remote::SshAccess::default(),
        source: std::sync::Arc::new(server.address),
        user: "forge".into(),
        key: std::sync::Arc::new(BuildKey::generate().unwrap()),
        host_key: None,
        limit: Duration::from_secs(30),
    };
    let guest = wait_for_guest(input, &|_| {}).await.unwrap();
    let root = Root::new();
    let mut script = script(&["machine-id".into()], "forge", true, &Leaks::default()).unwrap();
    script.env.insert("FORGE_SEAL_ROOT".into(), root.path().to_str().unwrap().into());
    script.become_root = Become::No;
    script.content.extend_from_slice(b"sleep 1\n");
    let error = run_script_of(guest.as_ref(), &script).await.unwrap_err();
    assert!(matches!(error, SealError::CutOff { .. }), "{error}");
}

#[test]
fn a_script_that_was_cut_off_says_how_far_it_came() {
    let told = |results| SealError::CutOff { how: "the guest ended it".into(), results }.to_string();
    assert_eq!(
        told(Vec::new()),
        "sealing was cut off (the guest ended it) before its first operation had ended"
    );
    let logs = SealResult { operation: "logs".into(), outcome: SealOutcome::Done(String::new()) };
    assert_eq!(told(vec![logs]), "sealing was cut off (the guest ended it) after logs");
}

#[test]
fn unknown_operations_and_strange_users_are_refused() {
    let error = script(&["machine-ids".into()], "forge", true, &Leaks::default()).unwrap_err().to_string();
    assert!(error.contains("machine-ids") && error.contains("build-user"), "{error}");
    assert!(matches!(script(&[], "a b", true, &Leaks::default()), Err(SealError::BadUser { .. })));
}

#[test]
fn operations_are_on_unless_switched_off_and_what_ends_the_access_comes_last() {
    assert_eq!(enabled(&BTreeMap::new(), false).len(), OPERATIONS.len());
    let names = enabled(&BTreeMap::from([("logs".to_owned(), false), ("fstrim".to_owned(), true)]), false);
    assert!(!names.contains(&"logs".to_owned()));
    let last = ["ssh-host-keys", "build-user", "leak-gate", "free-space", "fstrim"];
    assert_eq!(&names[names.len() - last.len()..], last);
    for operation in OPERATIONS {
        assert!(
            operation.text.contains(&format!("op_{}()", operation.name.replace('-', "_"))),
            "{}",
            operation.name
        );
    }
}

#[tokio::test]
async fn what_the_build_leaves_of_its_keys_and_secrets_fails_the_seal_and_is_named() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let key = BuildKey::generate().unwrap();
    let secrets = ["correct horse battery".to_owned(), "short".to_owned()];
    let leaks = Leaks::of_build(Some(&key), &secrets, &[], std::time::Duration::ZERO);
    let root = Root::new();
    root.write("etc/motd", "a short text, and battery horses");
    root.write("opt/other.pem", BuildKey::generate().unwrap().private_openssh());
    let clean = root.seal_without(&leaks, &["leak-gate"], true).await.unwrap();
    assert_eq!(clean[0].outcome, SealOutcome::Done(String::new()));

    let encoded = STANDARD.encode("user:correct horse battery\n");
    for (path, text, kind) in [
        ("root/.ssh/authorized_keys", key.public_openssh().to_owned(), "the build's public key"),
        ("opt/it's here/id", key.private_openssh().to_string(), "the build's private key"),
        ("etc/app.conf", "password = correct horse battery\n".to_owned(), "a secret of the build"),
        ("var/lib/app/auth", format!("Basic {encoded}\0\u{1}"), "a secret of the build"),
    ] {
        let root = Root::new();
        root.write(path, &text);
        let Err(error) = root.seal_without(&leaks, &["leak-gate"], true).await else {
            panic!("{path} was not found")
        };
        let told = error.to_string();
        assert!(told.contains(&format!("/{path} holds {kind}")), "{told}");
        assert!(!told.contains("correct horse"), "{told}");
    }
}

fn secrets_of(secrets: &[&str]) -> Leaks {
    let secrets: Vec<String> = secrets.iter().map(|&secret| secret.to_owned()).collect();
    Leaks::of_build(Some(&BuildKey::generate().unwrap()), &secrets, &secrets, std::time::Duration::ZERO)
}

#[tokio::test]
async fn a_secret_that_outlasts_the_build_is_found_while_somebody_can_still_log_in() {
    let names = ["ssh-host-keys", "build-user", "leak-gate"];
    let leaks = secrets_of(&["correct horse battery"]);
    let root = Root::new();
    root.write("etc/ssh/ssh_host_ed25519_key", "a key");
    root.write("home/forge/.token", "correct horse battery");
    root.write("opt/it's one", "correct horse battery");
    root.write("etc/app.conf", "token = correct horse battery\n");
    let Err(error) = root.seal_without(&leaks, &names, true).await else { panic!("it was not found") };
    let found = error.found().expect("that is why");
    assert_eq!(
        (found.operation, found.files),
        ("leak-gate", vec!["/etc/app.conf".into(), "/opt/it's one".into()])
    );
    assert!(root.has("etc/ssh/ssh_host_ed25519_key"), "another login needs it: {error}");
    assert!(root.read("etc/passwd").unwrap().contains("forge:x:1000"), "{error}");
    // What is in the user's home goes with it.
    fs::remove_file(root.path().join("opt/it's one")).unwrap();
    fs::remove_file(root.path().join("etc/app.conf")).unwrap();
    let sealed = root.seal_without(&leaks, &names, true).await.unwrap();
    assert_eq!(sealed.len(), 3, "{sealed:?}");
    assert!(!root.has("etc/ssh/ssh_host_ed25519_key") && !root.has("home/forge"));
}

#[test]
fn operations_are_switched_as_it_is_said_and_in_their_order() {
    let of = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let plan = of(&["logs", "leak-gate"]);
    let switches = |pairs: &[(&str, bool)]| pairs.iter().map(|&(name, on)| (name.to_owned(), on)).collect();
    assert_eq!(switched(&plan, &switches(&[]), false), Ok(plan.clone()));
    let changed = switches(&[("leak-gate", false), ("machine-id", true)]);
    assert_eq!(switched(&plan, &changed, false), Ok(of(&["machine-id", "logs"])));
    assert_eq!(switched(&plan, &switches(&[("leak-gates", false)]), false), Err("leak-gates".into()));
}

#[tokio::test]
async fn the_hash_of_a_password_of_the_build_in_shadow_fails_the_seal() {
    let hash = "$6$rounds=5000$saltsalt$0123456789abcdefghijklmnopqrstuv";
    let root = Root::new();
    root.write("etc/shadow", &format!("root:{hash}:19000::\n"));
    let Err(error) = root.seal_without(&secrets_of(&[hash]), &["leak-gate"], true).await else {
        panic!("it was not found")
    };
    assert!(error.to_string().contains("/etc/shadow holds a secret of the build"), "{error}");
}

#[tokio::test]
async fn a_search_that_finds_nothing_because_it_can_not_search_fails_the_seal() {
    let leaks = secrets_of(&["correct horse battery"]);
    let root = Root::new();
    let tools = tempfile::tempdir().unwrap();
    let grep = tools.path().join("grep");
    for (how, text) in [
        ("it can't", "echo 'grep: memory exhausted' >&2; exit 2"),
        ("it finds nothing", "exit 1"),
        // The first of its words is `-lF`.
        (
            "it reads half",
            "case $1 in -lF) echo 'grep: x: Input/output error' >&2 ;; esac; exec /bin/grep \"$@\"",
        ),
    ] {
        fs::write(&grep, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&grep, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
        let results = root.seal_with(&leaks, &["leak-gate"], true, &[("PATH", &path)]).await;
        let Err(error) = results else { panic!("{how}: nothing was told") };
        let told = error.to_string();
        let expected =
            if how == "it reads half" { "not every file can be read" } else { "does not find what is there" };
        assert!(told.contains(expected), "{how}: {told}");
        let left: Vec<_> =
            fs::read_dir(root.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("canary")), "{left:?}");
    }
}

#[tokio::test]
async fn the_search_goes_back_more_than_a_day_and_looks_at_all_files_where_the_clock_is_another_one() {
    let leaks = secrets_of(&["correct horse battery"]);
    let root = Root::new();
    root.write("opt/early", "correct horse battery");
    let tools = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| {
        fs::write(tools.path().join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(tools.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("find", "echo \"$@\" >>\"$FORGE_SEAL_ROOT.asked\"; exec /usr/bin/find \"$@\"");
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let asked = || fs::read_to_string(format!("{}.asked", root.path().display())).unwrap_or_default();
    for (date, window) in [("exec /bin/date \"$@\"", true), ("echo 1000000000", false)] {
        program("date", date);
        _ = fs::remove_file(format!("{}.asked", root.path().display()));
        let results = root.seal_with(&leaks, &["leak-gate"], true, &[("PATH", &path)]).await;
        assert!(results.unwrap_err().to_string().contains("/opt/early holds"));
        let asked = asked();
        let minutes = asked.lines().last().unwrap().split("-cmin -").nth(1);
        let minutes = minutes.and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        assert_eq!(minutes.is_some_and(|minutes| minutes > 24 * 60), window, "{asked}");
    }
    _ = fs::remove_file(format!("{}.asked", root.path().display()));
}

/// A folder with a file beside it that stands for its disk: `sync` writes all files to it, and what was once there stays
/// until free space is overwritten.
struct Disk(Root);

impl Disk {
    fn new() -> Self {
        let root = Root::new();
        root.program(
            "usr/bin/sync",
            "cd \"$FORGE_SEAL_ROOT\"\nif ls .forge-zeros-* >/dev/null 2>&1; then : >\"$FORGE_SEAL_ROOT.disk\"; fi\n\
             find . -type f ! -path './usr/*' -exec cat {} + >>\"$FORGE_SEAL_ROOT.disk\"",
        );
        root.program("usr/bin/dd", "for word; do case $word in of=*) : >\"${word#of=}\" ;; esac; done");
        Self(root)
    }

    fn path(&self) -> std::path::PathBuf {
        format!("{}.disk", self.0.path().display()).into()
    }

    async fn seal(&self, leaks: &Leaks) -> Result<String, String> {
        let results = self.0.seal_without(leaks, &["leak-gate", "free-space"], true).await;
        results.map(|results| results[1].outcome.to_string()).map_err(|error| error.to_string())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = fs::remove_file(self.path());
    }
}

#[tokio::test]
async fn a_secret_that_was_removed_is_overwritten_where_it_still_stands_on_the_disk() {
    let leaks = secrets_of(&["correct horse battery"]);
    let disk = Disk::new();
    fs::write(disk.path(), "nothing of the build\n\0\0\u{1}").unwrap();
    assert_eq!(disk.seal(&leaks).await.unwrap(), "done");
    let utf16: Vec<u8> = "correct horse battery".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for free in [b"x correct horse battery".as_slice(), &utf16] {
        fs::write(disk.path(), [&[0; 5000], free, &[0xff; 5000]].concat()).unwrap();
        assert!(disk.seal(&leaks).await.unwrap().contains("overwritten"));
        let now = fs::read(disk.path()).unwrap();
        assert!(!now.windows(free.len()).any(|bytes| bytes == free));
    }
    // In a file it is named, whatever it is written in.
    fs::create_dir_all(disk.0.path().join("opt")).unwrap();
    fs::write(disk.0.path().join("opt/wide"), &utf16).unwrap();
    let told = disk.seal(&leaks).await.unwrap_err();
    assert!(told.contains("free-space: a secret of the build is in /opt/wide"), "{told}");
}

#[tokio::test]
async fn what_no_zeros_reach_and_a_disk_that_can_not_be_searched_fail_the_seal() {
    let leaks = secrets_of(&["correct horse battery"]);
    let disk = Disk::new();
    // A disk that keeps what is overwritten.
    disk.0.program("usr/bin/dd", "true");
    fs::write(disk.path(), "correct horse battery").unwrap();
    let told = disk.seal(&leaks).await.unwrap_err();
    assert!(told.contains("outside of all files") && told.contains("holds a secret of the build"), "{told}");
    disk.0.program("usr/bin/sync", "true");
    fs::write(disk.path(), "").unwrap();
    let told = disk.seal(&leaks).await.unwrap_err();
    assert!(told.contains("does not find what is there"), "{told}");
    _ = fs::remove_file(disk.path());
    let told = disk.seal(&leaks).await.unwrap_err();
    assert!(told.contains("can't be read to its end"), "{told}");
}

#[tokio::test]
async fn disks_are_not_read_for_a_build_without_a_secret_that_outlasts_it() {
    let disk = Disk::new();
    let key = BuildKey::generate().unwrap();
    let passing = ["the password of one build".to_owned()];
    let leaks = Leaks::of_build(Some(&key), &passing, &[], std::time::Duration::ZERO);
    assert!(disk.seal(&leaks).await.unwrap().contains("no secret that outlasts the build"));
    assert!(leaks.on_disk().iter().all(|each| each.kind == "the build's private key"));
}

#[tokio::test]
async fn what_cut_off_scripts_and_lost_connections_left_is_removed_and_nothing_beside_it() {
    let root = Root::new();
    assert!(matches!(root.one("temporary-files", true).await, SealOutcome::Skipped(_)));
    let gone =
        ["tmp/forge-aBcDeFgH12/run", "var/tmp/forge-0123456789/script", "var/tmp/forge-agent-00ff/3.out"];
    let stay = ["tmp/forge-notes.txt", "tmp/other/run", "var/tmp/forge-something-longer/x"];
    for path in gone.iter().chain(&stay) {
        root.write(path, "a secret");
    }
    assert_eq!(root.one("temporary-files", true).await, SealOutcome::Done(String::new()));
    assert!(gone.iter().all(|path| !root.has(path)) && stay.iter().all(|path| root.has(path)));
}

#[tokio::test]
async fn host_keys_and_instance_data_that_are_still_there_fail_the_seal_that_was_to_remove_them() {
    let root = Root::new();
    root.program("usr/bin/cloud-init", "true");
    root.write("var/lib/cloud/instances/i-1/user-data.txt", "x");
    // A `cloud-init clean` that cleans nothing.
    let Err(error) = root.seal(&["leak-gate", "cloud-init"], true).await else { panic!("nothing was found") };
    assert!(error.to_string().contains("/var/lib/cloud/instances/i-1 is of this instance"), "{error}");
    root.write("etc/ssh/ssh_host_rsa_key", "x");
    assert!(root.seal(&["leak-gate"], true).await.is_ok(), "they are to stay when nothing is to remove them");
}

#[test]
fn a_dry_run_comes_to_no_operation_before_it_stands_on_the_copy() {
    let names: Vec<String> = OPERATIONS.iter().map(|operation| operation.name.to_owned()).collect();
    let script = dry_script(&names, "forge", true, &Leaks::default()).unwrap();
    let text = String::from_utf8(script.content).unwrap();
    let guard = text.find("\n[ -d \"$DRY/upper\" ] && [ ! -e \"$DRY/root\" ] || exit 1\n").unwrap();
    let first = text.find("\nrun_op ").unwrap();
    assert!(guard < first, "the guard stands before the first operation");
    assert!(text.rfind("\nrun_op() {").unwrap() < guard, "and its own way of running them too");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script");
    fs::write(&file, text).unwrap();
    // Nothing but the way into the copy is known to the outside.
    let output = std::process::Command::new("/bin/sh").arg("-n").arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = std::process::Command::new("/bin/sh").arg(&file).arg("inside-out").output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}
