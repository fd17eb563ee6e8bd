//! The ladder of ways by which a seed reaches its guest: which is taken on what, and what the plan says of the others.

use forge_machine::facts::{Facts, SourceFacts};
use forge_machine::{Capabilities, CloudInitDrive, MachineSpec, Nonce, SourceSpec, VmRef};
use jiff::Timestamp;

use super::make::Input;
use super::{Delivery, Moment, seeding};
use crate::config::profile::Profile;
use crate::config::variables::Given;
use crate::config::{Site, SiteSearch, load_profile, load_site};

/// What a target and a source are, in the points on which the ladder depends.
#[derive(Clone, Copy)]
struct Ground {
    /// The backend has a cloud-init drive of its own.
    drive: bool,
    /// The VM has one.
    has_drive: bool,
    smbios: bool,
    /// The token may not set the serial number.
    denied: bool,
    kernel: bool,
    disc: bool,
    /// Why there can be no disc here.
    no_disc: Option<&'static str>,
}

/// Proxmox VE, with a boot VM that has a drive.
const PROXMOX: Ground = Ground {
    drive: true,
    has_drive: true,
    smbios: true,
    denied: false,
    kernel: false,
    disc: true,
    no_disc: None,
};
/// Local QEMU.
const QEMU: Ground = Ground { drive: false, has_drive: false, kernel: true, ..PROXMOX };

fn site(folder: &std::path::Path) -> Site {
    let file = folder.join("forge.toml");
    std::fs::write(&file, "[targets.t]\ntype = \"qemu\"\nimages = \"images\"\n").expect("written");
    load_site(&SiteSearch { config: Some(file), ..SiteSearch::default() }).0
}

fn profile(folder: &std::path::Path, more: &str) -> Profile {
    let file = folder.join("x.toml");
    let source = if more.contains("[source]") { "" } else { "source = { clone = \"boot-vm\" }\n" };
    std::fs::write(&file, format!("schema = 1\nname = \"x\"\n{source}{more}\n")).expect("written");
    let (profile, findings) = load_profile(&file, &Given::default());
    profile.unwrap_or_else(|| panic!("{findings:?}"))
}

/// The way, with what the plan says of it, or what is wrong.
fn taken(ground: Ground, more: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let (site, profile) = (site(folder.path()), profile(folder.path(), more));
    let capabilities = Capabilities {
        name: if ground.drive { "Proxmox VE" } else { "QEMU" },
        clones: true,
        images: true,
        isos: true,
        new_disks: true,
        kernel_boot: ground.kernel,
        cloud_init_drive: ground.drive,
        smbios_serial: ground.smbios,
        seed_disc: ground.disc,
        boot_disc: ground.drive,
        floppy: !ground.drive,
        serial: false,
        templates: ground.drive,
        files: !ground.drive,
        host_address: None,
    };
    let source = SourceFacts {
        vm: VmRef::new("9000", "pve"),
        name: "boot-vm".into(),
        template: false,
        running: false,
        disks: Vec::new(),
        cloud_init: None,
        agent: true,
        networks: Vec::new(),
        memory_mib: 0,
        cores: 0,
    };
    let facts = Facts {
        product: "a test 1".into(),
        notes: Vec::new(),
        nodes: Vec::new(),
        placed: None,
        source: Some(source.clone()),
        storages: Vec::new(),
        bridges: None,
        endpoint: None,
        no_seed_disc: ground.no_disc.map(str::to_owned),
    };
    let moment = Moment {
        now: Timestamp::UNIX_EPOCH,
        build_number: "001".into(),
        owner: "test@here".into(),
        nonce: Nonce::from_bytes([1; 8]),
        evidence_root: folder.path().into(),
    };
    let denied = "the token lacks VM.Config.HWType on /vms: it can't set the SMBIOS serial";
    let input = Input {
        target: site.target(None).expect("one target"),
        capabilities: &capabilities,
        facts: &facts,
        findings: ground
            .denied
            .then(|| forge_machine::Finding::warning("", denied, ""))
            .into_iter()
            .collect(),
        moment: &moment,
    };
    let mut machine = MachineSpec::new(SourceSpec::New, "pve");
    machine.cloud_init = ground.has_drive.then(|| CloudInitDrive {
        slot: "ide2".into(),
        storage: "local".into(),
        inherited: true,
    });
    let mut findings = Vec::new();
    let plan = seeding::seed(&profile, &input, &machine, &source, &mut findings);
    match findings.iter().find(|found| found.fatal) {
        Some(found) => {
            assert_eq!(plan.delivery, Delivery::None, "{found}");
            format!("wrong: {}", found.help.as_deref().unwrap_or_default())
        }
        None => {
            let warned: String = findings.iter().map(|found| format!(", but {}", found.message)).collect();
            format!("{}: {}{warned}", plan.delivery.name(), plan.why)
        }
    }
}

/// Answers of an installer, which a rung may or may not carry.
fn answers(kind: &str, distribution: &str, version: &str, delivery: &str) -> String {
    let mirror = if kind == "preseed" { "vars = { mirror = \"http://m.example.org/debian\" }\n" } else { "" };
    let windows = if kind == "autounattend" {
        "vars = { image-name = \"x\", locale = \"en-US\", keyboard = \"0409:00000409\" }\n"
    } else {
        ""
    };
    format!(
        "[os]\nfamily = \"{}\"\ndistribution = \"{distribution}\"\nversion = \"{version}\"\n\
         [seed]\nkind = \"{kind}\"\ndelivery = [{delivery}]\n{mirror}{windows}",
        if windows.is_empty() { "linux" } else { "windows" }
    )
}

const TYPES: &str = "[boot]\nsteps = [{ type = \"x {{ seed.arguments }}\" }]\n";
const KERNEL: &str = "[source]\nkernel = \"vmlinuz\"\ncmdline = \"{{ seed.arguments }}\"\n";

#[test]
fn each_way_is_taken_or_refused_with_its_reason() {
    let none = Ground { has_drive: false, ..PROXMOX };
    let denied = Ground { denied: true, ..none };
    let full = Ground { no_disc: Some("no storage takes ISOs"), ..denied };
    let bare = Ground { smbios: false, disc: false, kernel: false, ..QEMU };
    let user_data = "[seed.user-data]\nruncmd = [\"true\"]\n";
    let own_user = "[access]\nuser = \"root\"\nagent-auth = true\n";
    let every = "\"cloud-init-drive\", \"smbios\", \"kernel\", \"disc\", \"floppy\", \"typed\", \"none\"";
    let told = [
        ("drive", taken(PROXMOX, "")),
        ("no drive", taken(none, "")),
        ("more than a user", taken(PROXMOX, user_data)),
        ("the user is there", taken(PROXMOX, own_user)),
        ("a host key from the seed", taken(PROXMOX, "[access]\nhost-key = \"seed\"\n")),
        ("QEMU", taken(QEMU, "")),
        ("the serial is denied", taken(denied, "")),
        ("no disc either", taken(full, "")),
        (
            "typed where nothing is better",
            taken(full, &format!("[seed]\ndelivery = [\"smbios\", \"disc\", \"typed\"]\n{TYPES}")),
        ),
        ("boot steps that type", taken(PROXMOX, TYPES)),
        ("nothing at all", taken(bare, &format!("[seed]\ndelivery = [{every}]\n"))),
        (
            "nothing is allowed",
            taken(bare, "[seed]\ndelivery = [\"smbios\", \"kernel\", \"disc\", \"typed\"]\n"),
        ),
        ("a kernel", taken(QEMU, KERNEL)),
        (
            "a kernel where none is started",
            taken(PROXMOX, &format!("{KERNEL}[seed]\ndelivery = [\"kernel\", \"smbios\"]\n")),
        ),
        (
            "a kernel that is told nothing",
            taken(
                QEMU,
                &format!(
                    "{}[seed]\ndelivery = [\"kernel\", \"disc\"]\n",
                    KERNEL.replace("{{ seed.arguments }}", "quiet")
                ),
            ),
        ),
        (
            "Subiquity",
            taken(PROXMOX, &answers("autoinstall", "ubuntu", "24.04", "\"cloud-init-drive\", \"smbios\"")),
        ),
        (
            "Anaconda",
            taken(PROXMOX, &answers("kickstart", "rocky", "9", "\"cloud-init-drive\", \"smbios\", \"disc\"")),
        ),
        (
            "Anaconda in FIPS mode",
            taken(
                PROXMOX,
                &format!(
                    "{}vars = {{ fips = true }}\n{TYPES}",
                    answers("kickstart", "rocky", "10", "\"disc\", \"typed\"")
                ),
            ),
        ),
        (
            "the Debian installer",
            taken(PROXMOX, &format!("{}{TYPES}", answers("preseed", "debian", "12", "\"disc\", \"typed\""))),
        ),
        ("Windows", taken(none, &answers("autounattend", "windows", "2022", "\"disc\", \"floppy\""))),
        (
            "Windows by floppy",
            taken(bare, &answers("autounattend", "windows", "2022", "\"disc\", \"floppy\"")),
        ),
        (
            "Windows by floppy where there is none",
            taken(none, &answers("autounattend", "windows", "2022", "\"floppy\"")),
        ),
    ];
    let told: Vec<String> = told.iter().map(|(case, told)| format!("{case}: {told}")).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    drive: cloud-init-drive: the VM has a cloud-init drive: no HTTP and no typing
    no drive: smbios: the SMBIOS serial carries the NoCloud address: no typing (not cloud-init-drive: boot-vm has no cloud-init drive, and the profile adds none)
    more than a user: smbios: the SMBIOS serial carries the NoCloud address: no typing (not cloud-init-drive: the drive carries a user and a key, and the profile gives more user-data)
    the user is there: smbios: the SMBIOS serial carries the NoCloud address: no typing (not cloud-init-drive: the drive makes the user, and the profile has one already (`access.create = false`))
    a host key from the seed: smbios: the SMBIOS serial carries the NoCloud address: no typing (not cloud-init-drive: the drive has no place for a host key (`access.host-key = "seed"`))
    QEMU: smbios: the SMBIOS serial carries the NoCloud address: no typing (not cloud-init-drive: QEMU has no cloud-init drive)
    the serial is denied: disc: a disc holds the seed: no network and no typing (not cloud-init-drive: boot-vm has no cloud-init drive, and the profile adds none; not smbios: the token lacks VM.Config.HWType on /vms: it can't set the SMBIOS serial)
    no disc either: wrong: cloud-init-drive: boot-vm has no cloud-init drive, and the profile adds none; smbios: the token lacks VM.Config.HWType on /vms: it can't set the SMBIOS serial; disc: no storage takes ISOs; typed: no boot step types `{{ seed.url }}`
    typed where nothing is better: typed: the boot steps type the NoCloud address (not smbios: the token lacks VM.Config.HWType on /vms: it can't set the SMBIOS serial; not disc: no storage takes ISOs)
    boot steps that type: typed: the boot steps type the NoCloud address
    nothing at all: none: the source has its own user and key (not cloud-init-drive: QEMU has no cloud-init drive; not smbios: QEMU can't set the SMBIOS serial; not kernel: QEMU starts no kernel without a boot loader; not disc: QEMU can't be given a disc by this version; not floppy: nothing looks for this seed on a floppy; not typed: no boot step types `{{ seed.url }}`)
    nothing is allowed: wrong: smbios: QEMU can't set the SMBIOS serial; kernel: QEMU starts no kernel without a boot loader; disc: QEMU can't be given a disc by this version; typed: no boot step types `{{ seed.url }}`
    a kernel: kernel: the kernel is started with the address of its answers: no typing
    a kernel where none is started: smbios: the SMBIOS serial carries the NoCloud address: no typing (not kernel: Proxmox VE starts no kernel without a boot loader)
    a kernel that is told nothing: disc: a disc holds the seed: no network and no typing (not kernel: no `source.cmdline` with `{{ seed.url }}`)
    Subiquity: smbios: the SMBIOS serial carries the NoCloud address: no typing (not cloud-init-drive: an installer does not read its answers from there)
    Anaconda: disc: a disc holds the seed: no network and no typing (not cloud-init-drive: an installer does not read its answers from there; not smbios: an installer does not read its answers from there)
    Anaconda in FIPS mode: typed: the boot steps type the NoCloud address (not disc: the installer's kernel must be told `fips=1`, which no disc does)
    the Debian installer: typed: the boot steps type the NoCloud address (not disc: the installer looks for its answers on no disc)
    Windows: disc: a disc holds the seed: no network and no typing
    Windows by floppy: floppy: a floppy holds the seed: no network and no typing (not disc: QEMU can't be given a disc by this version)
    Windows by floppy where there is none: wrong: floppy: Proxmox VE gives a VM no floppy drive
    "#);
}

#[test]
fn a_network_configuration_goes_where_every_cloud_init_reads_it_or_the_plan_warns() {
    let fixed = "[seed.vars]\naddress = \"192.0.2.9/24\"\ngateway = \"192.0.2.1\"\ninterface = \"eth0\"\n";
    let full = Ground { no_disc: Some("no storage takes ISOs"), has_drive: false, ..PROXMOX };
    let by_url = TYPES.replace("arguments", "url");
    let told = [
        ("drive", taken(PROXMOX, fixed)),
        ("QEMU", taken(QEMU, fixed)),
        ("no disc", taken(full, fixed)),
        ("typed", taken(QEMU, &format!("{fixed}{TYPES}"))),
        ("typed without it", taken(QEMU, &format!("{fixed}{by_url}"))),
        ("a kernel", taken(QEMU, &format!("{KERNEL}{fixed}"))),
        ("a kernel without it", taken(QEMU, &format!("{}{fixed}", KERNEL.replace("arguments", "url")))),
    ];
    let told: Vec<String> = told.iter().map(|(case, told)| format!("{case}: {told}")).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    drive: cloud-init-drive: the VM has a cloud-init drive: no HTTP and no typing
    QEMU: disc: a disc holds the seed: no network and no typing (not cloud-init-drive: QEMU has no cloud-init drive)
    no disc: smbios: the SMBIOS serial carries the NoCloud address: no typing (not cloud-init-drive: boot-vm has no cloud-init drive, and the profile adds none; not disc: no storage takes ISOs), but by `smbios` cloud-init reads this network configuration from its version 24.3 on: with an older one the guest keeps what it has
    typed: typed: the boot steps type the NoCloud address
    typed without it: typed: the boot steps type the NoCloud address, but by `typed` cloud-init reads this network configuration from its version 24.3 on: with an older one the guest keeps what it has
    a kernel: kernel: the kernel is started with the address of its answers: no typing
    a kernel without it: kernel: the kernel is started with the address of its answers: no typing, but by `kernel` cloud-init reads this network configuration from its version 24.3 on: with an older one the guest keeps what it has
    "#);
}
