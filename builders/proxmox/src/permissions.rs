//! What a token may do against what a build needs. Pure.
//!
//! `GET /access/permissions` lists the paths on which anything was granted, each with its effective privileges and
//! whether they are inherited. A path that is not listed takes from its nearest listed ancestor what is inherited.
//! Which call needs what was measured on PVE 9.2 by taking one privilege away at a time.

use std::collections::BTreeMap;

use forge_machine::{Finding, Location, MachineSpec, Medium};

use crate::api::types::PermissionMap;
use crate::sdn::{Zones, sdn_path};

/// The role name in the commands that findings propose, and that `forge init` makes.
pub const ROLE: &str = "ForgeBuild";

/// What building by clone takes on every release: measured on PVE 9.2 by leaving out one at a time.
const CLONE: [&str; 15] = [
    "VM.Allocate",
    "VM.Clone",
    "VM.Audit",
    "VM.Console",
    "VM.PowerMgmt",
    "VM.Config.CDROM",
    "VM.Config.Cloudinit",
    "VM.Config.CPU",
    "VM.Config.Memory",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Network",
    "VM.Config.Options",
    "Datastore.AllocateSpace",
    "Datastore.Audit",
];

/// What archiving a template takes besides [`least_privileges`]: only sites that archive need it.
pub const ARCHIVING: &str = "VM.Backup";

/// What sending media to a storage takes, for installers and seed discs.
pub const MEDIA: &str = "Datastore.AllocateTemplate";

/// What seeing a node's free memory takes: builds are placed by it, and wait for it.
pub const MEMORY: &str = "Sys.Audit";

/// The guest agent's read privilege by release: `VM.Monitor` was replaced in PVE 9, and is unknown there.
#[must_use]
pub fn agent_privilege(major: u32) -> &'static str {
    if major >= 9 { "VM.GuestAgent.Audit" } else { "VM.Monitor" }
}

/// The privileges that forge needs on a major release for what it does: builds by clone, media for those by installer, and
/// the choice of a node.
#[must_use]
pub fn least_privileges(major: u32) -> Vec<&'static str> {
    let mut all = CLONE.to_vec();
    all.push(agent_privilege(major));
    // PVE 7 does not check who uses a bridge, and knows no such privilege.
    if major >= 8 {
        all.push("SDN.Use");
    }
    all.extend([MEDIA, MEMORY]);
    all
}

/// The commands that give a token, and the user whose rights bound it, a privilege on a path: by the role that it has
/// on this site. A role that came with Proxmox VE can't be changed, so forge's own stands in for it.
#[must_use]
pub fn grant_command(role: &str, token_id: &str, privilege: &str, path: &str) -> String {
    let built_in = role.starts_with("PVE") || matches!(role, "Administrator" | "NoAccess" | "");
    let role = if built_in { ROLE } else { role };
    let (user, tokens) = match token_id.split_once('!') {
        Some((user, _)) => (user, format!(" --tokens '{token_id}'")),
        None => (token_id, String::new()),
    };
    format!(
        "pveum role add {role} --privs {privilege} || pveum role modify {role} --append 1 --privs {privilege}; \
         pveum acl modify {path} --roles {role} --users '{user}'{tokens}"
    )
}

/// A token or a user, for messages.
pub(crate) fn who(id: &str) -> String {
    let kind = if id.contains('!') { "token" } else { "user" };
    format!("{kind} {id}")
}

/// Explains the text of a 403: who lacks which privilege on which path, and the commands that grant it. `None` when
/// the text does not tell them: checks of several paths say only `Permission check failed`.
///
/// Alternatives are joined by `|` (pve-access-control `RPCEnvironment.pm`); the command grants the first of them.
#[must_use]
pub fn explain_denial(role: &str, token_id: &str, text: &str) -> Option<String> {
    let (_, inner) = text.split_once("Permission check failed (")?;
    let (inner, _) = inner.split_once(')')?;
    let (path, privileges) = inner.split_once(", ")?;
    // A tag that the cluster's policy keeps from the login: `/, Sys.Modify for modifying tag 'x'`.
    let (privileges, purpose) = match privileges.split_once(" for modifying tag ") {
        Some((privileges, tag)) => (privileges, format!(" (for the tag {tag}, by the cluster's policy)")),
        None => (privileges, String::new()),
    };
    let names: Vec<&str> = privileges.split('|').map(str::trim).collect();
    let sound = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    // The text comes from the target and ends in a command that is run as root: nothing but names may pass.
    if !path.starts_with('/') || !sound(path, "/-_.") || !names.iter().all(|name| sound(name, ".")) {
        return None;
    }
    let command = grant_command(role, token_id, names.first()?, path);
    let (who, names) = (who(token_id), names.join(" or "));
    Some(format!("{who} lacks {names} on {path}{purpose}; as root on a node: {command}"))
}

/// Who is asking, and of which release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// `user@realm!token`.
    pub token_id: String,
    /// The role that it has on this site, for the commands that findings propose.
    pub role: String,
    /// The major release of Proxmox VE: 9 has other agent privileges than 8, 7 has no SDN check.
    pub major: u32,
    /// What the token may do.
    pub map: PermissionMap,
    /// The pool the build VM goes into: its privileges count for the VM.
    pub pool: Option<String>,
    /// The zones of virtual networks, as far as the token is told them.
    pub zones: Zones,
}

/// How far a privilege reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Yes,
    /// Only for some VMs below the path.
    ForSome,
    No,
}

impl Grants {
    /// Whether a privilege holds on a path itself.
    #[must_use]
    pub fn on(&self, path: &str, privilege: &str) -> bool {
        match self.map.0.get(path) {
            Some(privileges) => privileges.contains_key(privilege),
            None => parent(path).is_some_and(|above| self.below(above, privilege)),
        }
    }

    /// Whether a privilege holds on a path and on everything below it.
    #[must_use]
    pub fn below(&self, path: &str, privilege: &str) -> bool {
        match self.map.0.get(path) {
            Some(privileges) => privileges.get(privilege).copied().unwrap_or(false),
            None => parent(path).is_some_and(|above| self.below(above, privilege)),
        }
    }

    pub(crate) fn on_new_vm(&self, privilege: &str) -> Held {
        let in_pool = self.pool.as_ref().is_some_and(|pool| self.on(&format!("/pool/{pool}"), privilege));
        if self.below("/vms", privilege) || in_pool {
            return Held::Yes;
        }
        let some =
            self.map.0.iter().any(|(path, has)| path.starts_with("/vms/") && has.contains_key(privilege));
        if some { Held::ForSome } else { Held::No }
    }

    /// The agent's read privilege by release: `VM.Monitor` was replaced in PVE 9.
    #[must_use]
    pub fn agent_privilege(&self) -> &'static str {
        agent_privilege(self.major)
    }

    pub(crate) fn path_for_new_vm(&self) -> String {
        self.pool.as_ref().map_or_else(|| "/vms".to_owned(), |pool| format!("/pool/{pool}"))
    }

    fn new_vm(&self, privilege: &str, purpose: &str, findings: &mut Vec<Finding>) {
        match self.on_new_vm(privilege) {
            Held::Yes => {}
            Held::ForSome => findings.push(Finding::warning(
                "target.token",
                format!("{} has {privilege} on some VMs only (needed to {purpose})", who(&self.token_id)),
                "make sure that every VMID this build may use is among them".to_owned(),
            )),
            Held::No => findings.push(self.missing(privilege, &self.path_for_new_vm(), purpose, true)),
        }
    }

    fn missing(&self, privilege: &str, path: &str, purpose: &str, fatal: bool) -> Finding {
        let message = format!("{} lacks {privilege} on {path} (needed to {purpose})", who(&self.token_id));
        let help =
            format!("as root on a node: {}", grant_command(&self.role, &self.token_id, privilege, path));
        Finding { setting: "target.token".to_owned(), message, help, fatal }
    }

    /// What every clone build needs: `source` is the VM to clone, `storages` hold disks, `bridges` are connected to.
    #[must_use]
    pub fn for_build(
        &self,
        source: Option<&str>,
        storages: &[String],
        bridges: &[String],
        needs_console: bool,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(vmid) = source {
            let path = format!("/vms/{vmid}");
            if !self.on(&path, "VM.Clone") {
                findings.push(self.missing("VM.Clone", &path, "clone the source", true));
            }
        }
        for (privilege, purpose) in [
            ("VM.Allocate", "create, convert and remove the build VM"),
            ("VM.Audit", "read the build VM's configuration and status"),
            ("VM.PowerMgmt", "start and stop the build VM"),
            ("VM.Config.Options", "mark the build VM and name the template"),
        ] {
            self.new_vm(privilege, purpose, &mut findings);
        }
        let agent_ok = self.on_new_vm("VM.GuestAgent.Unrestricted") == Held::Yes;
        if !agent_ok {
            self.new_vm(self.agent_privilege(), "learn the guest's addresses from its agent", &mut findings);
        }
        if needs_console {
            self.new_vm("VM.Console", "see the screen and press keys", &mut findings);
        }
        if self.on_new_vm("VM.Config.HWType") == Held::No {
            let purpose = "hand over the seed in the SMBIOS serial";
            findings.push(self.missing("VM.Config.HWType", &self.path_for_new_vm(), purpose, false));
        }
        for storage in storages {
            let path = format!("/storage/{storage}");
            if !self.on(&path, "Datastore.AllocateSpace") {
                findings.push(self.missing("Datastore.AllocateSpace", &path, "put disks there", true));
            }
        }
        if self.major >= 8 {
            for bridge in bridges.iter().filter(|bridge| !self.may_use_bridge(bridge)) {
                let path = self.bridge_path(bridge);
                findings.push(self.missing("SDN.Use", &path, "connect the build VM to it", true));
            }
        }
        findings
    }

    /// What making a VM that is no clone needs besides: its SCSI controller is set in the call that creates it.
    #[must_use]
    pub fn for_new_vm(&self) -> Vec<Finding> {
        let privilege = "VM.Config.HWType";
        if self.on_new_vm(privilege) != Held::No {
            return Vec::new();
        }
        vec![self.missing(privilege, &self.path_for_new_vm(), "set the new VM's SCSI controller", true)]
    }

    /// What choosing among nodes by their free memory takes. Without it they are chosen by builds and space alone.
    #[must_use]
    pub fn for_placement(&self, nodes: &[String]) -> Option<Finding> {
        let node = nodes.iter().find(|node| !self.on(&format!("/nodes/{node}"), MEMORY))?;
        // Whoever lacks it on all of them is told of it once.
        let path = match self.on("/nodes", MEMORY) {
            true => format!("/nodes/{node}"),
            false => "/nodes".to_owned(),
        };
        let purpose = "place builds by free memory; they are placed by builds under way and space";
        Some(self.missing(MEMORY, &path, purpose, false))
    }

    /// What it takes to run commands in the guest by its agent.
    #[must_use]
    pub fn for_agent(&self) -> Vec<Finding> {
        let privilege = if self.major >= 9 { "VM.GuestAgent.Unrestricted" } else { "VM.Monitor" };
        let mut findings = Vec::new();
        self.new_vm(privilege, "run commands in the guest by its agent", &mut findings);
        findings
    }

    /// The path that rights on a bridge or a virtual network are given on: by the zone that is known, or in which something
    /// was granted on it.
    pub(crate) fn bridge_path(&self, bridge: &str) -> String {
        let suffix = format!("/{bridge}");
        let granted = |path: &&String| path.starts_with("/sdn/zones/") && path.ends_with(&suffix);
        match self.map.0.keys().find(granted) {
            Some(path) if !self.zones.contains_key(bridge) => path.clone(),
            _ => sdn_path(&self.zones, bridge),
        }
    }

    /// A plain bridge lies in the zone `localnetwork`, a virtual network in a zone of its own.
    pub(crate) fn may_use_bridge(&self, bridge: &str) -> bool {
        let path = self.bridge_path(bridge);
        let suffix = format!("/{bridge}");
        let by_name = |(path, has): (&String, &BTreeMap<String, bool>)| {
            path.starts_with("/sdn/zones/") && path.ends_with(&suffix) && has.contains_key("SDN.Use")
        };
        self.on(&path, "SDN.Use") || self.map.0.iter().any(by_name)
    }

    /// What bringing media to a storage needs. `None` is whichever storage takes them: then one that may is enough.
    #[must_use]
    pub fn for_media(&self, storage: Option<&str>, spec: &MachineSpec) -> Vec<Finding> {
        let brought = |medium: &&Medium| !matches!(medium.location, Location::Volume(_));
        if !spec.media().any(|medium| brought(&medium)) {
            return Vec::new();
        }
        let privilege = "Datastore.AllocateTemplate";
        let path = storage.map_or_else(|| "/storage".to_owned(), |storage| format!("/storage/{storage}"));
        let somewhere = storage.is_none()
            && self
                .map
                .0
                .iter()
                .any(|(path, has)| path.starts_with("/storage/") && has.contains_key(privilege));
        if somewhere || self.on(&path, privilege) {
            return Vec::new();
        }
        vec![self.missing(privilege, &path, "put install media there", true)]
    }

    /// Why no disc with the seed can be put on a storage and into a drive of the build VM, in a sentence.
    #[must_use]
    pub fn no_seed_disc(&self, storage: &str) -> Option<String> {
        let path = format!("/storage/{storage}");
        let lacks = |privilege: &str, path: &str| {
            Some(format!("{} lacks {privilege} on {path}", who(&self.token_id)))
        };
        if !self.on(&path, "Datastore.AllocateTemplate") {
            lacks("Datastore.AllocateTemplate", &path)
        } else if self.on_new_vm("VM.Config.CDROM") == Held::No {
            lacks("VM.Config.CDROM", &self.path_for_new_vm())
        } else {
            None
        }
    }

    /// What this very spec needs beyond [`Grants::for_build`].
    #[must_use]
    pub fn for_spec(&self, spec: &MachineSpec) -> Vec<Finding> {
        let drives = !spec.isos.is_empty();
        let cpu = spec.cores.is_some() || spec.sockets.is_some() || spec.cpu.is_some();
        let added_drive = spec.cloud_init.as_ref().is_some_and(|drive| !drive.inherited);
        let mut findings = Vec::new();
        for (needed, privilege, purpose) in [
            (cpu, "VM.Config.CPU", "set the CPU"),
            (spec.memory_mib.is_some(), "VM.Config.Memory", "set the memory"),
            (!spec.disks.is_empty(), "VM.Config.Disk", "grow and change disks"),
            (!spec.networks.is_empty(), "VM.Config.Network", "set the network adapters"),
            (spec.cloud_init.is_some(), "VM.Config.Cloudinit", "set user and keys on the cloud-init drive"),
            (added_drive, "VM.Config.CDROM", "add the cloud-init drive"),
            (drives && !added_drive, "VM.Config.CDROM", "attach the media"),
        ] {
            if needed {
                self.new_vm(privilege, purpose, &mut findings);
            }
        }
        let mut by_privilege: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in spec.extra.keys() {
            by_privilege.entry(privilege_of(key)).or_default().push(key);
        }
        for (privilege, keys) in by_privilege {
            self.new_vm(privilege, &format!("set {}", keys.join(", ")), &mut findings);
        }
        for disk in &spec.disks {
            let path = disk.storage.as_ref().map(|storage| format!("/storage/{storage}"));
            if let Some(path) = path.filter(|path| !self.on(path, "Datastore.AllocateSpace")) {
                let purpose = format!("put {} there", disk.slot);
                findings.push(self.missing("Datastore.AllocateSpace", &path, &purpose, true));
            }
        }
        findings
    }
}

/// The privilege that setting a key of a VM's configuration takes (qemu-server API2/Qemu.pm; measured on PVE 9.2).
fn privilege_of(key: &str) -> &'static str {
    match key.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "affinity" | "cores" | "cpu" | "cpulimit" | "cpuunits" | "numa" | "smp" | "sockets" | "vcpus" => {
            "VM.Config.CPU"
        }
        "allow-ksm" | "balloon" | "hugepages" | "keephugepages" | "memory" | "shares" => "VM.Config.Memory",
        "boot" | "bootdisk" | "vmstatestorage" => "VM.Config.Disk",
        "acpi" | "arch" | "audio" | "hostpci" | "hotplug" | "ivshmem" | "kvm" | "machine" | "parallel"
        | "rng" | "scsihw" | "serial" | "smbios" | "spice_enhancements" | "tablet" | "usb" | "vga"
        | "watchdog" => "VM.Config.HWType",
        "cicustom" | "cipassword" | "citype" | "ciupgrade" | "ciuser" | "ipconfig" | "nameserver"
        | "searchdomain" | "sshkeys" => "VM.Config.Cloudinit",
        "net" => "VM.Config.Network",
        _ => "VM.Config.Options",
    }
}

fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/') {
        Some(("", "")) | None => None,
        Some(("", _)) => Some("/"),
        Some((above, _)) => Some(above),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(major: u32, json: &str) -> Grants {
        Grants {
            token_id: "forge@pve!build".into(),
            role: ROLE.into(),
            major,
            map: serde_json::from_str(json).expect("valid"),
            pool: None,
            zones: Zones::new(),
        }
    }

    #[test]
    fn privileges_come_down_from_the_nearest_listed_path() {
        let table = [
            (r#"{"/":{"VM.Clone":1}}"#, "/vms/9000", true),
            (r#"{"/":{"VM.Clone":0}}"#, "/vms/9000", false),
            (r#"{"/vms":{"VM.Clone":1}}"#, "/vms/9000", true),
            (r#"{"/vms":{"VM.Clone":0}}"#, "/vms/9000", false),
            (r#"{"/vms/9000":{"VM.Clone":0}}"#, "/vms/9000", true),
            (r#"{"/vms/9000":{"VM.Audit":1},"/vms":{"VM.Clone":1}}"#, "/vms/9000", false),
            (r#"{"/vms/9001":{"VM.Clone":1}}"#, "/vms/9000", false),
            (r"{}", "/vms/9000", false),
        ];
        for (json, path, expected) in table {
            assert_eq!(grants(9, json).on(path, "VM.Clone"), expected, "{json}");
        }
    }

    const ENOUGH: &str = r#"{"/vms":{"VM.Clone":1,"VM.Allocate":1,"VM.Audit":1,"VM.PowerMgmt":1,"VM.Config.Options":1,
        "VM.Config.HWType":1,"VM.GuestAgent.Audit":1,"VM.Monitor":1},"/storage/local":{"Datastore.AllocateSpace":1},
        "/sdn/zones/localnetwork":{"SDN.Use":1}}"#;

    fn for_build(grants: &Grants, console: bool) -> Vec<String> {
        let found = grants.for_build(Some("9000"), &["local".into()], &["vmbr0".into()], console);
        found.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_sufficient_token_has_no_findings() {
        for major in [7, 8, 9] {
            assert_eq!(for_build(&grants(major, ENOUGH), false), Vec::<String>::new(), "PVE {major}");
        }
    }

    #[test]
    fn each_missing_privilege_is_named_with_its_path() {
        for (privilege, path) in [
            ("VM.Clone", "/vms/9000"),
            ("VM.Allocate", "/vms"),
            ("VM.Audit", "/vms"),
            ("VM.PowerMgmt", "/vms"),
            ("VM.Config.Options", "/vms"),
            ("VM.Config.HWType", "/vms"),
            ("VM.GuestAgent.Audit", "/vms"),
            ("Datastore.AllocateSpace", "/storage/local"),
            ("SDN.Use", "/sdn/zones/localnetwork/vmbr0"),
        ] {
            let json = ENOUGH.replace(&format!("\"{privilege}\":1"), "\"Other\":1");
            let found = for_build(&grants(9, &json), false);
            assert_eq!(found.len(), 1, "{privilege}: {found:?}");
            let expected = format!("token forge@pve!build lacks {privilege} on {path} ");
            assert!(found[0].starts_with(&expected), "{}", found[0]);
        }
        let found = for_build(&grants(9, ENOUGH), true);
        assert!(found.len() == 1 && found[0].contains("VM.Console"), "{found:?}");
    }

    #[test]
    fn a_new_vm_is_not_made_without_the_privilege_for_its_controller_and_a_clone_is() {
        assert_eq!(grants(9, ENOUGH).for_new_vm(), []);
        let lacking = grants(9, &ENOUGH.replace("VM.Config.HWType", "Other"));
        let found = lacking.for_new_vm();
        assert!(found.len() == 1 && found[0].fatal, "{found:?}");
        let words = "lacks VM.Config.HWType on /vms (needed to set the new VM's SCSI controller)";
        assert!(found[0].message.ends_with(words), "{}", found[0].message);
        let of_clone = lacking.for_build(Some("9000"), &[], &[], false);
        assert!(of_clone.len() == 1 && !of_clone[0].fatal, "{of_clone:?}");
    }

    #[test]
    fn releases_differ_in_the_agents_privilege_and_the_check_of_bridges() {
        let json =
            ENOUGH.replace("VM.Monitor", "Other").replace("/sdn/zones/localnetwork", "/sdn/zones/other");
        let found = for_build(&grants(8, &json), false);
        assert!(
            found.len() == 2 && found[0].contains("VM.Monitor") && found[1].contains("SDN.Use"),
            "{found:?}"
        );
        assert_eq!(for_build(&grants(7, &ENOUGH.replace("SDN.Use", "Other")), false), Vec::<String>::new());
    }

    #[test]
    fn a_virtual_network_lies_in_its_own_zone_and_a_bridge_in_the_local_one() {
        let mut grants = grants(9, &ENOUGH.replace("/sdn/zones/localnetwork", "/sdn/zones/lab"));
        let of = |grants: &Grants, bridge: &str| {
            let found = grants.for_build(Some("9000"), &["local".into()], &[bridge.into()], false);
            found.into_iter().map(|finding| finding.message).collect::<Vec<_>>()
        };
        assert!(of(&grants, "lan1")[0].contains("SDN.Use on /sdn/zones/localnetwork/lan1"));
        let one = ENOUGH.replace("/sdn/zones/localnetwork", "/sdn/zones/lab/lan1");
        let one = self::grants(9, &one.replace("SDN.Use", "SDN.Audit"));
        assert!(
            of(&one, "lan1")[0].contains("SDN.Use on /sdn/zones/lab/lan1"),
            "something was granted there"
        );
        grants.zones.insert("lan1".into(), "lab".into());
        assert_eq!(of(&grants, "lan1"), [""; 0]);
        grants.zones.insert("lan1".into(), "other".into());
        assert!(of(&grants, "lan1")[0].contains("SDN.Use on /sdn/zones/other/lan1"));
        assert!(of(&grants, "vmbr0")[0].contains("SDN.Use on /sdn/zones/localnetwork/vmbr0"));
    }

    #[test]
    fn a_pool_s_privileges_count_and_single_vms_only_warn() {
        let in_pool = ENOUGH.replace("\"/vms\"", "\"/pool/builds\"");
        let mut grants_of_pool = grants(9, &in_pool);
        grants_of_pool.pool = Some("builds".into());
        let found = for_build(&grants_of_pool, false);
        assert!(found.len() == 1 && found[0].contains("VM.Clone on /vms/9000"), "{found:?}");

        let single = grants(9, &ENOUGH.replace("\"/vms\"", "\"/vms/9001\""));
        let found = single.for_build(None, &[], &[], false);
        assert!(!found.is_empty() && found.iter().all(|finding| !finding.fatal), "{found:?}");
    }

    #[test]
    fn the_help_is_a_command_that_can_be_pasted() {
        let found = grants(9, r"{}").for_build(Some("9000"), &[], &[], false);
        assert!(
            found[0].help.contains(
                "pveum acl modify /vms/9000 --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'"
            ),
            "{}",
            found[0].help
        );
    }

    #[test]
    fn the_command_is_for_the_role_that_the_token_has_unless_that_came_with_proxmox_ve() {
        let of = |role: &str| grant_command(role, "ci@pve!build", "VM.Clone", "/vms");
        assert_eq!(
            of("Builders"),
            "pveum role add Builders --privs VM.Clone || pveum role modify Builders --append 1 --privs VM.Clone; \
             pveum acl modify /vms --roles Builders --users 'ci@pve' --tokens 'ci@pve!build'"
        );
        for built_in in ["PVEVMAdmin", "Administrator", ""] {
            assert_eq!(of(built_in), of(ROLE), "{built_in}");
        }
        let mut of_site = grants(9, r"{}");
        of_site.role = "Builders".into();
        let found = of_site.for_build(Some("9000"), &[], &[], false);
        assert!(found.iter().all(|each| each.help.contains("--roles Builders ")), "{found:?}");
    }

    #[test]
    fn a_denial_names_privilege_path_and_the_granting_command() {
        let told = explain_denial(ROLE, "forge@pve!build", "Permission check failed (/vms/9000, VM.Console)");
        assert_eq!(
            told.as_deref(),
            Some(
                "token forge@pve!build lacks VM.Console on /vms/9000; as root on a node: pveum role add ForgeBuild --privs \
                 VM.Console || pveum role modify ForgeBuild --append 1 --privs VM.Console; pveum acl modify /vms/9000 \
                 --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'"
            )
        );
        let either = "Permission check failed (/vms/9000, VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)";
        let told = explain_denial(ROLE, "forge@pve!build", either).expect("explained");
        assert!(told.contains("VM.GuestAgent.Audit or VM.GuestAgent.Unrestricted on /vms/9000"), "{told}");
        assert!(told.contains("--privs VM.GuestAgent.Audit ||"), "{told}");
        let of_tag = "Permission check failed (/, Sys.Modify for modifying tag 'golden')";
        let told = explain_denial(ROLE, "forge@pve!build", of_tag).expect("explained");
        assert!(
            told.contains("lacks Sys.Modify on / (for the tag 'golden', by the cluster's policy)"),
            "{told}"
        );
    }

    #[test]
    fn a_denial_that_is_no_plain_check_gets_no_command() {
        for text in [
            "Permission check failed",
            "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.)",
            "Permission check failed (/vms/1; reboot, VM.Audit)",
            "Permission check failed (/vms/1, VM.Audit; reboot)",
            "Permission check failed (/vms/1, )",
            "Permission check failed (/vms/1, VM.Audit",
        ] {
            assert_eq!(explain_denial(ROLE, "forge@pve!build", text), None, "{text}");
        }
    }
}
