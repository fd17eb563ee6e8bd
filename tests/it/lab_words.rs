//! What Proxmox says is told to people, by the real program on the lab with VMs in name only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_lab::{Fault, ImportVm, LabConfig};
use nix::sys::signal::Signal;

use crate::support::lab_site::{FIRST_ID, LabSite, PROFILE};

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_of_a_task_is_shown_and_a_refused_field_is_told_with_its_line() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let warning = "clone of volume is not thin any more";
    site.lab.faults().on("POST", "/nodes/*/qemu/*/clone").then(Fault::TaskWarn { text: warning.into() });
    // The last word on a value is the server's: this one knows no moments before 2027, say.
    let reason = "Parameter verification failed (startdate: value is not a valid start date)".to_owned();
    site.lab.faults().on("PUT", "/nodes/*/qemu/*/config").call(2).then(Fault::Refuse { status: 400, reason });
    site.write("tiny.toml", &format!("{PROFILE}\n[vm.proxmox]\nstartdate = \"2026-11-22\"\n"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains(&format!("Proxmox VE warns: {warning}")), "{}", done.stderr);
    assert!(
        done.stderr.contains("`startdate` is set by vm.proxmox.startdate (tiny.toml:21)"),
        "{}",
        done.stderr
    );
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_given_the_address_of_the_interface_that_the_target_names() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let given = r#"seed = { bind = "127.0.0.1", address = "10.0.2.2" }"#;
    let named = |interface: &str| {
        let seed = format!("seed = {{ bind = \"127.0.0.1\", interface = \"{interface}\" }}");
        site.write("forge.toml", &site.forge_toml().replace(given, &seed));
    };
    named("lo");
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    let smbios = site.lab.vm(FIRST_ID).expect("it is there").config["smbios1"].clone();
    let serial = smbios.split(',').find_map(|part| part.strip_prefix("serial=")).expect("a serial");
    let serial = String::from_utf8(STANDARD.decode(serial)?)?;
    assert!(serial.contains("http://127.0.0.1:"), "{serial}");
    build.signal(Signal::SIGINT);
    assert_eq!(build.ended().await.code, Some(130));

    // One that is not there is told beside those that are, before anything is made.
    named("nope0");
    let before = site.lab.requests().len();
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let words = "no network interface `nope0` has an address; there are lo (127.0.0.1)";
    assert!(done.stderr.contains(words) && done.stderr.contains("`seed.interface`"), "{}", done.stderr);
    let changes =
        site.lab.requests().split_off(before).into_iter().filter(|call| call.method != "GET").count();
    assert_eq!(changes, 0);
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

/// The port at which the guest is told to fetch its seed.
fn served_at(site: &LabSite) -> u16 {
    let smbios = site.lab.vm(FIRST_ID).expect("it is there").config["smbios1"].clone();
    let serial = smbios.split(',').find_map(|part| part.strip_prefix("serial=")).expect("a serial");
    let serial = String::from_utf8(STANDARD.decode(serial).expect("Base64")).expect("a text");
    let (_, rest) = serial.split_once("http://10.0.2.2:").expect("the address that the target names");
    rest.split('/').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_is_served_at_a_free_port_of_the_target_s_range_and_without_one_nothing_is_made()
-> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let first = taken.local_addr()?.port();
    let last = first.saturating_add(40);
    let ports = |first: u16, last: u16| {
        let given = r#"address = "10.0.2.2""#;
        let text = site.forge_toml().replace(given, &format!("{given}, ports = \"{first}-{last}\""));
        site.write("forge.toml", &text);
    };
    ports(first, last);
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    let port = served_at(&site);
    assert!(port > first && port <= last, "{port} is the next free one of {first}-{last}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "it is served there");
    build.signal(Signal::SIGINT);
    assert_eq!(build.ended().await.code, Some(130));
    site.assert_nothing_left();

    ports(first, first);
    let before = site.lab.requests().len();
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let words = format!("no port of {first}-{first} is free on 127.0.0.1");
    assert!(done.stderr.contains(&words) && done.stderr.contains("`seed.ports`"), "{}", done.stderr);
    let changes = site.lab.requests().into_iter().skip(before).filter(|call| call.method != "GET").count();
    assert_eq!(changes, 0, "nothing was made");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_starts_on_a_node_without_hardware_virtualisation_where_the_profile_does_without()
-> anyhow::Result<()> {
    let config = LabConfig { kvm: false, run_guests: false, ..LabConfig::default() };
    let site = LabSite::with(config, ImportVm::default()).await?;
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("KVM virtualisation configured, but not available"), "{}", done.stderr);
    site.assert_nothing_left();
    site.write("tiny.toml", &PROFILE.replace("[deadlines]", "[vm]\nkvm = false\n\n[deadlines]"));
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    let vm = site.lab.vm(FIRST_ID).expect("it is there");
    assert_eq!((vm.running, vm.config.get("kvm").map(String::as_str)), (true, Some("0")));
    build.signal(Signal::SIGINT);
    assert_eq!(build.ended().await.code, Some(130));
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}
