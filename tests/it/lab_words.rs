//! What Proxmox says is told to people, by the real program on the lab with VMs in name only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_lab::Fault;
use nix::sys::signal::Signal;

use crate::support::lab_site::{FIRST_ID, LabSite, PROFILE};

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_of_a_task_is_shown_and_a_refused_field_is_told_with_its_line() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let warning = "clone of volume is not thin any more";
    site.lab.faults().on("POST", "/nodes/*/qemu/*/clone").then(Fault::TaskWarn { text: warning.into() });
    // The patterns of values are the server's to know.
    site.write("tiny.toml", &format!("{PROFILE}\n[vm.proxmox]\nstartdate = \"soon\"\n"));
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
