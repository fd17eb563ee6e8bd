//! Rules for configuration values that create and update share: who may set what, and how values are kept.
//!
//! From qemu-server API2/Qemu.pm's facts; the privileges are measured (least-privilege-matrix.txt).

use super::Call;
use crate::error::{ApiError, ApiResult};
use crate::schema::{Param, Params, schema};
use crate::state::{Config, Drive, Volume, is_drive_key, normalise_tags, parse_net, print_net};

/// Parameters of create and update that are no configuration.
const NO_CONFIG: &[&str] = &[
    "vmid",
    "node",
    "pool",
    "start",
    "storage",
    "archive",
    "unique",
    "force",
    "bwlimit",
    "live-restore",
    "ha-managed",
    "import-working-storage",
    "skiplock",
    "digest",
    "delete",
    "revert",
    "background_delay",
];

/// The configuration among the parameters.
pub fn config_values(params: &Params) -> Config {
    let mut set = Config::new();
    for (key, value) in &params.0 {
        if NO_CONFIG.contains(&key.as_str()) {
            continue;
        }
        if let Param::One(text) = value {
            let key = if key == "cdrom" { "ide2" } else { key };
            set.insert(key.to_owned(), text.clone());
        }
    }
    set
}

/// The name of a configuration.
pub fn name_of(config: &Config, vmid: u32) -> String {
    config.get("name").cloned().unwrap_or_else(|| format!("VM{vmid}"))
}

/// Checks values beyond the schema.
///
/// # Errors
/// Proxmox's 400 or 500.
pub fn check_values(call: &Call, set: &Config) -> ApiResult<()> {
    for (key, value) in set {
        match key.as_str() {
            "args" | "hookscript" | "lock" if !call.caller.is_root() => {
                return Err(ApiError::die(format!("only root can set '{key}' config")));
            }
            "sshkeys" => check_ssh_keys(value)?,
            "rng0" if value.contains("/dev/hwrng") => call.require("/mapping/hwrng", &["Mapping.Use"])?,
            _ if key.starts_with("serial") && value != "socket" && !call.caller.is_root() => {
                return Err(ApiError::die(format!("only root can modify '{key}' config for real devices")));
            }
            _ if is_drive_key(key) => {
                let drive = Drive::parse(value);
                let import = drive.options.get("import-from");
                let path = drive.volume.starts_with('/') || import.is_some_and(|from| from.starts_with('/'));
                if path && !call.caller.is_root() {
                    return Err(ApiError::die(
                        "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651.",
                    ));
                }
                if drive.volume == "cdrom" {
                    call.require("/", &["Sys.Console"])?;
                }
                if let Some(from) = import {
                    check_import(call, key, &drive, from)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// An import takes the whole of an image into a disk whose size it brings along.
fn check_import(call: &Call, key: &str, drive: &Drive, from: &str) -> ApiResult<()> {
    let size = drive.volume.split_once(':').and_then(|(_, size)| size.parse::<f64>().ok());
    if size != Some(0.0) {
        let text = "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>";
        return Err(ApiError::parameter(key, text));
    }
    if from.starts_with('/') {
        return Ok(());
    }
    let volume = Volume::parse(from)?;
    if !matches!(volume.content.as_str(), "images" | "import") {
        let text = format!("{from} has wrong type '{}' - needs to be 'images' or 'import'", volume.content);
        return Err(ApiError::parameter(key, text));
    }
    if let Some(owner) = volume.vmid {
        return call.require(&format!("/vms/{owner}"), &["VM.Clone"]);
    }
    call.require_any(&format!("/storage/{}", volume.storage), &["Datastore.AllocateSpace", "Datastore.Audit"])
}

fn check_ssh_keys(value: &str) -> ApiResult<()> {
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
    let kinds = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    let valid = decoded.lines().map(str::trim).filter(|line| !line.is_empty()).all(|line| {
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let blob = words.next().unwrap_or_default();
        kinds.contains(&kind) && blob.starts_with("AAAA") && blob.len() >= 68
    });
    if valid { Ok(()) } else { Err(ApiError::die("SSH public key validation error")) }
}

/// Checks the storages of drives before anything is done: they exist, take images, and the caller may use them.
///
/// # Errors
/// 500 or 403.
pub fn check_storages(call: &Call, set: &Config) -> ApiResult<()> {
    for (_, value) in set.iter().filter(|(key, _)| is_drive_key(key)) {
        let drive = Drive::parse(value);
        let Some(storage) = drive.storage() else { continue };
        call.cluster.storages.get(storage)?;
        let rest = &drive.volume[storage.len() + 1..];
        let path = format!("/storage/{storage}");
        if rest == "cloudinit" || rest.parse::<f64>().is_ok() {
            call.require(&path, &["Datastore.AllocateSpace"])?;
            call.cluster.storages.check_images(storage)?;
        } else {
            let volume = Volume::parse(&drive.volume)?;
            if volume.vmid != Some(call.vmid()) {
                call.require_any(&path, &["Datastore.AllocateSpace", "Datastore.Audit"])?;
            }
        }
    }
    Ok(())
}

/// Demands the use of every bridge.
///
/// # Errors
/// 403 with the path of the bridge.
pub fn check_bridges(call: &Call, set: &Config) -> ApiResult<()> {
    for (_, value) in set.iter().filter(|(key, _)| is_net(key)) {
        let (_, _, options) = parse_net(value);
        let Some(bridge) = options.get("bridge") else { continue };
        let tag = options.get("tag").map(|tag| format!("/{tag}")).unwrap_or_default();
        call.require(&format!("{}{tag}", call.cluster.config.sdn_path(bridge)), &["SDN.Use"])?;
    }
    Ok(())
}

fn is_net(key: &str) -> bool {
    numbered(key, "net")
}

fn numbered(key: &str, base: &str) -> bool {
    key.strip_prefix(base)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Demands the privileges for setting and deleting keys. `delete` is paired with the value that goes.
///
/// # Errors
/// 403 for the first that lacks.
pub fn check_privileges(
    call: &Call,
    path: &str,
    set: &Config,
    delete: &[(String, Option<String>)],
    creating: bool,
) -> ApiResult<()> {
    let setting = set.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
    let deleting = delete.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
    for (key, value) in setting.chain(deleting) {
        if is_drive_key(key) || numbered(key, "unused") {
            let drive = Drive::parse(value.unwrap_or_default());
            if drive.is_cdrom() && creating {
                continue;
            }
            if drive.is_cloudinit() {
                call.require(path, &["VM.Config.CDROM", "VM.Config.Cloudinit"])?;
            } else if drive.is_cdrom() {
                call.require(path, &["VM.Config.CDROM"])?;
            } else {
                call.require(path, &["VM.Config.Disk"])?;
            }
            continue;
        }
        call.require_any(path, privileges_of(key))?;
    }
    Ok(())
}

fn privileges_of(key: &str) -> &'static [&'static str] {
    match key {
        "cores" | "sockets" | "cpu" | "cpulimit" | "cpuunits" | "numa" | "vcpus" | "affinity" | "smp" => {
            &["VM.Config.CPU"]
        }
        "memory" | "balloon" | "shares" | "hugepages" | "keephugepages" | "allow-ksm" => {
            &["VM.Config.Memory"]
        }
        "boot" | "bootdisk" | "vmstatestorage" => &["VM.Config.Disk"],
        "acpi" | "hotplug" | "kvm" | "machine" | "scsihw" | "smbios1" | "tablet" | "vga" | "watchdog"
        | "audio0" | "rng0" | "ivshmem" | "arch" | "spice_enhancements" => &["VM.Config.HWType"],
        "cicustom" | "cipassword" | "citype" | "ciuser" | "ciupgrade" | "nameserver" | "searchdomain"
        | "sshkeys" => &["VM.Config.Cloudinit"],
        _ if numbered(key, "numa") => &["VM.Config.CPU"],
        _ if numbered(key, "ipconfig") => &["VM.Config.Cloudinit", "VM.Config.Network"],
        _ if is_net(key) => &["VM.Config.Network"],
        _ if ["serial", "usb", "parallel", "hostpci"].iter().any(|base| numbered(key, base)) => {
            &["VM.Config.HWType"]
        }
        _ => &["VM.Config.Options"],
    }
}

/// Brings values into the form in which Proxmox keeps them.
pub fn normalise(set: &mut Config) {
    for (key, value) in set.iter_mut() {
        if key == "tags" {
            *value = normalise_tags(value);
        } else if is_net(key) {
            let (model, mac, options) = parse_net(value);
            *value = print_net(&model, &mac.unwrap_or_else(crate::ids::mac), &options);
        } else if is_drive_key(key) {
            *value = Drive::parse(value).print();
        } else if key == "smbios1" {
            *value = sorted(value);
        }
    }
}

/// A property string with its options sorted.
fn sorted(value: &str) -> String {
    let mut parts: Vec<&str> = value.split(',').filter(|part| !part.is_empty()).collect();
    parts.sort_unstable();
    parts.join(",")
}

/// Adds what a new VM gets by itself.
pub fn add_defaults(set: &mut Config) {
    set.entry("vmgenid".to_owned()).or_insert_with(crate::ids::uuid);
    let smbios = set.entry("smbios1".to_owned()).or_default();
    if !smbios.contains("uuid=") {
        let separator = if smbios.is_empty() { "" } else { "," };
        *smbios = format!("{smbios}{separator}uuid={}", crate::ids::uuid());
    }
    set.insert("meta".to_owned(), format!("creation-qemu=10.0.2,ctime={}", crate::ids::now()));
    if !set.contains_key("boot") {
        let first = |wanted: &dyn Fn(&str, &str) -> bool| {
            set.iter().find(|(key, value)| wanted(key, value)).map(|(key, _)| key.clone())
        };
        let disk = first(&|key, value| {
            is_drive_key(key)
                && !key.starts_with("efi")
                && !key.starts_with("tpm")
                && !Drive::parse(value).is_cdrom()
        });
        let cdrom = first(&|key, value| is_drive_key(key) && Drive::parse(value).is_cdrom());
        let net = first(&|key, _| is_net(key));
        let order: Vec<String> = [disk, cdrom, net].into_iter().flatten().collect();
        if !order.is_empty() {
            set.insert("boot".to_owned(), format!("order={}", order.join(";")));
        }
    }
}

/// Checks a boot order of an update against the configuration.
///
/// # Errors
/// 500 for a device that is not there.
pub fn check_boot(boot: &str, config: &Config) -> ApiResult<()> {
    let Some(order) = boot.strip_prefix("order=") else { return Ok(()) };
    match order.split(';').find(|device| !device.is_empty() && !config.contains_key(*device)) {
        Some(device) => Err(ApiError::die(format!("invalid bootorder: device '{device}' does not exist'"))),
        None => Ok(()),
    }
}

/// Whether a VM's configuration may hold a key, by the schema.
pub fn is_known(key: &str) -> bool {
    schema().is_config_key(key)
}
