//! Builds on the QEMU of this machine whose guest is on a bridge.

use std::process::{Command, Output};

use forge_lab::{Lab, LabConfig, SshForward, images};

use crate::support::local_site::{LocalSite, Said};

/// Lets QEMU's helper put guests on the bridge of the first argument, in a view of `/etc` that only what the others start
/// has.
const ALLOWED: &str = "
set -e
mkdir real etc etc/qemu
mount --rbind /etc real
for each in real/*; do
  [ \"$each\" = real/qemu ] || ln -s \"$PWD/$each\" etc/
done
echo \"allow $1\" > etc/qemu/bridge.conf
mount --bind etc /etc
shift
exec \"$@\"
";

/// The device that bears an address of this machine.
fn device_of(address: std::net::Ipv4Addr) -> Option<String> {
    let listed = Command::new("ip").args(["-o", "-4", "address", "show"]).output().ok()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let line = listed.lines().find(|line| line.contains(&format!(" {address}/")))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

fn site_on(bridge: &str) -> LocalSite {
    let site = LocalSite::new();
    site.write(
        "forge.toml",
        &format!("[targets.local]\ntype = \"qemu\"\nimages = \"images\"\nbridge = \"{bridge}\"\n"),
    );
    site
}

/// A profile whose provisioner tells the guest's own address.
fn profile(image: &std::path::Path) -> String {
    format!(
        "schema = 1\nname = \"bridged\"\n\n[os]\nfamily = \"linux\"\n\n[source]\nimage = {:?}\n\n[vm]\nmemory = \"256MiB\"\n\n\
         [deadlines]\nconnect = \"15m\"\n\n[[provision]]\nname = \"where\"\n\
         shell = [\"ip -4 -o addr show eth0 | sed 's/.*inet \\\\([0-9.]*\\\\).*/at \\\\1/'\", \"cat /sys/class/net/eth0/address\"]\n",
        image.display().to_string()
    )
}

/// Real bridges are made by the lab, whose network has a DHCP server.
#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_on_a_bridge_of_this_machine_is_built_at_an_address_of_its_own() -> anyhow::Result<()> {
    if std::env::var_os("FORGE_LAB").is_none() || std::env::var_os("FORGE_LAB_NETNS").is_none() {
        println!(
            "skipped: it needs a real guest and a real bridge; `cargo lab test` runs it in its namespace"
        );
        return Ok(());
    }
    let config = LabConfig { run_guests: false, ssh: SshForward::Bridge, ..LabConfig::default() };
    let lab = Lab::start(config).await?;
    let bridge = device_of(lab.host_address()).expect("the lab has made it");
    let site = site_on(&bridge);
    let (site, done) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let image = images::tiny(&images::default_cache_root())?.disk;
        site.write("bridged.toml", &profile(&image));
        let forge = site.command(&["build", "bridged.toml"]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ALLOWED, "sh", &bridge]).arg(forge.get_program());
        let done: Output = command.args(forge.get_args()).current_dir(site.path()).output()?;
        Ok((site, Said::from(done)))
    })
    .await??;
    assert_eq!(done.code, Some(0), "{}{}", done.text, site.serial());
    let [a, b, c, _] = lab.host_address().octets();
    assert!(done.text.contains(&format!("at {a}.{b}.{c}.")), "its address is of that network: {}", done.text);
    assert!(done.text.contains("52:54:00:"), "{}", done.text);
    assert!(site.image("tpl-bridged.qcow2").is_file(), "{:?}", site.images());
    site.assert_nothing_left();
    lab.stop().await;
    Ok(())
}

#[test]
fn a_bridge_that_this_machine_has_not_is_told_by_the_plan() {
    let site = site_on("br-nowhere");
    site.write("image.raw", &"x".repeat(1024));
    site.write("bridged.toml", &profile(std::path::Path::new("image.raw")));
    let said = site.run(&["plan", "bridged.toml"]);
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.text.contains("this machine has no bridge `br-nowhere`"), "{}", said.text);
    assert!(said.text.contains("ip link show type bridge"), "{}", said.text);
}
