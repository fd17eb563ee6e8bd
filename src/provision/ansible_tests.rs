//! The real `ansible-playbook` against Debian's OpenSSH, which lets it into an account of this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::remote::sshd_tests::{KEYS_ONLY, Site, key_file, works};
use crate::remote::testing::LocalGuest;

#[derive(Default)]
struct Lines(Vec<String>);

impl OutputObserver for Lines {
    fn line(&mut self, line: &str, _stderr: bool) {
        self.0.push(line.to_owned());
    }
}

/// A playbook with a role, two tags and a vault, in a folder.
fn playbook(site: &Site) {
    for folder in ["book/roles/app/tasks", "guest"] {
        std::fs::create_dir_all(site.path(folder)).unwrap();
    }
    let guest = site.text("guest");
    site.write(
        "book/site.yml",
        &format!(
            "- hosts: web\n  gather_facts: false\n  vars_files: [vault.yml]\n  roles:\n    - {{ role: app, tags: [app] }}\n  tasks:\n\
             \x20   - copy: {{ content: '{{{{ word }}}}', dest: {guest}/word }}\n      tags: [word]\n"
        ),
    );
    site.write(
        "book/roles/app/tasks/main.yml",
        &format!("- copy: {{ content: '{{{{ forge_profile }}}} as {{{{ inventory_hostname }}}}', dest: {guest}/app }}\n"),
    );
    site.write("book/vault.yml", "word: from the vault\n");
    site.write("vault-password", "open sesame\n");
    let mut vault = Command::new("ansible-vault");
    vault.args([
        "encrypt",
        "--vault-password-file",
        &site.text("vault-password"),
        &site.text("book/vault.yml"),
    ]);
    let output = vault.env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

async fn go(
    guest: &dyn Guest,
    key: &Path,
    work: AnsibleWork,
) -> (Result<StepOutcome, ProvisionError>, String) {
    let env = BTreeMap::from([("FORGE_PROFILE".to_owned(), "debian-12".to_owned())]);
    let around = Around { guest, env: &env, key_file: Some(key), interactive: false };
    let dir = work.playbook.parent().unwrap().to_owned();
    let step = LocalStep {
        what: LocalWork::Ansible(work),
        env: BTreeMap::new(),
        valid_exit_codes: vec![0],
        timeout: None,
        dir,
    };
    let mut lines = Lines::default();
    let result = perform(&around, &Step::new("ansible", Action::Local(step)), &mut lines).await;
    (result, lines.0.join("\n"))
}

#[tokio::test]
async fn ansible_runs_roles_tags_and_a_vault_in_the_guest_and_finds_nothing_to_change_the_second_time() {
    let Some(site) = Site::new() else { return };
    if Command::new("ansible-playbook").arg("--version").output().is_err() {
        eprintln!("skipped: ansible-playbook is not there");
        return;
    }
    playbook(&site);
    let server = site.serve(KEYS_ONLY).await;
    let guest = works(&server, &key_file(site.path("user"))).await;
    let work = AnsibleWork {
        playbook: site.path("book/site.yml"),
        host_alias: "default".into(),
        groups: vec!["web".into()],
        extra_arguments: vec!["--tags".into(), "app".into()],
        galaxy_file: None,
        roles_path: None,
        collections_path: None,
        vault_password_file: Some(site.path("vault-password")),
        playbook_dir: None,
        become_root: false,
    };
    let (result, said) = go(guest.as_ref(), &site.path("user"), work.clone()).await;
    result.unwrap_or_else(|error| panic!("{error}\n{said}\n{}", server.log()));
    assert_eq!(std::fs::read_to_string(site.path("guest/app")).unwrap(), "debian-12 as default");
    assert!(!site.path("guest/word").exists(), "{said}");
    assert!(said.contains("changed=1"), "{said}");

    let all = AnsibleWork { extra_arguments: Vec::new(), ..work.clone() };
    let (result, said) = go(guest.as_ref(), &site.path("user"), all.clone()).await;
    result.unwrap();
    assert_eq!(std::fs::read_to_string(site.path("guest/word")).unwrap(), "from the vault");
    assert!(said.contains("changed=1"), "{said}");
    let (result, said) = go(guest.as_ref(), &site.path("user"), all).await;
    result.unwrap();
    assert!(said.contains("ok=2") && said.contains("changed=0"), "{said}");

    // Another machine at the guest's address gets neither the key nor the play.
    let other = site.serve(&format!("{KEYS_ONLY}HostKey {}\n", site.text("host-rsa"))).await;
    let stranger = Moved { guest: guest.clone(), address: other.address };
    let (result, said) = go(&stranger, &site.path("user"), work).await;
    assert!(result.unwrap_err().to_string().contains("exited with status 4"), "{said}");
    assert!(said.contains("UNREACHABLE") && said.contains("Host key verification failed"), "{said}");
}

#[tokio::test]
async fn ansible_runs_in_the_guest_itself_and_leaves_nothing_there_but_its_work() {
    let Some(site) = Site::new() else { return };
    if Command::new("ansible-playbook").arg("--version").output().is_err() {
        eprintln!("skipped: ansible-playbook is not there");
        return;
    }
    playbook(&site);
    let guest = LocalGuest::default();
    let work = AnsibleWork {
        playbook: site.path("book/site.yml"),
        host_alias: "here".into(),
        groups: vec!["web".into()],
        extra_arguments: vec!["--tags".into(), "app".into()],
        galaxy_file: None,
        roles_path: Some(site.path("book/roles")),
        collections_path: None,
        vault_password_file: Some(site.path("vault-password")),
        playbook_dir: None,
        become_root: false,
    };
    let env = BTreeMap::from([("FORGE_PROFILE".to_owned(), "debian-12".to_owned())]);
    let go = async |work: AnsibleWork| {
        let action =
            Action::AnsibleLocal { work, script: ShellStep::inline("ansible", Vec::<String>::new()) };
        let around = Around { guest: &guest, env: &env, key_file: None, interactive: false };
        let mut lines = Lines::default();
        let result = perform(&around, &Step::new("ansible", action), &mut lines).await;
        (result, lines.0.join("\n"))
    };
    // The playbook alone lacks the vault beside it, and says so.
    let (result, said) = go(work.clone()).await;
    assert!(result.is_err() && said.contains("vault.yml"), "{said}");
    let whole = AnsibleWork { playbook_dir: Some(site.path("book")), ..work };
    let (result, said) = go(whole.clone()).await;
    result.unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert_eq!(std::fs::read_to_string(site.path("guest/app")).unwrap(), "debian-12 as here");
    assert!(!site.path("guest/word").exists() && said.contains("changed=1"), "{said}");
    let all = AnsibleWork { extra_arguments: Vec::new(), ..whole };
    let (result, said) = go(all.clone()).await;
    result.unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert_eq!(std::fs::read_to_string(site.path("guest/word")).unwrap(), "from the vault");
    let (result, said) = go(all).await;
    result.unwrap();
    assert!(said.contains("ok=2") && said.contains("changed=0"), "{said}");
    assert_eq!(guest.left(), Vec::<String>::new(), "the files are gone again");
}

/// A role and a collection as archives, and a file that asks for them; nothing comes over a network.
fn requirements(site: &Site) {
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(site.path(name).parent().unwrap()).unwrap();
        site.write(name, text);
    };
    write("galaxy/roles/greet/tasks/main.yml", "- debug: { msg: 'greetings of the role' }\n");
    write(
        "galaxy/roles/greet/meta/main.yml",
        "galaxy_info: { author: us, description: x, license: MIT, min_ansible_version: '2.9' }\ndependencies: []\n",
    );
    write(
        "galaxy/collection/galaxy.yml",
        "namespace: us\nname: tools\nversion: 1.0.0\nreadme: README.md\nauthors: [us]\n",
    );
    write("galaxy/collection/README.md", "ours\n");
    write("galaxy/collection/roles/wave/tasks/main.yml", "- debug: { msg: 'a wave of the collection' }\n");
    for line in [
        "tar -czf greet.tar.gz -C galaxy/roles greet",
        "ansible-galaxy collection build galaxy/collection --output-path . >/dev/null",
    ] {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(site.path(""))
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", site.path(""));
        assert!(command.status().unwrap().success(), "{line}");
    }
    let (role, collection) = (site.text("greet.tar.gz"), site.text("us-tools-1.0.0.tar.gz"));
    let roles = format!("- {{ name: greet, src: 'file://{role}' }}\n");
    let both = format!("roles:\n  {roles}collections:\n  - {{ name: '{collection}', type: file }}\n");
    write("both.yml", &both);
    write("roles.yml", &roles);
    let play = "- hosts: all\n  gather_facts: false\n  roles:\n    - greet\n";
    write("greet.yml", play);
    write("wave.yml", &format!("{play}    - us.tools.wave\n"));
}

#[tokio::test]
async fn roles_and_collections_are_installed_from_archives_without_a_network() {
    let Some(site) = Site::new() else { return };
    if Command::new("ansible-galaxy").arg("--version").output().is_err() {
        eprintln!("skipped: ansible-galaxy is not there");
        return;
    }
    requirements(&site);
    let server = site.serve(KEYS_ONLY).await;
    let guest = works(&server, &key_file(site.path("user"))).await;
    let work = AnsibleWork {
        playbook: site.path("greet.yml"),
        host_alias: "default".into(),
        groups: vec![],
        extra_arguments: vec![],
        galaxy_file: Some(site.path("roles.yml")),
        roles_path: Some(site.path("to/roles")),
        collections_path: Some(site.path("to/collections")),
        vault_password_file: None,
        playbook_dir: None,
        become_root: false,
    };
    // The older form: a list of roles, which has no collections.
    let (result, said) = go(guest.as_ref(), &site.path("user"), work.clone()).await;
    result.unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert!(said.contains("greetings of the role"), "{said}");
    assert!(
        site.path("to/roles/greet/tasks/main.yml").exists() && !site.path("to/collections").exists(),
        "{said}"
    );
    let both =
        AnsibleWork { galaxy_file: Some(site.path("both.yml")), playbook: site.path("wave.yml"), ..work };
    let (result, said) = go(guest.as_ref(), &site.path("user"), both.clone()).await;
    result.unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert!(said.contains("greetings of the role") && said.contains("a wave of the collection"), "{said}");
    // The same in the guest itself.
    let local = LocalGuest::default();
    let env = BTreeMap::new();
    let script = ShellStep::inline("ansible", Vec::<String>::new());
    let inside = AnsibleWork { roles_path: None, collections_path: None, ..both };
    let around = Around { guest: &local, env: &env, key_file: None, interactive: false };
    let mut lines = Lines::default();
    let step = Step::new("ansible", Action::AnsibleLocal { work: inside.clone(), script: script.clone() });
    let result = perform(&around, &step, &mut lines).await;
    result.unwrap_or_else(|error| panic!("{error}\n{}", lines.0.join("\n")));
    let said = lines.0.join("\n");
    assert!(said.contains("greetings of the role") && said.contains("a wave of the collection"), "{said}");
    // A file that is not there is told by its name.
    let gone = AnsibleWork { galaxy_file: Some(site.path("gone.yml")), ..inside };
    let step = Step::new("ansible", Action::AnsibleLocal { work: gone, script });
    let told = perform(&around, &step, &mut Lines::default()).await.unwrap_err();
    assert!(
        crate::engine::error::chain(&told).contains("gone.yml")
            && crate::engine::error::chain(&told).contains("No such file"),
        "{}",
        crate::engine::error::chain(&told)
    );
}

/// A guest in whose place another machine answers.
#[derive(Debug)]
struct Moved {
    guest: std::sync::Arc<crate::remote::SshGuest>,
    address: std::net::SocketAddr,
}

#[async_trait::async_trait]
impl Guest for Moved {
    fn describe(&self) -> String {
        format!("forge@{}", self.address)
    }

    fn host_key(&self) -> Option<String> {
        self.guest.host_key()
    }

    fn host_public_key(&self) -> Option<String> {
        self.guest.host_public_key()
    }

    async fn exec(
        &self,
        command: &forge_machine::Command,
        output: &mut dyn forge_machine::OutputSink,
    ) -> Result<ExecOutcome, GuestError> {
        self.guest.exec(command, output).await
    }

    async fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<(), GuestError> {
        self.guest.put(path, content, mode).await
    }

    async fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
        self.guest.get(path, limit).await
    }

    async fn reconnect(&self, limit: Duration) -> Result<(), GuestError> {
        self.guest.reconnect(limit).await
    }

    async fn close(&self) {}
}
