//! Screens, serial ports, networks, and the smaller devices of a VM.

use std::collections::BTreeMap;
use std::path::Path;

use super::drives::boot_index;
use super::{Arguments, Launch, is_net};
use crate::schema::parse_property_string;
use crate::state::parse_net;

/// The VGA card. Proxmox's `qxl` needs SPICE, which the lab has not: such a VM gets the standard card.
pub(super) fn video(list: &mut Arguments, vga: Option<&str>) {
    let parsed = parse_property_string("vga", vga.unwrap_or("std")).unwrap_or_default();
    let memory = parsed.get("memory").map(String::as_str);
    match parsed.get("type").map_or("std", String::as_str) {
        "none" => {}
        serial if serial.starts_with("serial") => {}
        "virtio" | "virtio-gl" => list.add("-device", "virtio-vga"),
        "cirrus" => list.add("-device", "cirrus-vga"),
        "vmware" => list.add("-device", format!("vmware-svga,vgamem_mb={}", memory.unwrap_or("16"))),
        _ => list.add("-device", format!("VGA,vgamem_mb={}", memory.unwrap_or("16"))),
    }
}

/// Serial ports: a socket each where the configuration has one. Port 0 always exists and is logged, so that a test can
/// read what a guest said; a real server gives a guest only the ports of its configuration.
pub(super) fn serial_ports(list: &mut Arguments, launch: &Launch<'_>) {
    for number in 0..4 {
        let configured = launch.config.contains_key(&format!("serial{number}"));
        let log =
            format!("logfile={}", launch.file(if number == 0 { "serial.log" } else { "serial-other.log" }));
        match (configured, number) {
            (true, _) => list.add(
                "-chardev",
                format!(
                    "socket,path={},server=on,wait=off,id=serial{number},{log},logappend=on",
                    launch.file(&format!("serial{number}.sock"))
                ),
            ),
            (false, 0) => list.add("-chardev", format!("file,id=serial0,path={}", launch.file("serial.log"))),
            (false, _) => continue,
        }
        list.add("-device", format!("isa-serial,chardev=serial{number},index={number}"));
    }
}

/// The guest agent's channel: a virtio port, or an ISA serial port.
pub(super) fn agent(list: &mut Arguments, launch: &Launch<'_>) {
    let parsed = launch
        .config
        .get("agent")
        .and_then(|value| parse_property_string("agent", value).ok())
        .unwrap_or_default();
    list.add("-chardev", format!("socket,path={},server=on,wait=off,id=qga0", launch.file("qga.sock")));
    list.add("-device", "virtio-serial-pci,id=virtio-serial0");
    if parsed.get("type").is_some_and(|kind| kind == "isa") {
        list.add("-device", "isa-serial,chardev=qga0,index=3");
    } else {
        list.add("-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0");
    }
}

/// A source of randomness, a watchdog, the balloon, a TPM.
pub(super) fn others(list: &mut Arguments, launch: &Launch<'_>) {
    if let Some(value) = launch.config.get("rng0") {
        let parsed = parse_property_string("rng0", value).unwrap_or_default();
        let given = parsed.get("source").map_or("/dev/urandom", String::as_str);
        // A machine without the device would not start such a guest at all.
        let source = if Path::new(given).exists() { given } else { "/dev/urandom" };
        list.add("-object", format!("rng-random,id=rng0,filename={source}"));
        let mut device = "virtio-rng-pci,rng=rng0".to_owned();
        if let Some(bytes) = parsed.get("max_bytes").filter(|bytes| *bytes != "0") {
            let period = parsed.get("period").map_or("1000", String::as_str);
            device.push_str(&format!(",max-bytes={bytes},period={period}"));
        }
        list.add("-device", device);
    }
    if let Some(value) = launch.config.get("watchdog") {
        let parsed = parse_property_string("watchdog", value).unwrap_or_default();
        let model = parsed.get("model").map_or("i6300esb", String::as_str);
        list.add("-device", model);
        if let Some(action) = parsed.get("action") {
            list.add("-watchdog-action", action.clone());
        }
    }
    if launch.config.get("balloon").is_none_or(|balloon| balloon != "0") {
        list.add("-device", "virtio-balloon-pci,id=balloon0");
    }
    if let Some(socket) = &launch.tpm {
        list.add("-chardev", format!("socket,id=tpmchar,path={}", socket.to_string_lossy()));
        list.add("-tpmdev", "emulator,id=tpmdev,chardev=tpmchar");
        list.add("-device", "tpm-tis,tpmdev=tpmdev");
    }
}

/// Adapters on real bridges, or on QEMU's user network; the first one there has the way in to port 22. There is no boot by network: the cards have
/// no ROM, which spares every start the time that it takes.
pub(super) fn networks(list: &mut Arguments, launch: &Launch<'_>) {
    let mut forward = launch.ssh;
    for (key, value) in launch.config.iter().filter(|(key, _)| is_net(key)) {
        let (model, mac, options) = parse_net(value);
        let netdev = match launch.taps.get(key) {
            Some(tap) => format!("tap,id={key},ifname={tap},script=no,downscript=no"),
            None => {
                let way_in = forward
                    .take()
                    .map(|address| format!(",hostfwd=tcp:{}:{}-:22", address.ip(), address.port()));
                format!("user,id={key},ipv6=off{}", way_in.unwrap_or_default())
            }
        };
        list.add("-netdev", netdev);
        list.add("-device", adapter(launch, key, &model, mac.as_deref(), &options));
    }
}

fn adapter(
    launch: &Launch<'_>,
    key: &str,
    model: &str,
    mac: Option<&str>,
    options: &BTreeMap<String, String>,
) -> String {
    let device = match model {
        "virtio" => "virtio-net-pci",
        "e1000-82540em" => "e1000",
        other => other,
    };
    let mut device = format!("{device},netdev={key},id={key}-dev");
    if !matches!(model, "ne2k_isa") {
        device.push_str(",romfile=");
    }
    if let Some(mac) = mac {
        device.push_str(&format!(",mac={}", mac.to_lowercase()));
    }
    if let Some(mtu) = options.get("mtu").filter(|mtu| model == "virtio" && *mtu != "1") {
        device.push_str(&format!(",host_mtu={mtu}"));
    }
    if let Some(index) = boot_index(launch.config, key) {
        device.push_str(&format!(",bootindex={index}"));
    }
    device
}
